// Decoding on a CPU with AVX2 or AVX-512: a few float32 rows are multiplied by large weights, or attend to a long cache, and the
// time goes into reading these from memory. Weights and cache are widened to float32 as they are read, while the next ones are
// prefetched. native_kernels.py compiles and calls this. The order of each sum depends only on its length, so a row's result is
// the same in any batch.
//
// R rows, I inputs, O outputs, U rows of a table of modulations, N heads, K head width, S entries of the cache.

#include "attention.h"
#include "linear.h"

extern "C" {

int rarkit_panel() { return PANEL; }

// x (R, I), weights [O / PANEL][I][PANEL], scale (O,) or null, bias (O,), out and residual (R, O); modulations (U, I or O) with a
// row stride; table_rows (R,) gives the modulation row of each of the R rows.
#define LINEAR(NAME, W)                                                                                                         \
    void rarkit_linear_##NAME(const float* x, const void* weights, const float* scale, const float* bias, float* out, int rows, \
                              int inputs, int outputs, int gelu, float eps, const int64_t* table_rows, int64_t stride,          \
                              const float* shift, const float* factor, const float* gate, const float* residual, int threads) { \
        const Around around{table_rows, stride, shift, factor, gate, residual, eps, gelu};                                      \
        linear(Linear<W>{static_cast<const W*>(weights), scale, bias, inputs, outputs}, x, out, rows, around, threads);         \
    }
LINEAR(float32, float)
LINEAR(bfloat16, BFloat16)
LINEAR(int8, int8_t)

// qkv (R, 3, N, K), weight and bias (2, K) of the norms of queries and keys, keys and values (R, N, S, K), out (R, N, K).
#define ATTEND(NAME, W)                                                                                                         \
    void rarkit_attend_##NAME(const float* qkv, const float* weight, const float* bias, float eps, void* keys, void* values,    \
                              float* out, int rows, int heads, int entries, int width, int entry, int threads) {                \
        attend(qkv, weight, bias, eps, static_cast<W*>(keys), static_cast<W*>(values), out, rows, heads, entries, width, entry, \
               threads);                                                                                                        \
    }
ATTEND(float32, float)
ATTEND(bfloat16, BFloat16)
ATTEND(float8_e4m3fn, Float8)
}
