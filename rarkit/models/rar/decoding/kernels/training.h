// A block's training step: what lies between its matrix products, forwards and backwards. B samples, S entries of a sequence, D
// width (of the model or the MLP's hidden layer), R = B·S rows, U rows of a table of modulations (U, S, D).
//
// Threads divide entries or heads, and sums over rows go through sums of an entry: results do not depend on the threads.
#pragma once

#include <type_traits>
#include <vector>

#include "numbers.h"

namespace {

// Calls work(n, i) for as many numbers n from i as a register holds, then for eight, then for single ones.
template <class F>
inline void chunks(int width, F work) {
    int i = 0;
    for (; i + LANES <= width; i += LANES) work(std::integral_constant<int, LANES>{}, i);
    if constexpr (LANES > EIGHT)
        if (i + EIGHT <= width) work(std::integral_constant<int, EIGHT>{}, i), i += EIGHT;
    for (; i < width; i++) work(std::integral_constant<int, 1>{}, i);
}

// Adds up what chunks of numbers give.
struct Sum {
    Chunk eight{};
    float one = 0;
    template <class V>
    void add(V v) {
        if constexpr (sizeof(V) == 2 * sizeof(Chunk)) {
            Chunk halves[2];
            std::memcpy(halves, &v, sizeof(v));
            eight += halves[0] + halves[1];
        } else if constexpr (sizeof(V) == sizeof(Chunk))
            eight += v;
        else
            one += v[0];
    }
    float value() const { return total(eight) + one; }
};

// What a layer norm needs of a row: its mean, and 1 / deviation.
struct Statistics {
    float mean, rate;
};
inline Statistics statistics_of(const float* x, int width, float eps) {
    Sum sum, squares;
    chunks(width, [&](auto n, int i) { sum.add(load<n>(x + i)); });
    const float mean = sum.value() / width;
    chunks(width, [&](auto n, int i) {
        const Floats<n> off = load<n>(x + i) - mean;
        squares.add(off * off);
    });
    return {mean, 1.0f / std::sqrt(squares.value() / width + eps)};
}

// Of a row of masks.
struct Room {
    std::vector<uint64_t> numbers;
    std::vector<int16_t> draws;
    std::vector<float> factors;
};

// SplitMix64: number n (from 1) of a key is mixed(key + n · INCREMENT). Of uint64_t or vectors of it.
constexpr uint64_t INCREMENT = 0x9E3779B97F4A7C15u;
template <class W>
inline W mixed(W z) {
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

// Dropout masks from seeds, the numbers of attention/seeded_masks.py: each of SplitMix64 gives four draws of 16 bits.
struct Masks {
    const int64_t* keys;  // of the samples; null for no dropout
    int lowest;           // smaller draws are dropped
    float scale;          // of what is kept
    // What is mixed to the first number of a row, before which other rows of so many columns have theirs.
    uint64_t before(int sample, int64_t row, int columns) const {
        return uint64_t(keys[sample]) + uint64_t(row * ((columns + 3) / 4) + 1) * INCREMENT;
    }
    // What each number of a row is multiplied by: 0, or the scale; null if nothing is dropped.
    const float* factors(int sample, int64_t row, int columns, int count, Room& room) const {
        if (!keys) return nullptr;
        const int words = (columns + 3) / 4, used = (count + 3) / 4;
        room.numbers.resize(words), room.draws.resize(4 * words), room.factors.resize((4 * words + EIGHT - 1) / EIGHT * EIGHT);
        uint64_t* numbers = room.numbers.data();
        const int16_t* draws = room.draws.data();
        float* factors = room.factors.data();
        // Of its own, which nothing that is written could change.
        const int least = lowest;
        const float kept = scale;
        const uint64_t first = before(sample, row, columns);
        for (int word = 0; word < used; word++) numbers[word] = mixed(first + uint64_t(word) * INCREMENT);
        std::memcpy(room.draws.data(), numbers, sizeof(uint64_t) * used);
        for (int draw = 0; draw < 4 * used; draw++) factors[draw] = draws[draw] < least ? 0.0f : kept;
        return factors;
    }
};

// The modulations of samples: row (sample, entry) of a place is that of the sample's class.
struct Modulations {
    const int64_t* rows;  // (B,) of U; null if sample b has row b
    int entries, width;
    int64_t at(int sample, int entry) const { return ((rows ? rows[sample] : sample) * entries + entry) * width; }
};

// Sets the rows of an entry to 0 in a table of gradients.
inline void clear(float* table, int classes, const Modulations& of, int entry) {
    for (int u = 0; u < classes; u++)
        std::memset(table + (int64_t(u) * of.entries + entry) * of.width, 0, sizeof(float) * of.width);
}

// The sum of rows, one after another.
inline void add_up(const std::vector<float>& rows, int width, float* out) {
    std::memset(out, 0, sizeof(float) * width);
    for (size_t at = 0; at < rows.size(); at += width)
        for (int d = 0; d < width; d++) out[d] += rows[at + d];
}

// out = layer_norm(x) · scale + shift; statistics (R, 2) receives mean and 1 / deviation.
inline void modulate(const float* x, const float* weight, const float* bias, const float* shift, const float* scale,
                     const Modulations& of, float* out, float* statistics, int batch, float eps, int threads) {
    const int width = of.width;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int row = 0; row < batch * of.entries; row++) {
        const float* from = x + int64_t(row) * width;
        float* to = out + int64_t(row) * width;
        const int64_t place = of.at(row / of.entries, row % of.entries);
        const Statistics of_row = statistics_of(from, width, eps);
        const float mean = of_row.mean, rate = of_row.rate;
        chunks(width, [&](auto n, int i) {
            const Floats<n> normed = (load<n>(from + i) - mean) * rate * load<n>(weight + i) + load<n>(bias + i);
            store<n>(to + i, normed * load<n>(scale + place + i) + load<n>(shift + place + i));
        });
        statistics[2 * row] = mean, statistics[2 * row + 1] = rate;
    }
}

// The backward pass of `modulate` beside a residual stream: out = its gradient of x + through. The tables of gradients (U, S, D)
// are filled, those of weight and bias (D,) too.
inline void modulate_backwards(const float* gradient, const float* through, const float* x, const float* statistics,
                               const float* weight, const float* bias, const float* scale, const Modulations& of, float* out,
                               float* shift_gradient, float* scale_gradient, float* weight_gradient, float* bias_gradient,
                               int batch, int classes, int threads) {
    const int width = of.width;
    std::vector<float> weights(size_t(of.entries) * width), biases(weights.size());
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int entry = 0; entry < of.entries; entry++) {
        float *weight_sum = weights.data() + size_t(entry) * width, *bias_sum = biases.data() + size_t(entry) * width;
        clear(shift_gradient, classes, of, entry), clear(scale_gradient, classes, of, entry);
        for (int sample = 0; sample < batch; sample++) {
            const int64_t row = int64_t(sample) * of.entries + entry, first = row * width, place = of.at(sample, entry);
            const float mean = statistics[2 * row], rate = statistics[2 * row + 1];
            Sum sum, product;
            chunks(width, [&](auto n, int i) {
                const Floats<n> normed = (load<n>(x + first + i) - mean) * rate, w = load<n>(weight + i);
                const Floats<n> given = load<n>(gradient + first + i), scaled = given * load<n>(scale + place + i);
                store<n>(shift_gradient + place + i, load<n>(shift_gradient + place + i) + given);
                store<n>(scale_gradient + place + i,
                         load<n>(scale_gradient + place + i) + given * (normed * w + load<n>(bias + i)));
                store<n>(weight_sum + i, load<n>(weight_sum + i) + scaled * normed);
                store<n>(bias_sum + i, load<n>(bias_sum + i) + scaled);
                sum.add(scaled * w), product.add(scaled * w * normed);
            });
            const float average = sum.value() / width, slope = product.value() / width;
            chunks(width, [&](auto n, int i) {
                const Floats<n> normed = (load<n>(x + first + i) - mean) * rate;
                const Floats<n> scaled = load<n>(gradient + first + i) * load<n>(scale + place + i) * load<n>(weight + i);
                store<n>(out + first + i, (scaled - average - normed * slope) * rate + load<n>(through + first + i));
            });
        }
    }
    add_up(weights, width, weight_gradient), add_up(biases, width, bias_gradient);
}

