// Linear layers, fused with the operations before and after them in a block. R rows, I inputs, O outputs.
#pragma once

#include <type_traits>
#include <vector>

#include "numbers.h"

namespace {

// Rows in groups of at most TILE, with each group's inputs contiguous: packed[I / DEPTH][group][DEPTH][R].
struct Groups {
    int rows, count;
    explicit Groups(int rows) : rows(rows), count((rows + TILE - 1) / TILE) {}
    int first(int group) const { return part(rows, count, group); }
    int size(int group) const { return first(group + 1) - first(group); }
};

// Adds x[depth][R] · weights[depth][PANEL] to sums[R][PANEL], and prefetches some cache lines evenly in between.
template <int R>
void tile(const float* x, const float* weights, int depth, float* sums, const char* ahead, int lines) {
    Floats<LANES> left[R], right[R];
    for (int r = 0; r < R; r++) left[r] = load<LANES>(sums + r * PANEL), right[r] = load<LANES>(sums + r * PANEL + LANES);
    const auto add = [&](int k) __attribute__((always_inline)) {
        const Floats<LANES> w0 = load<LANES>(weights + k * PANEL), w1 = load<LANES>(weights + k * PANEL + LANES);
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) left[r] += w0 * x[k * R + r], right[r] += w1 * x[k * R + r];
    };
    const int each = (lines * EIGHT + depth - 1) / depth;
    const char* end = ahead + int64_t(lines) * LINE;
    int k = 0;
    for (; k + EIGHT <= depth; k += EIGHT) {
        for (int line = 0; line < each && ahead < end; line++, ahead += LINE) __builtin_prefetch(ahead, 0, 2);
#pragma GCC unroll 8
        for (int e = 0; e < EIGHT; e++) add(k + e);
    }
    for (; k < depth; k++) add(k);
    for (int r = 0; r < R; r++) store<LANES>(sums + r * PANEL, left[r]), store<LANES>(sums + r * PANEL + LANES, right[r]);
}

using Tile = void (*)(const float*, const float*, int, float*, const char*, int);
template <int R = TILE>
Tile tile_of(int rows) {
    if constexpr (R > 1)
        if (rows != R) return tile_of<R - 1>(rows);
    return tile<R>;
}

// Many rows: each block of weights is widened once and multiplied by one group after the other. sums: [rows][PANEL].
template <class W>
void many(const Groups& groups, const float* packed, const W* weights, int inputs, float* sums) {
    alignas(LINE) float room[std::is_same_v<W, float> ? 1 : DEPTH * PANEL];
    std::memset(sums, 0, sizeof(float) * groups.rows * PANEL);
    for (int start = 0; start < inputs; start += DEPTH) {
        const int depth = std::min(DEPTH, inputs - start), lines = int(depth * PANEL * sizeof(W) / LINE);
        const W* block = weights + int64_t(start) * PANEL;
        const float* wide = room;
        if constexpr (std::is_same_v<W, float>)
            wide = block;
        else
            for (int i = 0; i < depth * PANEL; i += LANES) store<LANES>(room + i, load<LANES>(block + i));
        // The next block is prefetched while this one is multiplied: each group prefetches its share.
        const char* next = reinterpret_cast<const char*>(block + depth * PANEL);
        for (int group = 0; group < groups.count; group++) {
            const int first = groups.first(group), size = groups.size(group), begin = part(lines, groups.count, group);
            tile_of(size)(packed + int64_t(start) * groups.rows + int64_t(first) * depth, wide, depth, sums + first * PANEL,
                          next + begin * LINE, part(lines, groups.count, group + 1) - begin);
        }
    }
}

// Few rows, so that each weight is used once: x[I][R] by P panels at a time, which gives enough independent sums to keep the
// adders busy.
template <int R, int P, class W>
void few(const float* x, const W* weights, const W* next, int inputs, float* sums) {
    Floats<LANES> left[P][R] = {}, right[P][R] = {};
    constexpr int INPUTS = std::max(1, LINE / int(PANEL * sizeof(W))), LINES = std::max(1, int(PANEL * sizeof(W)) / LINE);
    const int64_t panel = int64_t(inputs) * PANEL;
    const auto add = [&](int k) __attribute__((always_inline)) {
#pragma GCC unroll 2
        for (int p = 0; p < P; p++) {
            const Floats<LANES> w0 = load<LANES>(weights + p * panel + k * PANEL),
                                w1 = load<LANES>(weights + p * panel + k * PANEL + LANES);
#pragma GCC unroll 16
            for (int r = 0; r < R; r++) left[p][r] += w0 * x[k * R + r], right[p][r] += w1 * x[k * R + r];
        }
    };
    int k = 0;
    for (; k + INPUTS <= inputs; k += INPUTS) {
        const int64_t ahead = int64_t(k) * PANEL + BYTES_AHEAD / int(sizeof(W));
        const char* from = reinterpret_cast<const char*>(ahead < panel ? weights + ahead : next + (ahead - panel));
        for (int p = 0; p < P; p++)
            for (int line = 0; line < LINES; line++) __builtin_prefetch(from + p * panel * sizeof(W) + line * LINE, 0, 2);
#pragma GCC unroll 4
        for (int i = 0; i < INPUTS; i++) add(k + i);
    }
    for (; k < inputs; k++) add(k);
    for (int p = 0; p < P; p++)
        for (int r = 0; r < R; r++) {
            store<LANES>(sums + (p * R + r) * PANEL, left[p][r]);
            store<LANES>(sums + (p * R + r) * PANEL + LANES, right[p][r]);
        }
}

