// Causal attention of short sequences in training, forwards and backwards, with the norms of queries and keys before it. B samples,
// S entries, N heads, K head width. LANES heads are computed side by side.
#pragma once

#include "side_by_side.h"
#include "training.h"

namespace {

constexpr int QUERIES = 4, KEYS = LANES > EIGHT ? 4 : 2;  // of a tile of products, whose sums stay in registers

// A sequence's products with those it sees lie one after another: 1, 2, … S of them.
inline int64_t row_at(int64_t s) { return s * (s + 1) / 2; }

// Calls work(n, i) for all lines from i, n at a time, whose sums stay in registers.
template <class F>
inline void pieces(int width, F work) {
    int i = 0;
    for (; i + LANES <= width; i += LANES) work(std::integral_constant<int, LANES>{}, i);
    for (; i + 4 <= width; i += 4) work(std::integral_constant<int, 4>{}, i);
    for (; i < width; i++) work(std::integral_constant<int, 1>{}, i);
}

// The norms of queries and keys: weight and bias (2, K).
struct Norms {
    const float *weight, *bias;
    float eps;
};

// What a thread needs for some heads.
struct Side {
    const Norms norms;
    const int entries, width;
    std::vector<Line> normed, queries, keys, values, given;  // (2, S, K) before weight and bias; (S padded, K)
    std::vector<Line> weights, slopes, factors, row;         // S (S + 1) / 2 each; (S padded); (K)
    Side(int entries, int width, const Norms& norms)
        : norms(norms),
          entries(entries),
          width(width),
          normed(2 * size_t(entries) * width),
          queries(size_t(entries + QUERIES) * width),
          keys(queries.size()),
          values(queries.size()),
          given(queries.size()),
          weights(row_at(entries)),
          slopes(row_at(entries)),
          factors(entries + QUERIES),
          row(width) {}

    // Reads queries, keys and values, with norms of queries and keys. Statistics (2, S, 2), mean and 1 / deviation, are measured
    // unless they are const.
    template <class L>
    void take(const Heads& of, const float* qkv, L* statistics) {
        for (int s = 0; s < entries; s++) {
            for (int which = 0; which < 2; which++) {
                Line* plain = normed.data() + size_t(which * entries + s) * width;
                L* of_row = statistics + 2 * (which * entries + s);
                of.take(qkv, 3, which, s, plain);
                if constexpr (!std::is_const_v<L>) measure(plain, of_row);
                const Lanes mean = load(of_row[0]), rate = load(of_row[1]);
                Line* to = (which ? keys : queries).data() + size_t(s) * width;
                for (int k = 0; k < width; k++) {
                    const Lanes value = (load(plain[k]) - mean) * rate;
                    store(plain[k], value);
                    store(to[k], value * norms.weight[which * width + k] + norms.bias[which * width + k]);
                }
            }
            of.take(qkv, 3, 2, s, values.data() + size_t(s) * width);
        }
    }
    void measure(const Line* x, Line* of_row) const {
        Lanes sum{}, squares{};
        for (int k = 0; k < width; k++) sum += load(x[k]);
        const Lanes mean = sum / float(width);
        for (int k = 0; k < width; k++) {
            const Lanes off = load(x[k]) - mean;
            squares += off * off;
        }
        store(of_row[0], mean), store(of_row[1], 1.0f / square_root(squares / float(width) + norms.eps));
    }

