// Vectors of numbers: loading, storing and converting all types, and functions of float32.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

#ifdef __AVX512F__
constexpr int LANES = 16, TILE = 12, FEW = 4, DEPTH = 128;
#else
constexpr int LANES = 8, TILE = 6, FEW = 2, DEPTH = 256;
#endif
// The sums of TILE rows × PANEL outputs fit in registers; the weights of DEPTH inputs × PANEL outputs, 16 KiB, in the L1 cache.
constexpr int PANEL = 2 * LANES;
constexpr int MOST_ROWS = 96;      // rows at a time, whose sums stay in the L2 cache
constexpr int LINE = 64;           // bytes of a cache line
constexpr int BYTES_AHEAD = 2048;  // prefetch distance
constexpr int EIGHT = 8;           // numbers of a head, or entries of the cache, at a time
constexpr int MOST_CHUNKS = 6;     // chunks of eight numbers in registers

template <int N>
using Floats __attribute__((vector_size(4 * N), aligned(4), may_alias)) = float;
template <int N>
using Ints __attribute__((vector_size(4 * N), aligned(4), may_alias)) = int32_t;
using Chunk = Floats<EIGHT>;

struct BFloat16 {
    uint16_t bits;
};
struct Float8 {
    uint8_t bits;
};  // e4m3: no infinity; seven one bits are NaN

inline uint32_t bits_of(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    return bits;
}

// Loads N numbers of any type as float32.
template <int N>
inline Floats<N> load(const float* from) {
    return *reinterpret_cast<const Floats<N>*>(from);
}
template <int N>
inline Floats<N> load(const BFloat16* from) {
    if constexpr (N == 8) return (Floats<N>)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)from)), 16);
#ifdef __AVX512F__
    else
        return (Floats<N>)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)from)), 16);
#endif
}
template <int N>
inline Floats<N> load(const int8_t* from) {
    if constexpr (N == 8) return (Floats<N>)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)from)));
#ifdef __AVX512F__
    else
        return (Floats<N>)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)from)));
#endif
}
template <int N>
inline Floats<N> load(const Float8* from) {
    static_assert(N == 8);
    const Ints<N> bits = (Ints<N>)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)from)), magnitude = bits & 0x7f;
    // Normal numbers: shift exponent and mantissa to float32's positions. Subnormal ones: the mantissa in units of 2⁻⁹.
    const Ints<N> normal = (magnitude << 20) + (120 << 23),
                  small = (Ints<N>)(__builtin_convertvector(magnitude, Floats<N>) * 0x1p-9f);
    const Ints<N> wide = magnitude < 8 ? small : magnitude == 0x7f ? Ints<N>{} + 0x7fc00000 : normal;
    return (Floats<N>)(wide | (bits & 0x80) << 24);
}
template <int N>
inline void store(float* to, Floats<N> values) {
    *reinterpret_cast<Floats<N>*>(to) = values;
}

inline float widened(float value) { return value; }
inline float widened(BFloat16 value) {
    const uint32_t bits = uint32_t(value.bits) << 16;
    float wide;
    std::memcpy(&wide, &bits, 4);
    return wide;
}
inline float widened(Float8 value) {
    const Float8 eight[EIGHT] = {value};
    return load<EIGHT>(eight)[0];
}