// sum = x + gate · dropout(out).
inline void gate(const float* x, const float* out, const float* gates, const Modulations& of, const Masks& masks, float* sum,
                 int batch, int threads) {
    const int width = of.width;
#pragma omp parallel num_threads(threads)
    {
        Room room;
#pragma omp for schedule(static)
        for (int row = 0; row < batch * of.entries; row++) {
            const int sample = row / of.entries, entry = row % of.entries;
            const int64_t first = int64_t(row) * width, place = of.at(sample, entry);
            const float* kept = masks.factors(sample, entry, width, width, room);
            chunks(width, [&](auto n, int i) {
                const Floats<n> value = load<n>(out + first + i), scaled = kept ? value * load<n>(kept + i) : value;
                store<n>(sum + first + i, load<n>(x + first + i) + load<n>(gates + place + i) * scaled);
            });
        }
    }
}

// The backward pass of `gate`: the gradients of out, of the gates (U, S, D), and of a bias (D,) that was added to out.
inline void gate_backwards(const float* gradient, const float* out, const float* gates, const Modulations& of, const Masks& masks,
                           float* out_gradient, float* gate_gradient, float* bias_gradient, int batch, int classes, int threads) {
    const int width = of.width;
    std::vector<float> biases(size_t(of.entries) * width);
#pragma omp parallel num_threads(threads)
    {
        Room room;
#pragma omp for schedule(static)
        for (int entry = 0; entry < of.entries; entry++) {
            float* bias_sum = biases.data() + size_t(entry) * width;
            clear(gate_gradient, classes, of, entry);
            for (int sample = 0; sample < batch; sample++) {
                const int64_t first = (int64_t(sample) * of.entries + entry) * width, place = of.at(sample, entry);
                const float* kept = masks.factors(sample, entry, width, width, room);
                chunks(width, [&](auto n, int i) {
                    Floats<n> given = load<n>(gradient + first + i);
                    if (kept) given *= load<n>(kept + i);
                    const Floats<n> gated = given * load<n>(gates + place + i);
                    store<n>(gate_gradient + place + i, load<n>(gate_gradient + place + i) + given * load<n>(out + first + i));
                    store<n>(out_gradient + first + i, gated);
                    store<n>(bias_sum + i, load<n>(bias_sum + i) + gated);
                });
            }
        }
    }
    add_up(biases, width, bias_gradient);
}