    // out[s, t] = left[s] · right[t] for all t up to s.
    void products(const std::vector<Line>& left, const std::vector<Line>& right, std::vector<Line>& out) const {
        for (int first = 0; first < entries; first += QUERIES)
            for (int key = 0; key < std::min(first + QUERIES, entries); key += KEYS) {
                const Line *rows = left.data() + size_t(first) * width, *others = right.data() + size_t(key) * width;
                Lanes sums[QUERIES][KEYS] = {};
                for (int k = 0; k < width; k++) {
                    Lanes of_keys[KEYS];
                    for (int t = 0; t < KEYS; t++) of_keys[t] = load(others[t * width + k]);
                    for (int s = 0; s < QUERIES; s++)
                        for (int t = 0; t < KEYS; t++) sums[s][t] += load(rows[s * width + k]) * of_keys[t];
                }
                for (int s = first; s < std::min(first + QUERIES, entries); s++)
                    for (int t = key; t < std::min(key + KEYS, s + 1); t++) store(out[row_at(s) + t], sums[s - first][t - key]);
            }
    }
    // row = the sum over t up to s of factors[s, t] · rows[t]; LATER: over t from s on, of factors[t, s] · rows[t].
    template <bool LATER>
    void mix(const std::vector<Line>& factors, const std::vector<Line>& rows, int s) {
        pieces(width, [&](auto n, int k) {
            Lanes sums[n] = {};
            for (int t = LATER ? s : 0; t < (LATER ? entries : s + 1); t++) {
                const Lanes factor = load(factors[LATER ? row_at(t) + s : row_at(s) + t]);
                for (int i = 0; i < n; i++) sums[i] += factor * load(rows[size_t(t) * width + k + i]);
            }
            for (int i = 0; i < n; i++) store(row[k + i], sums[i]);
        });
    }
    // Turns the row, the gradient after a norm, into that before it; `sums` (2, K) gain those of its weight, then of its bias.
    void norm_backwards(int which, int s, const Line* statistics, Line* sums) {
        const Line* plain = normed.data() + size_t(which * entries + s) * width;
        Lanes sum{}, product{};
        for (int k = 0; k < width; k++) {
            const Lanes value = load(plain[k]), after = load(row[k]), before = after * norms.weight[which * width + k];
            store(sums[k], load(sums[k]) + after * value), store(sums[width + k], load(sums[width + k]) + after);
            store(row[k], before);
            sum += before, product += before * value;
        }
        const Lanes average = sum / float(width), slope = product / float(width),
                    rate = load(statistics[2 * (which * entries + s) + 1]);
        for (int k = 0; k < width; k++) store(row[k], (load(row[k]) - average - load(plain[k]) * slope) * rate);
    }
    // What the weights of query s with the keys it sees are multiplied by: 0 where they are dropped.
    void draw(const Masks& masks, const Heads& of, int s) {
        uint64_t begin[LANES];
        for (int lane = 0; lane < LANES; lane++)
            begin[lane] = masks.before(of.sample[lane], int64_t(of.number[lane]) * entries + s, entries);
        for (int half = 0; half < 2; half++) {
            Words from;
            std::memcpy(&from, begin + half * LANES / 2, sizeof(from));
            for (int word = 0; word <= s / 4; word++) {
                const Words number = mixed(from + uint64_t(word) * INCREMENT);
                for (int draw = 0; draw < 4; draw++) {
                    // As whole numbers with what lies below them, which changes no comparison.
                    using Signed = int64_t __attribute__((vector_size(sizeof(Words))));
                    const Signed drawn = (Signed)(number << (48 - 16 * draw)), least = Signed{} + (int64_t(masks.lowest) << 48);
                    const Ints<LANES / 2> dropped = __builtin_convertvector(drawn < least, Ints<LANES / 2>);
                    store<LANES / 2>(factors[4 * word + draw].at + half * LANES / 2,
                                     dropped ? Floats<LANES / 2>{} : Floats<LANES / 2>{} + masks.scale);
                }
            }
        }
    }
};

// Turns the products of a query with `seen` keys into weights.
inline void softmax(Line* weights, int seen, float scale) {
    Lanes highest = load(weights[0]), sum{};
    for (int t = 1; t < seen; t++) {
        const Lanes score = load(weights[t]);
        highest = score > highest ? score : highest;
    }
    for (int t = 0; t < seen; t++) {
        const Lanes weight = exponential<LANES>((load(weights[t]) - highest) * scale);
        store(weights[t], weight);
        sum += weight;
    }
    const Lanes each = 1.0f / sum;
    for (int t = 0; t < seen; t++) store(weights[t], load(weights[t]) * each);
}

// qkv (B, S, 3, N, K); read (B, S, N, K). For the backward pass, of each LANES heads side by side: shares (S (S + 1) / 2) receives
// the weights, negative where they are dropped, and statistics (2, S, 2) those of the norms.
inline void attend_forwards(const float* qkv, const Norms& norms, const Masks& masks, float* read, Line* shares, Line* statistics,
                            int batch, int entries, int heads, int width, int threads) {
    const float scale = 1.0f / std::sqrt(float(width));
    const int all = batch * heads;
#pragma omp parallel num_threads(threads)
    {
        Side side(entries, width, norms);
#pragma omp for schedule(static)
        for (int group = 0; group < (all + LANES - 1) / LANES; group++) {
            const Heads of(group * LANES, all, heads, entries, width);
            Line* share = shares + group * row_at(entries);
            side.take(of, qkv, statistics + int64_t(group) * 4 * entries);
            side.products(side.queries, side.keys, side.weights);
            for (int s = 0; s < entries; s++) {
                Line* weights = side.weights.data() + row_at(s);
                softmax(weights, s + 1, scale);
                if (masks.keys) {
                    side.draw(masks, of, s);
                    for (int t = 0; t <= s; t++) {
                        const Lanes weight = load(weights[t]), factor = load(side.factors[t]);
                        store(weights[t], weight * factor);
                        store(share[row_at(s) + t], factor == 0.0f ? -weight : weight);
                    }
                } else
                    for (int t = 0; t <= s; t++) share[row_at(s) + t] = weights[t];
                side.mix<false>(side.weights, side.values, s);
                of.give(side.row.data(), read, 1, 0, s);
            }
        }
    }
}

// Turns the gradients of a query's weights, as they were used, into those of its products with `seen` keys; the weights become
// those that were used.
inline void slopes_of(const Line* share, float factor, float scale, int seen, Line* slopes, Line* used) {
    Lanes mean{};
    for (int t = 0; t < seen; t++) {
        const Lanes weight = load(share[t]), slope = weight > 0.0f ? load(slopes[t]) * factor : Lanes{};
        store(slopes[t], slope);
        mean += slope * weight;
    }
    for (int t = 0; t < seen; t++) {
        const Lanes weight = load(share[t]), size = weight < 0.0f ? -weight : weight;
        store(slopes[t], size * (load(slopes[t]) - mean) * scale);
        store(used[t], weight > 0.0f ? weight * factor : Lanes{});
    }
}

// The backward pass: the gradient of qkv, and those of the norms (2, 2, K): weight and bias of queries, then of keys.
inline void attend_backwards(const float* gradient, const float* qkv, const Norms& norms, const Masks& masks, const Line* shares,
                             const Line* statistics, float* qkv_gradient, float* norm_gradients, int batch, int entries, int heads,
                             int width, int threads) {
    const float scale = 1.0f / std::sqrt(float(width)), factor = masks.keys ? masks.scale : 1.0f;
    const int all = batch * heads, groups = (all + LANES - 1) / LANES;
    std::vector<float> sums(size_t(groups) * 4 * width);
#pragma omp parallel num_threads(threads)
    {
        Side side(entries, width, norms);
        std::vector<Line> of_norms(4 * width);
#pragma omp for schedule(static)
        for (int group = 0; group < groups; group++) {
            const Heads of(group * LANES, all, heads, entries, width);
            const Line* of_group = statistics + int64_t(group) * 4 * entries;
            side.take(of, qkv, of_group);
            for (int s = 0; s < entries; s++) of.take(gradient, 1, 0, s, side.given.data() + size_t(s) * width);
            side.products(side.given, side.values, side.slopes);
            for (int s = 0; s < entries; s++)
                slopes_of(shares + group * row_at(entries) + row_at(s), factor, scale, s + 1, side.slopes.data() + row_at(s),
                          side.weights.data() + row_at(s));
            std::fill(of_norms.begin(), of_norms.end(), Line{});
            for (int s = 0; s < entries; s++) {
                side.mix<false>(side.slopes, side.keys, s);
                side.norm_backwards(0, s, of_group, of_norms.data());
                of.give(side.row.data(), qkv_gradient, 3, 0, s);
            }
            for (int s = 0; s < entries; s++) {
                side.mix<true>(side.slopes, side.queries, s);
                side.norm_backwards(1, s, of_group, of_norms.data() + 2 * width);
                of.give(side.row.data(), qkv_gradient, 3, 1, s);
            }
            for (int s = 0; s < entries; s++) {
                side.mix<true>(side.weights, side.given, s);
                of.give(side.row.data(), qkv_gradient, 3, 2, s);
            }
            for (int i = 0; i < 4 * width; i++)
                for (int lane = 0; lane < of.count; lane++) sums[size_t(group) * 4 * width + i] += of_norms[i].at[lane];
        }
    }
    add_up(sums, 4 * width, norm_gradients);
}

}  // namespace