// Rounds to nearest, ties to even; float8 is clamped to ±448.
inline void narrow(float value, float* to) { *to = value; }
inline void narrow(float value, BFloat16* to) {
    const uint32_t bits = bits_of(value);
    to->bits = value != value ? 0x7fc0 : uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
inline void narrow(float value, Float8* to) {
    const float magnitude = std::min(std::fabs(value), 448.0f);
    const uint32_t bits = bits_of(magnitude);
    const uint32_t narrowed = magnitude < 0x1p-6f ? uint32_t(std::nearbyint(magnitude * 0x1p9f))
                                                  : ((bits + 0x7ffff + (bits >> 20 & 1)) >> 20) - (120 << 3);
    to->bits = value != value ? 0x7f : uint8_t(narrowed | (bits_of(value) >> 24 & 0x80));
}

// exp(x) for x ≤ 0, to about 2 units in the last place: 2ⁿ · e^r with |r| ≤ ln(2) / 2.
template <int N>
inline Floats<N> exponential(Floats<N> x) {
    x = x < -87.0f ? Floats<N>{} - 87.0f : x;
    const float magic = 12582912.0f;  // 1.5 · 2²³: adding it rounds to an integer
    const Floats<N> n = (x * 1.44269504f + magic) - magic;
    const Floats<N> r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    Floats<N> sum = r * (1.0f / 5040) + 1.0f / 720;
    for (const float term : {1.0f / 120, 1.0f / 24, 1.0f / 6, 1.0f / 2, 1.0f, 1.0f}) sum = sum * r + term;
    return sum * (Floats<N>)((__builtin_convertvector(n, Ints<N>) + 127) << 23);
}

// Φ(x), with the error function of Abramowitz and Stegun 7.1.26 (error ≤ 1.5e-7), which PyTorch also uses; `density` receives
// exp(−x² / 2).
template <int N>
inline Floats<N> normal(Floats<N> x, Floats<N>& density) {
    const Floats<N> z = x * 0.70710678f, size = z < 0 ? -z : z;
    const Floats<N> t = 1.0f / (1.0f + size * 0.3275911f);
    Floats<N> sum = t * 1.061405429f - 1.453152027f;
    for (const float term : {1.421413741f, -0.284496736f, 0.254829592f}) sum = sum * t + term;
    density = exponential<N>(-size * size);
    const Floats<N> rest = sum * t * density;  // 1 − erf |z|
    return 0.5f * (z < 0 ? rest : 2.0f - rest);
}

// x · Φ(x); `slope` receives its derivative.
template <int N>
inline Floats<N> gelu(Floats<N> x, Floats<N>& slope) {
    Floats<N> density;
    const Floats<N> below = normal<N>(x, density);
    slope = below + x * density * 0.39894228f;
    return x * below;
}
template <int N>
inline Floats<N> gelu(Floats<N> x) {
    Floats<N> slope;
    return gelu<N>(x, slope);
}

// All eight numbers joined, in each place.
template <class F>
inline Chunk across(Chunk v, F join) {
    v = join(v, __builtin_shuffle(v, Ints<EIGHT>{4, 5, 6, 7, 0, 1, 2, 3}));
    v = join(v, __builtin_shuffle(v, Ints<EIGHT>{2, 3, 0, 1, 6, 7, 4, 5}));
    return join(v, __builtin_shuffle(v, Ints<EIGHT>{1, 0, 3, 2, 5, 4, 7, 6}));
}
inline Chunk sum_across(Chunk v) {
    return across(v, [](Chunk a, Chunk b) { return a + b; });
}
inline Chunk highest_across(Chunk v) {
    return across(v, [](Chunk a, Chunk b) { return a > b ? a : b; });
}
inline float total(Chunk v) { return sum_across(v)[0]; }

// (x − mean) / √(variance + eps) of one row.
inline void normalise(const float* x, int width, float eps, float* out) {
    const int whole = width / EIGHT * EIGHT;
    Chunk sums{};
    for (int i = 0; i < whole; i += EIGHT) sums += load<EIGHT>(x + i);
    float sum = total(sums);
    for (int i = whole; i < width; i++) sum += x[i];
    const float mean = sum / width;
    sums = Chunk{};
    for (int i = 0; i < whole; i += EIGHT) {
        const Chunk off = load<EIGHT>(x + i) - mean;
        sums += off * off;
    }
    float squares = total(sums);
    for (int i = whole; i < width; i++) squares += (x[i] - mean) * (x[i] - mean);
    const float scale = 1.0f / std::sqrt(squares / width + eps);
    for (int i = 0; i < width; i++) out[i] = (x[i] - mean) * scale;
}

inline int part(int of, int parts, int number) { return int(int64_t(of) * number / parts); }

}  // namespace