// active = dropout(GELU(hidden)), both (R, D); hidden becomes the slope of that, since the backward pass needs nothing else.
inline void activate(float* hidden, const Masks& masks, float* active, int batch, int entries, int width, int threads) {
#pragma omp parallel num_threads(threads)
    {
        Room room;
#pragma omp for schedule(static)
        for (int row = 0; row < batch * entries; row++) {
            const int64_t first = int64_t(row) * width;
            const float* kept = masks.factors(row / entries, row % entries, width, width, room);
            chunks(width, [&](auto n, int i) {
                Floats<n> slope, value = gelu<n>(load<n>(hidden + first + i), slope);
                if (kept) value *= load<n>(kept + i), slope *= load<n>(kept + i);
                store<n>(active + first + i, value), store<n>(hidden + first + i, slope);
            });
        }
    }
}

// The backward pass of `activate`, in place, and the gradient of a bias (D,) that was added to hidden.
inline void activate_backwards(float* gradient, const float* slopes, float* bias_gradient, int batch, int entries, int width,
                               int threads) {
    std::vector<float> biases(size_t(entries) * width);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int entry = 0; entry < entries; entry++) {
        float* bias_sum = biases.data() + size_t(entry) * width;
        for (int sample = 0; sample < batch; sample++) {
            const int64_t first = (int64_t(sample) * entries + entry) * width;
            chunks(width, [&](auto n, int i) {
                const Floats<n> given = load<n>(gradient + first + i) * load<n>(slopes + first + i);
                store<n>(gradient + first + i, given);
                store<n>(bias_sum + i, load<n>(bias_sum + i) + given);
            });
        }
    }
    add_up(biases, width, bias_gradient);
}

}  // namespace
