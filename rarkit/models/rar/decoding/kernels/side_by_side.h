// Heads side by side: a head's rows are too short for vectors, so LANES heads are computed at once, each in a place of its own. S
// entries, N heads, K head width.
#pragma once

#include <utility>

#include "numbers.h"

namespace {

using Lanes = Floats<LANES>;
using Words = uint64_t __attribute__((vector_size(4 * LANES)));  // of half of the heads
struct alignas(sizeof(Lanes)) Line {
    float at[LANES];
};
inline Lanes load(const Line& from) { return load<LANES>(from.at); }
inline void store(Line& to, Lanes values) { store<LANES>(to.at, values); }

template <int D, int... I>
inline void swap_blocks(Lanes* rows, std::integer_sequence<int, I...>) {
    for (int i = 0; i < LANES; i++)
        if (!(i & D)) {
            const Lanes above = rows[i], below = rows[i + D];
            rows[i] = __builtin_shuffle(above, below, Ints<LANES>{(I & D ? LANES + I - D : I)...});
            rows[i + D] = __builtin_shuffle(above, below, Ints<LANES>{(I & D ? LANES + I : I + D)...});
        }
}
// Transposes LANES rows of LANES numbers: 1 × 1 blocks of 2 × 2 ones, then 2 × 2 blocks of 4 × 4 ones, and so on.
inline void transpose(Lanes* rows) {
    const std::make_integer_sequence<int, LANES> places;
    swap_blocks<1>(rows, places), swap_blocks<2>(rows, places), swap_blocks<4>(rows, places);
    if constexpr (LANES > EIGHT) swap_blocks<8>(rows, places);
}

inline Lanes square_root(Lanes v) {
#ifdef __AVX512F__
    return (Lanes)_mm512_sqrt_ps((__m512)v);
#else
    return (Lanes)_mm256_sqrt_ps((__m256)v);
#endif
}

// Some of B · N heads.
struct Heads {
    int count, sample[LANES], number[LANES];
    int64_t place[LANES];  // of the sample in (B, S, N, K)
    const int all, width;
    Heads(int first, int of_all, int heads, int entries, int width)
        : count(std::min(LANES, of_all - first)), all(heads * width), width(width) {
        for (int lane = 0; lane < LANES; lane++) {
            // Places that have no head compute the last one again, which is not kept.
            const int at = first + std::min(lane, count - 1);
            sample[lane] = at / heads, number[lane] = at % heads;
            place[lane] = int64_t(sample[lane]) * entries * all;
        }
    }
    // The heads' rows at an entry, in a part of (B, S, parts, N, K).
    template <class R>
    void rows(R* numbers, int parts, int part, int entry, R** of) const {
        R* from = numbers + (int64_t(entry) * parts + part) * all;
        for (int lane = 0; lane < LANES; lane++) of[lane] = from + place[lane] * parts + number[lane] * width;
    }
    // Reads their rows: to[k] receives number k of each.
    void take(const float* numbers, int parts, int part, int entry, Line* to) const {
        const float* from[LANES];
        rows(numbers, parts, part, entry, from);
        Lanes block[LANES];
        int k = 0;
        for (; k + LANES <= width; k += LANES) {
            for (int lane = 0; lane < LANES; lane++) block[lane] = load<LANES>(from[lane] + k);
            transpose(block);
            for (int i = 0; i < LANES; i++) store(to[k + i], block[i]);
        }
        for (; k < width; k++)
            for (int lane = 0; lane < LANES; lane++) to[k].at[lane] = from[lane][k];
    }
    // Writes their rows, as `take` reads them.
    void give(const Line* from, float* numbers, int parts, int part, int entry) const {
        float* to[LANES];
        rows(numbers, parts, part, entry, to);
        Lanes block[LANES];
        int k = 0;
        for (; k + LANES <= width; k += LANES) {
            for (int i = 0; i < LANES; i++) block[i] = load(from[k + i]);
            transpose(block);
            for (int lane = 0; lane < count; lane++) store<LANES>(to[lane] + k, block[lane]);
        }
        for (; k < width; k++)
            for (int lane = 0; lane < count; lane++) to[lane][k] = from[k].at[lane];
    }
};

}  // namespace
