// Decoding on a CPU with AVX2 or AVX-512: a few float32 rows are multiplied by large weights, or attend to a long cache, and the
// time goes into reading these from memory. Weights and cache are widened to float32 as they are read, while the next ones are
// prefetched. native_kernels.py compiles and calls this. The order of each sum depends only on its length, so a row's result is
// the same in any batch.
//
// R rows, I inputs, O outputs, U rows of a table of modulations, N heads, K head width, S entries of the cache.

#include "attention.h"
#include "linear.h"
#include "training.h"
#include "training_attention.h"

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

// Training. `level` and `scale` are those of the masks, which `keys` (B,) seed, or null for none.
void rarkit_modulate(const float* x, const float* weight, const float* bias, const float* shift, const float* factor,
                     const int64_t* table_rows, float* out, float* statistics, int batch, int entries, int width, float eps,
                     int threads) {
    modulate(x, weight, bias, shift, factor, {table_rows, entries, width}, out, statistics, batch, eps, threads);
}
void rarkit_modulate_backwards(const float* gradient, const float* through, const float* x, const float* statistics,
                               const float* weight, const float* bias, const float* factor, const int64_t* table_rows, float* out,
                               float* shift_gradient, float* scale_gradient, float* weight_gradient, float* bias_gradient,
                               int batch, int entries, int width, int classes, int threads) {
    modulate_backwards(gradient, through, x, statistics, weight, bias, factor, {table_rows, entries, width}, out, shift_gradient,
                       scale_gradient, weight_gradient, bias_gradient, batch, classes, threads);
}
void rarkit_gate(const float* x, const float* out, const float* gates, const int64_t* table_rows, const int64_t* keys, int level,
                 float scale, float* sum, int batch, int entries, int width, int threads) {
    gate(x, out, gates, {table_rows, entries, width}, {keys, level, scale}, sum, batch, threads);
}
void rarkit_gate_backwards(const float* gradient, const float* out, const float* gates, const int64_t* table_rows,
                           const int64_t* keys, int level, float scale, float* out_gradient, float* gate_gradient,
                           float* bias_gradient, int batch, int entries, int width, int classes, int threads) {
    gate_backwards(gradient, out, gates, {table_rows, entries, width}, {keys, level, scale}, out_gradient, gate_gradient,
                   bias_gradient, batch, classes, threads);
}
void rarkit_activate(float* hidden, const int64_t* keys, int level, float scale, float* active, int batch, int entries, int width,
                     int threads) {
    activate(hidden, {keys, level, scale}, active, batch, entries, width, threads);
}
void rarkit_activate_backwards(float* gradient, const float* slopes, float* bias_gradient, int batch, int entries, int width,
                               int threads) {
    activate_backwards(gradient, slopes, bias_gradient, batch, entries, width, threads);
}
void rarkit_attend_forwards(const float* qkv, const float* weight, const float* bias, float eps, const int64_t* keys, int level,
                            float scale, float* read, Line* shares, Line* statistics, int batch, int entries, int heads, int width,
                            int threads) {
    attend_forwards(qkv, {weight, bias, eps}, {keys, level, scale}, read, shares, statistics, batch, entries, heads, width,
                    threads);
}
void rarkit_attend_backwards(const float* gradient, const float* qkv, const float* weight, const float* bias, float eps,
                             const int64_t* keys, int level, float scale, const Line* shares, const Line* statistics,
                             float* qkv_gradient, float* norm_gradients, int batch, int entries, int heads, int width,
                             int threads) {
    attend_backwards(gradient, qkv, {weight, bias, eps}, {keys, level, scale}, shares, statistics, qkv_gradient, norm_gradients,
                     batch, entries, heads, width, threads);
}
}
