// Attention of one entry to all entries up to it. R rows, N heads, K head width, S entries of the cache, T of them filled.
#pragma once

#include <vector>

#include "numbers.h"

namespace {

// The totals of eight chunks, as one chunk. Shuffles within register halves come first, because they are cheap.
inline Chunk totals(const Chunk (&v)[EIGHT]) {
    const auto pair = [](Chunk a, Chunk b) {
        return __builtin_shuffle(a, b, Ints<EIGHT>{0, 8, 1, 9, 4, 12, 5, 13}) +
               __builtin_shuffle(a, b, Ints<EIGHT>{2, 10, 3, 11, 6, 14, 7, 15});
    };
    const auto four = [](Chunk a, Chunk b) {
        return __builtin_shuffle(a, b, Ints<EIGHT>{0, 1, 8, 9, 4, 5, 12, 13}) +
               __builtin_shuffle(a, b, Ints<EIGHT>{2, 3, 10, 11, 6, 7, 14, 15});
    };
    const Chunk low = four(pair(v[0], v[1]), pair(v[2], v[3])), high = four(pair(v[4], v[5]), pair(v[6], v[7]));
    return __builtin_shuffle(low, high, Ints<EIGHT>{0, 1, 2, 3, 8, 9, 10, 11}) +
           __builtin_shuffle(low, high, Ints<EIGHT>{4, 5, 6, 7, 12, 13, 14, 15});
}

// Scores query[width] · keys[count][width] of up to eight entries; −∞ beyond count.
template <class W>
inline Chunk score(const float* query, const W* keys, int width, int count) {
    Chunk sums[EIGHT] = {};
    const int whole = width / EIGHT * EIGHT;
    for (int entry = 0; entry < count; entry++) {
        const W* key = keys + entry * width;
        for (int k = 0; k < whole; k += EIGHT) sums[entry] += load<EIGHT>(query + k) * load<EIGHT>(key + k);
        for (int k = whole; k < width; k++) sums[entry][0] += query[k] * widened(key[k]);
    }
    Chunk scores = totals(sums);
    for (int entry = count; entry < EIGHT; entry++) scores[entry] = -INFINITY;
    return scores;
}

// Adds shares[count] · values[count][width], for C chunks of each value, to out.
template <int C, class W>
void gather(const float* shares, const W* values, int width, int count, float* out) {
    Chunk sums[C];
    for (int c = 0; c < C; c++) sums[c] = load<EIGHT>(out + c * EIGHT);
    for (int entry = 0; entry < count; entry++)
        for (int c = 0; c < C; c++) sums[c] += load<EIGHT>(values + entry * width + c * EIGHT) * shares[entry];
    for (int c = 0; c < C; c++) store<EIGHT>(out + c * EIGHT, sums[c]);
}

template <class W>
using Gather = void (*)(const float*, const W*, int, int, float*);
template <class W, int C = MOST_CHUNKS>
Gather<W> gather_of(int chunks) {
    if constexpr (C > 1)
        if (chunks != C) return gather_of<W, C - 1>(chunks);
    return gather<C, W>;
}

// Prefetches the cache lines BYTES_AHEAD after these numbers: of the same head or, past its end, of what is read next.
template <class W>
inline void prefetch(const W* numbers, int count, const W* end, const W* next) {
    for (int at = 0; at < count; at += LINE / int(sizeof(W))) {
        const W* ahead = numbers + at + BYTES_AHEAD / int(sizeof(W));
        __builtin_prefetch(ahead < end ? ahead : next + (ahead - end), 0, 2);
    }
}

// One head of one row: out[K] from query[K] and the filled entries of keys and values, each [S][K]; `next` is the next head's keys.
template <class W>
void attend_head(const float* query, const W* keys, const W* values, const W* next, float* out, int width, int filled,
                 float* scores) {
    const float scale = 1.0f / std::sqrt(float(width));
    const int64_t numbers = int64_t(filled) * width;
    Chunk highest = Chunk{} - INFINITY, sums{};
    for (int start = 0; start < filled; start += EIGHT) {
        const int count = std::min(EIGHT, filled - start);
        const W* block = keys + int64_t(start) * width;
        prefetch(block, count * width, keys + numbers, values);
        const Chunk scaled = score(query, block, width, count) * scale;
        store<EIGHT>(scores + start, scaled);
        highest = scaled > highest ? scaled : highest;
    }
    float most = highest[0];
    for (int lane = 1; lane < EIGHT; lane++) most = std::max(most, highest[lane]);
    for (int start = 0; start < filled; start += EIGHT) {
        Chunk share = exponential<EIGHT>(load<EIGHT>(scores + start) - most);
        for (int lane = filled - start; lane < EIGHT; lane++) share[lane] = 0;
        store<EIGHT>(scores + start, share);
        sums += share;
    }
    const float all = total(sums);
    const int chunks = width / EIGHT;
    std::memset(out, 0, sizeof(float) * width);
    for (int start = 0; start < filled; start += EIGHT) {
        const int count = std::min(EIGHT, filled - start);
        const W* block = values + int64_t(start) * width;
        prefetch(block, count * width, values + numbers, next);
        for (int chunk = 0; chunk < chunks; chunk += MOST_CHUNKS) {
            const int k = chunk * EIGHT;
            gather_of<W>(std::min(MOST_CHUNKS, chunks - chunk))(scores + start, block + k, width, count, out + k);
        }
        for (int k = chunks * EIGHT; k < width; k++)
            for (int entry = 0; entry < count; entry++) out[k] += widened(block[entry * width + k]) * scores[start + entry];
    }
    for (int k = 0; k < width; k++) out[k] /= all;
}

// Normalises queries and keys, writes the entry's keys and values to the cache, and attends to all entries up to it.
template <class W>
void attend(const float* qkv, const float* weight, const float* bias, float eps, W* keys, W* values, float* out, int rows,
            int heads, int entries, int width, int entry, int threads) {
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> scores(entry + 1 + EIGHT), normed(2 * width);
#pragma omp for schedule(static)
        for (int at = 0; at < rows * heads; at++) {
            const float* row = qkv + (int64_t(at / heads) * 3 * heads + at % heads) * width;
            const int64_t all = int64_t(heads) * width, head = int64_t(at) * entries * width, place = head + int64_t(entry) * width;
            for (int which = 0; which < 2; which++) {
                float* to = normed.data() + which * width;
                normalise(row + which * all, width, eps, to);
                for (int k = 0; k < width; k++) to[k] = to[k] * weight[which * width + k] + bias[which * width + k];
            }
            for (int k = 0; k < width; k++)
                narrow(normed[width + k], keys + place + k), narrow(row[2 * all + k], values + place + k);
            attend_head(normed.data(), keys + head, values + head, keys + head + int64_t(entries) * width,
                        out + int64_t(at) * width, width, entry + 1, scores.data());
        }
    }
}

}  // namespace
