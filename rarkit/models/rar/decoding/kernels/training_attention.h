// Causal attention of short sequences in training, forwards and backwards, with the norms of queries and keys before it. B samples,
// S entries, N heads, K head width.
#pragma once

#include "attention.h"
#include "training.h"

namespace {

inline void copy(float* to, const float* from, int width) {
    chunks(width, [&](auto n, int i) { store<n>(to + i, load<n>(from + i)); });
}
inline int padded(int count) { return (count + EIGHT - 1) / EIGHT * EIGHT; }

constexpr int TOGETHER = 4;   // queries, or keys, at a time
constexpr int AT_ONCE = 2;    // chunks of each

// A few rows of a product: out[r] = the sum over i of left[r][i] · right[i], for C chunks of each row.
template <int R, int C>
void product(const float* left, int left_row, const float* right, int right_row, int count, float* out, int out_row) {
    Chunk sums[R][C] = {};
    for (int i = 0; i < count; i++) {
        Chunk row[C];
        for (int c = 0; c < C; c++) row[c] = load<EIGHT>(right + i * right_row + c * EIGHT);
        for (int r = 0; r < R; r++)
            for (int c = 0; c < C; c++) sums[r][c] += row[c] * left[r * left_row + i];
    }
    for (int r = 0; r < R; r++)
        for (int c = 0; c < C; c++) store<EIGHT>(out + r * out_row + c * EIGHT, sums[r][c]);
}
using Product = void (*)(const float*, int, const float*, int, int, float*, int);
template <int R = TOGETHER>
Product product_of(int rows, bool two) {
    if constexpr (R > 1)
        if (rows != R) return product_of<R - 1>(rows, two);
    return two ? product<R, AT_ONCE> : product<R, 1>;
}
// For rows of any width, which is a multiple of eight.
inline void products(const float* left, int left_row, int rows, const float* right, int right_row, int count, int width, float* out,
                     int out_row) {
    const Product wide = product_of(rows, true), narrow = product_of(rows, false);
    for (int at = 0; at < width; at += AT_ONCE * EIGHT)
        (at + EIGHT < width ? wide : narrow)(left, left_row, right + at, right_row, count, out + at, out_row);
}

// The norms of queries and keys: weight and bias (2, K).
struct Norms {
    const float *weight, *bias;
    float eps;
};

// One head of a sample. Rows of K numbers, and of S, are padded with zeros to whole chunks.
struct Head {
    const Norms norms;
    const int entries, width, row, column;              // row: K, padded; column: S, padded
    std::vector<float> normed, queries, keys, values;   // (2, S, K) before weight and bias; (S, K)
    std::vector<float> given, across, slopes, used;     // (S, K); (K, S); (S, S) by key
    std::vector<float> part, out;                       // those of a few queries or keys
    float* rates;                                       // (2, S), of this head: 1 / deviation
    Room room;
    Head(int entries, int width, const Norms& norms)
        : norms(norms), entries(entries), width(width), row(padded(width)), column(padded(entries)), normed(2 * entries * row),
          queries(entries * row), keys(entries * row), values(entries * row), given(entries * row), across(width * column),
          slopes(entries * column), used(entries * column), part(TOGETHER * column), out(TOGETHER * row) {}