template <class W>
using Few = void (*)(const float*, const W*, const W*, int, float*);
template <class W, int R = TILE>
Few<W> few_of(int rows, int panels) {
    if constexpr (R > 1)
        if (rows != R) return few_of<W, R - 1>(rows, panels);
    if constexpr (R <= FEW)
        if (panels == 2) return few<R, 2, W>;
    return few<R, 1, W>;
}

// The operations before and after a layer. Modulations are rows of a table, selected by `rows`.
struct Around {
    const int64_t* rows;
    int64_t stride;
    const float *shift, *scale;    // null, or x becomes shift + scale · normalised x
    const float *gate, *residual;  // null, or the output becomes residual + gate · output
    float eps;
    int gelu;
    Around from(int first, int outputs) const {
        Around part = *this;
        if (rows) part.rows += first;
        if (residual) part.residual += int64_t(first) * outputs;
        return part;
    }
};

template <class W>
struct Linear {
    const W* weights;           // [O / PANEL][I][PANEL]
    const float *scale, *bias;  // scale: null, or per output
    int inputs, outputs;

    void run(const float* x, float* out, int rows, const Around& around, int threads) const {
        const Groups groups(rows);
        const int panels = (outputs + PANEL - 1) / PANEL, depths = (inputs + DEPTH - 1) / DEPTH;
        static thread_local std::vector<float> packing, normalising;
        packing.resize(std::max(packing.size(), size_t(rows) * inputs));
        if (around.shift) normalising.resize(std::max(normalising.size(), size_t(rows) * inputs));
        float *packed = packing.data(), *normalised = normalising.data();
        const int at_once = rows <= FEW ? 2 : 1;
#pragma omp parallel num_threads(threads)
        {
            if (around.shift) {
#pragma omp for schedule(static)
                for (int r = 0; r < rows; r++) {
                    float* to = normalised + int64_t(r) * inputs;
                    const float *shift = around.shift + around.rows[r] * around.stride,
                                *factor = around.scale + around.rows[r] * around.stride;
                    normalise(x + int64_t(r) * inputs, inputs, around.eps, to);
                    for (int i = 0; i < inputs; i++) to[i] = shift[i] + factor[i] * to[i];
                }
            }
            const float* from = around.shift ? normalised : x;
#pragma omp for schedule(static)
            for (int at = 0; at < depths * groups.count; at++) {
                const int start = at / groups.count * DEPTH, depth = std::min(DEPTH, inputs - start), group = at % groups.count;
                const int first = groups.first(group), size = groups.size(group);
                float* to = packed + int64_t(start) * rows + int64_t(first) * depth;
                for (int r = 0; r < size; r++)
                    for (int k = 0; k < depth; k++) to[k * size + r] = from[int64_t(first + r) * inputs + start + k];
            }
            alignas(LINE) float sums[MOST_ROWS * PANEL];
            static_assert(2 * FEW <= MOST_ROWS);
#pragma omp for schedule(static)
            for (int p = 0; p < panels; p += at_once) {
                const W* block = weights + int64_t(p) * inputs * PANEL;
                const int count = std::min(at_once, panels - p);
                if (groups.count == 1)
                    few_of<W>(rows, count)(packed, block, block + int64_t(count) * inputs * PANEL, inputs, sums);
                else
                    many(groups, packed, block, inputs, sums);
                for (int q = 0; q < count; q++) finish(sums + q * rows * PANEL, out, rows, (p + q) * PANEL, around);
            }
        }
    }

    // Finishes sums[rows][PANEL] of the outputs from `first` on.
    void finish(const float* sums, float* out, int rows, int first, const Around& around) const {
        const auto some = [](const float* from, int count) __attribute__((always_inline)) {
            if (count == LANES) return load<LANES>(from);
            Floats<LANES> padded{};
            std::memcpy(&padded, from, sizeof(float) * count);
            return padded;
        };
        for (int o = 0; o < PANEL && first + o < outputs; o += LANES) {
            const int count = std::min(LANES, outputs - first - o), at = first + o;
            for (int r = 0; r < rows; r++) {
                Floats<LANES> output = load<LANES>(sums + r * PANEL + o);
                if (scale) output *= some(scale + at, count);
                output += some(bias + at, count);
                if (around.gelu) output = gelu<LANES>(output);
                const int64_t place = int64_t(r) * outputs + at;
                if (around.gate) {
                    const Floats<LANES> gate = some(around.gate + around.rows[r] * around.stride + at, count);
                    output = some(around.residual + place, count) + gate * output;
                }
                if (count == LANES)
                    store<LANES>(out + place, output);
                else
                    std::memcpy(out + place, &output, sizeof(float) * count);
            }
        }
    }
};

template <class W>
void linear(const Linear<W>& layer, const float* x, float* out, int rows, const Around& around, int threads) {
    const int parts = (rows + MOST_ROWS - 1) / MOST_ROWS;
    for (int number = 0; number < parts; number++) {
        const int first = part(rows, parts, number), size = part(rows, parts, number + 1) - first;
        layer.run(x + int64_t(first) * layer.inputs, out + int64_t(first) * layer.outputs, size, around.from(first, layer.outputs),
                  threads);
    }
}

}  // namespace
