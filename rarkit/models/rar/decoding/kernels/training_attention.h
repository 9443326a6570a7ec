// Causal attention of short sequences in training, forwards and backwards, with the norms of queries and keys before it. B samples,
// S entries, N heads, K head width.
#pragma once

#include "training.h"

namespace {

inline int padded(int count) { return (count + EIGHT - 1) / EIGHT * EIGHT; }

// out = the sum of weights[i] · rows[i], for C chunks of each row.
template <int C>
void weigh(const float* weights, const float* rows, int stride, int count, float* out) {
    Chunk sums[C] = {};
    for (int i = 0; i < count; i++)
        for (int c = 0; c < C; c++) sums[c] += load<EIGHT>(rows + i * stride + c * EIGHT) * weights[i];
    for (int c = 0; c < C; c++) store<EIGHT>(out + c * EIGHT, sums[c]);
}
using Weigh = void (*)(const float*, const float*, int, int, float*);
template <int C = MOST_CHUNKS>
Weigh weigh_of(int count) {
    if constexpr (C > 1)
        if (count != C) return weigh_of<C - 1>(count);
    return weigh<C>;
}
// The same for rows of any width, which is a multiple of eight.
inline void weighted(const float* weights, const float* rows, int stride, int count, int width, float* out) {
    for (int at = 0; at < width; at += MOST_CHUNKS * EIGHT)
        weigh_of(std::min(MOST_CHUNKS, (width - at) / EIGHT))(weights, rows + at, stride, count, out + at);
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
    std::vector<float> rates, part, out, room;          // (2, S); a row's
    Head(int entries, int width, const Norms& norms)
        : norms(norms), entries(entries), width(width), row(padded(width)), column(padded(entries)), normed(2 * entries * row),
          queries(entries * row), keys(entries * row), values(entries * row), given(entries * row), across(width * column),
          slopes(entries * column), used(entries * column), rates(2 * entries), part(column), out(row) {}

    // Reads the head from qkv, whose rows are 3 · `all` apart: queries and keys with their norms, and values.
    void take(const float* qkv, int all) {
        for (int s = 0; s < entries; s++) {
            const float* from = qkv + int64_t(s) * 3 * all;
            take_normed(from, 0, s, queries.data() + s * row), take_normed(from + all, 1, s, keys.data() + s * row);
            std::memcpy(values.data() + s * row, from + 2 * all, sizeof(float) * width);
        }
    }
    void take_normed(const float* x, int which, int entry, float* to) {
        float *plain = normed.data() + (which * entries + entry) * row, &rate = rates[which * entries + entry];
        const float *weight = norms.weight + which * width, *bias = norms.bias + which * width;
        Sum sum, squares;
        chunks(width, [&](auto n, int i) { sum.add(load<n>(x + i)); });
        const float mean = sum.value() / width;
        chunks(width, [&](auto n, int i) {
            const Floats<n> off = load<n>(x + i) - mean;
            squares.add(off * off);
        });
        rate = 1.0f / std::sqrt(squares.value() / width + norms.eps);
        chunks(width, [&](auto n, int i) {
            const Floats<n> value = (load<n>(x + i) - mean) * rate;
            store<n>(plain + i, value), store<n>(to + i, value * load<n>(weight + i) + load<n>(bias + i));
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

// qkv (B, S, 3, N, K), read (B, S, N, K); shares (B, N, S, S padded) receives the weights, negative where they are dropped.
inline void attend_forwards(const float* qkv, const Norms& norms, const Masks& masks, float* read, float* shares, int batch,
                            int entries, int heads, int width, int threads) {
    const float scale = 1.0f / std::sqrt(float(width));
    const Chunk lanes{0, 1, 2, 3, 4, 5, 6, 7};
#pragma omp parallel num_threads(threads)
    {
        Head head(entries, width, norms);
        const int all = heads * width, row = head.row, column = head.column;
#pragma omp for schedule(static)
        for (int at = 0; at < batch * heads; at++) {
            const int sample = at / heads, number = at % heads;
            head.take(qkv + int64_t(sample) * entries * 3 * all + number * width, all);
            head.turn(head.keys);
            for (int s = 0; s < entries; s++) {
                float *share = shares + (int64_t(at) * entries + s) * column, *used = head.part.data();
                const int seen = padded(s + 1);
                weighted(head.queries.data() + s * row, head.across.data(), column, width, seen, share);
                Chunk highest = Chunk{} - INFINITY, sums{};
                for (int t = 0; t < seen; t += EIGHT) {
                    const Chunk scores = lanes > float(s - t) ? Chunk{} - INFINITY : load<EIGHT>(share + t) * scale;
                    store<EIGHT>(share + t, scores);
                    highest = scores > highest ? scores : highest;
                }
                float most = highest[0];
                for (int lane = 1; lane < EIGHT; lane++) most = std::max(most, highest[lane]);
                for (int t = 0; t < seen; t += EIGHT) {
                    const Chunk found = exponential<EIGHT>(load<EIGHT>(share + t) - most);
                    const Chunk kept = lanes > float(s - t) ? Chunk{} : found;
                    store<EIGHT>(share + t, kept);
                    sums += kept;
                }
                const float each = 1.0f / total(sums);
                const float* factor = masks.factors(sample, int64_t(number) * entries + s, entries, s + 1, head.room);
                for (int t = 0; t < seen; t += EIGHT) {
                    const Chunk weight = load<EIGHT>(share + t) * each, factors = factor ? load<EIGHT>(factor + t) : Chunk{} + 1.0f;
                    store<EIGHT>(used + t, weight * factors), store<EIGHT>(share + t, factors == 0.0f ? -weight : weight);
                }
                weighted(used, head.values.data(), row, s + 1, row, head.out.data());
                std::memcpy(read + (int64_t(sample) * entries + s) * all + number * width, head.out.data(), sizeof(float) * width);
            }
        }
    }
}

// The backward pass: the gradient of qkv, and those of the norms (2, 2, K): weight and bias of queries, then of keys.
inline void attend_backwards(const float* gradient, const float* qkv, const Norms& norms, const Masks& masks, const float* shares,
                             float* qkv_gradient, float* norm_gradients, int batch, int entries, int heads, int width,
                             int threads) {
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
            head.take(qkv + place, all);
            head.turn(head.values);
            for (int s = 0; s < entries; s++) {
                const float* share = shares + (int64_t(at) * entries + s) * column;
                float *given = head.given.data() + s * row, *slopes = head.part.data();
                const int seen = padded(s + 1);
                std::memcpy(given, gradient + (int64_t(sample) * entries + s) * all + number * width, sizeof(float) * width);
                weighted(given, head.across.data(), column, width, seen, slopes);
                Chunk means{};
                for (int t = 0; t < seen; t += EIGHT) {
                    const Chunk weight = load<EIGHT>(share + t), slope = weight > 0.0f ? load<EIGHT>(slopes + t) * factor : Chunk{};
                    store<EIGHT>(slopes + t, slope);
                    means += slope * weight;
                }
                const float mean = total(means);
                for (int t = 0; t < seen; t += EIGHT) {
                    const Chunk weight = load<EIGHT>(share + t), size = weight < 0.0f ? -weight : weight;
                    store<EIGHT>(slopes + t, size * (load<EIGHT>(slopes + t) - mean) * scale);
                }
                for (int t = 0; t <= s; t++) {
                    head.slopes[t * column + s] = slopes[t];
                    head.used[t * column + s] = share[t] > 0.0f ? share[t] * factor : 0.0f;
                }
                weighted(slopes, head.keys.data(), row, s + 1, row, out);
                head.norm_backwards(0, s, out, sum);
                std::memcpy(to + int64_t(s) * 3 * all, out, sizeof(float) * width);
            }
            for (int t = 0; t < entries; t++) {
                float* from = to + int64_t(t) * 3 * all;
                weighted(head.slopes.data() + t * column + t, head.queries.data() + t * row, row, entries - t, row, out);
                head.norm_backwards(1, t, out, sum + 2 * width);
                std::memcpy(from + all, out, sizeof(float) * width);
                weighted(head.used.data() + t * column + t, head.given.data() + t * row, row, entries - t, row, out);
                std::memcpy(from + 2 * all, out, sizeof(float) * width);
            }
        }
    }
    add_up(sums, 4 * width, norm_gradients);
}

}  // namespace