    // Reads head `number` of a sample from qkv, which points to it and whose rows are 3 · heads · K apart: queries and keys with
    // their norms, and values. The first time, queries and keys are normalised in place. The next head is fetched meanwhile:
    // processors do not guess such short rows.
    template <bool FIRST>
    void take(float* qkv, int number, int heads, float* rates_of_head) {
        rates = rates_of_head;
        const int all = heads * width;
        const int64_t next = number + 1 < heads ? width : int64_t(entries) * 3 * all - int64_t(number) * width;
        for (int part = 0; part < 3 * entries; part++)
            for (int k = 0; k < width; k += LINE / int(sizeof(float))) __builtin_prefetch(qkv + int64_t(part) * all + next + k);
        for (int which = 0; which < 2; which++)
            for (int s = 0; s < entries; s++) {
                float* x = qkv + int64_t(s) * 3 * all + which * all;
                if constexpr (FIRST) rates[which * entries + s] = normalise_in_place(x);
                take_normed(x, which, s);
            }
        for (int s = 0; s < entries; s++) copy(values.data() + s * row, qkv + int64_t(s) * 3 * all + 2 * all, width);
    }
    // Returns the rate.
    float normalise_in_place(float* x) const {
        const Statistics of_row = statistics_of(x, width, norms.eps);
        const float mean = of_row.mean, rate = of_row.rate;
        chunks(width, [&](auto n, int i) { store<n>(x + i, (load<n>(x + i) - mean) * rate); });
        return rate;
    }
    void take_normed(const float* x, int which, int entry) {
        const float *weight = norms.weight + which * width, *bias = norms.bias + which * width;
        float *plain = normed.data() + (which * entries + entry) * row, *to = (which ? keys : queries).data() + entry * row;
        chunks(width, [&](auto n, int i) {
            const Floats<n> value = load<n>(x + i);
            store<n>(plain + i, value);
            store<n>(to + i, value * load<n>(weight + i) + load<n>(bias + i));
        });
    }
    void turn(const std::vector<float>& rows) {
        for (int s = 0; s < entries; s++)
            for (int k = 0; k < width; k++) across[k * column + s] = rows[s * row + k];
    }
    // Turns a row of the gradient after a norm into that before it; `sums` receives those of its weight, then of its bias.
    void norm_backwards(int which, int entry, float* gradient, float* sums) const {
        const float *plain = normed.data() + (which * entries + entry) * row, *weight = norms.weight + which * width;
        Sum sum, product;
        chunks(width, [&](auto n, int i) {
            const Floats<n> value = load<n>(plain + i), after = load<n>(gradient + i), before = after * load<n>(weight + i);
            store<n>(sums + i, load<n>(sums + i) + after * value), store<n>(sums + width + i, load<n>(sums + width + i) + after);
            store<n>(gradient + i, before);
            sum.add(before), product.add(before * value);
        });
        const float average = sum.value() / width, slope = product.value() / width, rate = rates[which * entries + entry];
        chunks(width, [&](auto n, int i) {
            store<n>(gradient + i, (load<n>(gradient + i) - average - load<n>(plain + i) * slope) * rate);
        });
    }
};

// Turns products of query s with `seen` keys into weights; those of later keys become 0.
inline void softmax(float* share, int s, int seen, float scale) {
    const Chunk lanes{0, 1, 2, 3, 4, 5, 6, 7};
    Chunk highest = Chunk{} - INFINITY, sums{};
    for (int t = 0; t < seen; t += EIGHT) {
        const Chunk scores = lanes > float(s - t) ? Chunk{} - INFINITY : load<EIGHT>(share + t) * scale;
        store<EIGHT>(share + t, scores);
        highest = scores > highest ? scores : highest;
    }
    const Chunk most = highest_across(highest);
    for (int t = 0; t < seen; t += EIGHT) {
        const Chunk found = exponential<EIGHT>(load<EIGHT>(share + t) - most), kept = lanes > float(s - t) ? Chunk{} : found;
        store<EIGHT>(share + t, kept);
        sums += kept;
    }
    const Chunk each = 1.0f / sum_across(sums);
    for (int t = 0; t < seen; t += EIGHT) store<EIGHT>(share + t, load<EIGHT>(share + t) * each);
}

// qkv (B, S, 3, N, K), whose queries and keys are normalised in place; read (B, S, N, K). shares (B, N, S, S padded) receives the
// weights, negative where they are dropped, and rates (B, N, 2, S) those of the norms.
inline void attend_forwards(float* qkv, const Norms& norms, const Masks& masks, float* read, float* shares, float* rates, int batch,
                            int entries, int heads, int width, int threads) {
    const float scale = 1.0f / std::sqrt(float(width));
#pragma omp parallel num_threads(threads)
    {
        Head head(entries, width, norms);
        const int all = heads * width, row = head.row, column = head.column;
#pragma omp for schedule(static)
        for (int at = 0; at < batch * heads; at++) {
            const int sample = at / heads, number = at % heads;
            float* place = qkv + int64_t(sample) * entries * 3 * all + number * width;
            head.take<true>(place, number, heads, rates + int64_t(at) * 2 * entries);
            head.turn(head.keys);
            for (int first = 0; first < entries; first += TOGETHER) {
                const int rows = std::min(TOGETHER, entries - first), end = first + rows, seen = padded(end);
                float *share = shares + (int64_t(at) * entries + first) * column, *used = head.part.data(), *out = head.out.data();
                products(head.queries.data() + first * row, row, rows, head.across.data(), column, width, seen, share, column);
                for (int r = 0; r < rows; r++) {
                    const int s = first + r;
                    softmax(share + r * column, s, seen, scale);
                    const float* factor = masks.factors(sample, int64_t(number) * entries + s, entries, s + 1, head.room);
                    for (int t = 0; t < seen; t += EIGHT) {
                        const Chunk weight = load<EIGHT>(share + r * column + t);
                        const Chunk factors = factor && t <= s ? load<EIGHT>(factor + t) : Chunk{} + 1.0f;
                        store<EIGHT>(used + r * column + t, weight * factors);
                        store<EIGHT>(share + r * column + t, factors == 0.0f ? -weight : weight);
                    }
                }
                products(used, column, rows, head.values.data(), row, end, row, out, row);
                for (int r = 0; r < rows; r++)
                    copy(read + (int64_t(sample) * entries + first + r) * all + number * width, out + r * row, width);
            }
        }
    }
}

// Turns the gradients of a query's weights, as they were used, into those of its products with `seen` keys.
inline void slopes_of(const float* share, float factor, float scale, int seen, float* slopes) {
    Chunk means{};
    for (int t = 0; t < seen; t += EIGHT) {
        const Chunk weight = load<EIGHT>(share + t), slope = weight > 0.0f ? load<EIGHT>(slopes + t) * factor : Chunk{};
        store<EIGHT>(slopes + t, slope);
        means += slope * weight;
    }
    const Chunk mean = sum_across(means);
    for (int t = 0; t < seen; t += EIGHT) {
        const Chunk weight = load<EIGHT>(share + t), size = weight < 0.0f ? -weight : weight;
        store<EIGHT>(slopes + t, size * (load<EIGHT>(slopes + t) - mean) * scale);
    }
}

// The backward pass: the gradient of qkv, and those of the norms (2, 2, K): weight and bias of queries, then of keys.
inline void attend_backwards(const float* gradient, float* qkv, const Norms& norms, const Masks& masks, const float* shares,
                             float* rates, float* qkv_gradient, float* norm_gradients, int batch, int entries, int heads,
                             int width, int threads) {
    const float scale = 1.0f / std::sqrt(float(width)), factor = masks.keys ? masks.scale : 1.0f;
    std::vector<float> sums(size_t(batch) * heads * 4 * width);
#pragma omp parallel num_threads(threads)
    {
        Head head(entries, width, norms);
        const int all = heads * width, row = head.row, column = head.column;
#pragma omp for schedule(static)
        for (int at = 0; at < batch * heads; at++) {
            const int sample = at / heads, number = at % heads;
            const int64_t place = int64_t(sample) * entries * 3 * all + number * width;
            float *out = head.out.data(), *to = qkv_gradient + place, *sum = sums.data() + size_t(at) * 4 * width;
            head.take<false>(qkv + place, number, heads, rates + int64_t(at) * 2 * entries);
            head.turn(head.values);
            for (int s = 0; s < entries; s++)
                copy(head.given.data() + s * row, gradient + (int64_t(sample) * entries + s) * all + number * width, width);
            for (int first = 0; first < entries; first += TOGETHER) {
                const int rows = std::min(TOGETHER, entries - first), end = first + rows, seen = padded(end);
                const float* share = shares + (int64_t(at) * entries + first) * column;
                float* slopes = head.part.data();
                products(head.given.data() + first * row, row, rows, head.across.data(), column, width, seen, slopes, column);
                for (int r = 0; r < rows; r++) {
                    slopes_of(share + r * column, factor, scale, seen, slopes + r * column);
                    for (int t = 0; t < end; t++) {
                        const float weight = share[r * column + t];
                        head.slopes[t * column + first + r] = slopes[r * column + t];
                        head.used[t * column + first + r] = weight > 0.0f ? weight * factor : 0.0f;
                    }
                }
                products(slopes, column, rows, head.keys.data(), row, end, row, out, row);
                for (int r = 0; r < rows; r++) {
                    head.norm_backwards(0, first + r, out + r * row, sum);
                    copy(to + int64_t(first + r) * 3 * all, out + r * row, width);
                }
            }
            for (int first = 0; first < entries; first += TOGETHER) {
                const int rows = std::min(TOGETHER, entries - first), count = entries - first, place = first * column + first;
                products(head.slopes.data() + place, column, rows, head.queries.data() + first * row, row, count, row, out, row);
                for (int r = 0; r < rows; r++) {
                    head.norm_backwards(1, first + r, out + r * row, sum + 2 * width);
                    copy(to + int64_t(first + r) * 3 * all + all, out + r * row, width);
                }
                products(head.used.data() + place, column, rows, head.given.data() + first * row, row, count, row, out, row);
                for (int r = 0; r < rows; r++)
                    copy(to + int64_t(first + r) * 3 * all + 2 * all, out + r * row, width);
            }
        }
    }
    add_up(sums, 4 * width, norm_gradients);
}

}  // namespace
