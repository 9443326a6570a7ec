// Decoding on a CPU with AVX2 or AVX-512: a few rows of float32 meet large weights, or a long cache, and reading these from memory
// is what takes the time. Weights and cache are widened to float32 on their way, and the next ones are asked for meanwhile.
// rarkit/sampling/compiled.py compiles and calls this. The order of each sum depends on nothing but its length: a row's result is
// the same in any batch.
//
// Letters of shapes as there: R rows, I inputs, O outputs; N heads, K head width, S entries of the cache, T of them filled.

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

namespace {

#ifdef __AVX512F__
constexpr int LANES = 16, TILE = 12, FEW = 4;
#else
constexpr int LANES = 8, TILE = 6, FEW = 2;
#endif
constexpr int PANEL = 2 * LANES;   // outputs at a time: two registers
constexpr int DEPTH = 256;         // inputs at a time: PANEL · DEPTH weights stay in the first cache
constexpr int MOST_ROWS = 96;      // rows at a time: their sums stay in the second
constexpr int LINE = 64;           // bytes of a cache line
constexpr int BYTES_AHEAD = 2048;  // what is asked for before it is needed
constexpr int EIGHT = 8;           // numbers of a head, or entries of the cache, at a time
constexpr int MOST_CHUNKS = 6;     // of eight numbers, in registers

template <int N> using Floats __attribute__((vector_size(4 * N), aligned(4), may_alias)) = float;
template <int N> using Ints __attribute__((vector_size(4 * N), aligned(4), may_alias)) = int32_t;
using Chunk = Floats<EIGHT>;

struct BFloat16 { uint16_t bits; };
struct Float8 { uint8_t bits; };  // e4m3: no infinity, seven ones are NaN

// ---- numbers ----

inline uint32_t bits_of(float value) { uint32_t bits; std::memcpy(&bits, &value, 4); return bits; }

// N numbers of any type, as float32.
template <int N> inline Floats<N> load(const float* from) { return *reinterpret_cast<const Floats<N>*>(from); }
template <int N> inline Floats<N> load(const BFloat16* from) {
    if constexpr (N == 8) return (Floats<N>)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)from)), 16);
#ifdef __AVX512F__
    else return (Floats<N>)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)from)), 16);
#endif
}
template <int N> inline Floats<N> load(const int8_t* from) {
    if constexpr (N == 8) return (Floats<N>)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)from)));
#ifdef __AVX512F__
    else return (Floats<N>)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)from)));
#endif
}
template <int N> inline Floats<N> load(const Float8* from) {
    static_assert(N == 8);
    const Ints<N> bits = (Ints<N>)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)from)), magnitude = bits & 0x7f;
    // Exponent and mantissa to where float32 has its own; below the smallest normal number, the mantissa in units of 2⁻⁹.
    const Ints<N> normal = (magnitude << 20) + (120 << 23), small = (Ints<N>)(__builtin_convertvector(magnitude, Floats<N>) * 0x1p-9f);
    const Ints<N> found = magnitude < 8 ? small : magnitude == 0x7f ? Ints<N>{} + 0x7fc00000 : normal;
    return (Floats<N>)(found | (bits & 0x80) << 24);
}
template <int N> inline void store(float* to, Floats<N> values) { *reinterpret_cast<Floats<N>*>(to) = values; }

inline float widened(float value) { return value; }
inline float widened(BFloat16 value) { const uint32_t bits = uint32_t(value.bits) << 16; float wide; std::memcpy(&wide, &bits, 4); return wide; }
inline float widened(int8_t value) { return value; }
inline float widened(Float8 value) { const Float8 eight[EIGHT] = {value}; return load<EIGHT>(eight)[0]; }

// To the nearest number, even ones where there are two; float8 to ±448 at most.
inline void narrow(float value, float* to) { *to = value; }
inline void narrow(float value, BFloat16* to) {
    const uint32_t bits = bits_of(value);
    to->bits = value != value ? 0x7fc0 : uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
inline void narrow(float value, Float8* to) {
    const float magnitude = std::min(std::fabs(value), 448.0f);
    const uint32_t bits = bits_of(magnitude);
    const uint32_t found = magnitude < 0x1p-6f ? uint32_t(std::nearbyint(magnitude * 0x1p9f)) : ((bits + 0x7ffff + (bits >> 20 & 1)) >> 20) - (120 << 3);
    to->bits = value != value ? 0x7f : uint8_t(found | (bits_of(value) >> 24 & 0x80));
}

// exp of numbers of at most 0, to about 2 units in the last place: 2ⁿ · e^r, |r| at most ln(2) / 2.
template <int N> inline Floats<N> exponential(Floats<N> x) {
    x = x < -87.0f ? Floats<N>{} - 87.0f : x;
    const float magic = 12582912.0f;  // 1.5 · 2²³: adding it rounds to an integer
    const Floats<N> n = (x * 1.44269504f + magic) - magic;
    const Floats<N> r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    Floats<N> sum = r * (1.0f / 5040) + 1.0f / 720;
    for (const float term : {1.0f / 120, 1.0f / 24, 1.0f / 6, 1.0f / 2, 1.0f, 1.0f}) sum = sum * r + term;
    return sum * (Floats<N>)((__builtin_convertvector(n, Ints<N>) + 127) << 23);
}

// x · Φ(x), with the error function of Abramowitz and Stegun, 7.1.26 (to 1.5e-7), which PyTorch takes too.
template <int N> inline Floats<N> gelu(Floats<N> x) {
    const Floats<N> z = x * 0.70710678f, size = z < 0 ? -z : z;
    const Floats<N> t = 1.0f / (1.0f + size * 0.3275911f);
    Floats<N> sum = t * 1.061405429f - 1.453152027f;
    for (const float term : {1.421413741f, -0.284496736f, 0.254829592f}) sum = sum * t + term;
    const Floats<N> rest = sum * t * exponential<N>(-size * size);  // 1 − erf |z|
    return x * 0.5f * (z < 0 ? rest : 2.0f - rest);
}

inline float total(Chunk v) { return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7])); }

// (x − mean) / √(variance + eps) of one row.
inline void normalise(const float* x, int width, float eps, float* out) {
    const int whole = width / EIGHT * EIGHT;
    Chunk sums{};
    for (int i = 0; i < whole; i += EIGHT) sums += load<EIGHT>(x + i);
    float sum = total(sums);
    for (int i = whole; i < width; i++) sum += x[i];
    const float mean = sum / width;
    sums = Chunk{};
    for (int i = 0; i < whole; i += EIGHT) { const Chunk off = load<EIGHT>(x + i) - mean; sums += off * off; }
    float squares = total(sums);
    for (int i = whole; i < width; i++) squares += (x[i] - mean) * (x[i] - mean);
    const float scale = 1.0f / std::sqrt(squares / width + eps);
    for (int i = 0; i < width; i++) out[i] = (x[i] - mean) * scale;
}

inline int part(int of, int parts, int number) { return int(int64_t(of) * number / parts); }

// ---- linear layers ----

// Rows in groups of at most TILE, each group's inputs beside each other: packed[I / DEPTH][group][DEPTH][R].
struct Groups {
    int rows, count;
    explicit Groups(int rows) : rows(rows), count((rows + TILE - 1) / TILE) {}
    int first(int group) const { return part(rows, count, group); }
    int size(int group) const { return first(group + 1) - first(group); }
};

// Adds x[depth][R] · weights[depth][PANEL] to sums[R][PANEL], and meanwhile asks for some lines of memory, evenly.
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
template <int R = TILE> Tile tile_of(int rows) {
    if constexpr (R > 1) if (rows != R) return tile_of<R - 1>(rows);
    return tile<R>;
}

// Many rows: a block of weights is widened once, and multiplied with one group after the other. sums: [rows][PANEL].
template <class W>
void many(const Groups& groups, const float* packed, const W* weights, int inputs, float* sums) {
    alignas(LINE) float room[std::is_same_v<W, float> ? 1 : DEPTH * PANEL];
    std::memset(sums, 0, sizeof(float) * groups.rows * PANEL);
    for (int start = 0; start < inputs; start += DEPTH) {
        const int depth = std::min(DEPTH, inputs - start), lines = int(depth * PANEL * sizeof(W) / LINE);
        const W* block = weights + int64_t(start) * PANEL;
        const float* wide = room;
        if constexpr (std::is_same_v<W, float>) wide = block;
        else for (int i = 0; i < depth * PANEL; i += LANES) store<LANES>(room + i, load<LANES>(block + i));
        // The next block comes from memory while this one is multiplied: each group asks for its share of it.
        const char* next = reinterpret_cast<const char*>(block + depth * PANEL);
        for (int group = 0; group < groups.count; group++) {
            const int first = groups.first(group), size = groups.size(group), asked = part(lines, groups.count, group);
            tile_of(size)(packed + int64_t(start) * groups.rows + int64_t(first) * depth, wide, depth, sums + first * PANEL,
                          next + asked * LINE, part(lines, groups.count, group + 1) - asked);
        }
    }
}

// So few rows that each weight is used once: x[I][R] with P panels at a time, enough sums beside each other to keep the adders busy.
template <int R, int P, class W>
void few(const float* x, const W* weights, const W* next, int inputs, float* sums) {
    Floats<LANES> left[P][R] = {}, right[P][R] = {};
    constexpr int INPUTS = std::max(1, LINE / int(PANEL * sizeof(W))), LINES = std::max(1, int(PANEL * sizeof(W)) / LINE);
    const int64_t panel = int64_t(inputs) * PANEL;
    const auto add = [&](int k) __attribute__((always_inline)) {
#pragma GCC unroll 2
        for (int p = 0; p < P; p++) {
            const Floats<LANES> w0 = load<LANES>(weights + p * panel + k * PANEL), w1 = load<LANES>(weights + p * panel + k * PANEL + LANES);
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

template <class W> using Few = void (*)(const float*, const W*, const W*, int, float*);
template <class W, int R = TILE> Few<W> few_of(int rows, int panels) {
    if constexpr (R > 1) if (rows != R) return few_of<W, R - 1>(rows, panels);
    if constexpr (R <= FEW) if (panels == 2) return few<R, 2, W>;
    return few<R, 1, W>;
}

// What is done with a layer's rows before, and with its sums after. Modulations are rows of a table: `rows` says which.
struct Around {
    const int64_t* rows;
    int64_t stride;
    const float *shift, *scale;      // null, or x becomes shift + scale · normalised x
    const float *gate, *residual;    // null, or the output becomes residual + gate · output
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
    const W* weights;                // [O / PANEL][I][PANEL]
    const float *scale, *bias;       // scale: null, or of each output
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
                    const float *shift = around.shift + around.rows[r] * around.stride, *factor = around.scale + around.rows[r] * around.stride;
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
                if (groups.count == 1) few_of<W>(rows, count)(packed, block, block + int64_t(count) * inputs * PANEL, inputs, sums);
                else many(groups, packed, block, inputs, sums);
                for (int q = 0; q < count; q++) finish(sums + q * rows * PANEL, out, rows, (p + q) * PANEL, around);
            }
        }
    }

    // sums[rows][PANEL] of the outputs from `first` on.
    void finish(const float* sums, float* out, int rows, int first, const Around& around) const {
        const auto some = [](const float* from, int count) __attribute__((always_inline)) {
            if (count == LANES) return load<LANES>(from);
            Floats<LANES> found{};
            std::memcpy(&found, from, sizeof(float) * count);
            return found;
        };
        for (int o = 0; o < PANEL && first + o < outputs; o += LANES) {
            const int count = std::min(LANES, outputs - first - o), at = first + o;
            for (int r = 0; r < rows; r++) {
                Floats<LANES> found = load<LANES>(sums + r * PANEL + o);
                if (scale) found *= some(scale + at, count);
                found += some(bias + at, count);
                if (around.gelu) found = gelu<LANES>(found);
                const int64_t place = int64_t(r) * outputs + at;
                if (around.gate) {
                    const Floats<LANES> gate = some(around.gate + around.rows[r] * around.stride + at, count);
                    found = some(around.residual + place, count) + gate * found;
                }
                if (count == LANES) store<LANES>(out + place, found);
                else std::memcpy(out + place, &found, sizeof(float) * count);
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

// ---- attention ----

// The totals of eight chunks, side by side. Shuffles within halves of a register first: those are the cheap ones.
inline Chunk totals(const Chunk (&v)[EIGHT]) {
    const auto pair = [](Chunk a, Chunk b) {
        return __builtin_shuffle(a, b, Ints<EIGHT>{0, 8, 1, 9, 4, 12, 5, 13}) + __builtin_shuffle(a, b, Ints<EIGHT>{2, 10, 3, 11, 6, 14, 7, 15});
    };
    const auto four = [](Chunk a, Chunk b) {
        return __builtin_shuffle(a, b, Ints<EIGHT>{0, 1, 8, 9, 4, 5, 12, 13}) + __builtin_shuffle(a, b, Ints<EIGHT>{2, 3, 10, 11, 6, 7, 14, 15});
    };
    const Chunk low = four(pair(v[0], v[1]), pair(v[2], v[3])), high = four(pair(v[4], v[5]), pair(v[6], v[7]));
    return __builtin_shuffle(low, high, Ints<EIGHT>{0, 1, 2, 3, 8, 9, 10, 11}) + __builtin_shuffle(low, high, Ints<EIGHT>{4, 5, 6, 7, 12, 13, 14, 15});
}

// query[width] · keys[count][width] of up to eight entries, −∞ where there are none.
template <class W>
inline Chunk score(const float* query, const W* keys, int width, int count) {
    Chunk sums[EIGHT] = {};
    const int whole = width / EIGHT * EIGHT;
    for (int entry = 0; entry < count; entry++) {
        const W* key = keys + entry * width;
        for (int k = 0; k < whole; k += EIGHT) sums[entry] += load<EIGHT>(query + k) * load<EIGHT>(key + k);
        for (int k = whole; k < width; k++) sums[entry][0] += query[k] * widened(key[k]);
    }
    Chunk found = totals(sums);
    for (int entry = count; entry < EIGHT; entry++) found[entry] = -INFINITY;
    return found;
}

// Adds shares[count] · values[count][width], C chunks of each value, to out.
template <int C, class W>
void gather(const float* shares, const W* values, int width, int count, float* out) {
    Chunk sums[C];
    for (int c = 0; c < C; c++) sums[c] = load<EIGHT>(out + c * EIGHT);
    for (int entry = 0; entry < count; entry++)
        for (int c = 0; c < C; c++) sums[c] += load<EIGHT>(values + entry * width + c * EIGHT) * shares[entry];
    for (int c = 0; c < C; c++) store<EIGHT>(out + c * EIGHT, sums[c]);
}

template <class W> using Gather = void (*)(const float*, const W*, int, int, float*);
template <class W, int C = MOST_CHUNKS> Gather<W> gather_of(int chunks) {
    if constexpr (C > 1) if (chunks != C) return gather_of<W, C - 1>(chunks);
    return gather<C, W>;
}

// Asks for the lines that come BYTES_AHEAD after these numbers: of the same head, or, behind its end, of what is read next.
template <class W>
inline void ask(const W* numbers, int count, const W* end, const W* next) {
    for (int at = 0; at < count; at += LINE / int(sizeof(W))) {
        const W* ahead = numbers + at + BYTES_AHEAD / int(sizeof(W));
        __builtin_prefetch(ahead < end ? ahead : next + (ahead - end), 0, 2);
    }
}

// One head of one row: out[K] from query[K] and the filled entries of keys and values, [S][K] each; `next` is the next head's keys.
template <class W>
void attend_head(const float* query, const W* keys, const W* values, const W* next, float* out, int width, int filled, float* scores) {
    const float scale = 1.0f / std::sqrt(float(width));
    const int64_t numbers = int64_t(filled) * width;
    Chunk highest = Chunk{} - INFINITY, sums{};
    for (int start = 0; start < filled; start += EIGHT) {
        const int count = std::min(EIGHT, filled - start);
        const W* block = keys + int64_t(start) * width;
        ask(block, count * width, keys + numbers, values);
        const Chunk found = score(query, block, width, count) * scale;
        store<EIGHT>(scores + start, found);
        highest = found > highest ? found : highest;
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
        ask(block, count * width, values + numbers, next);
        for (int chunk = 0; chunk < chunks; chunk += MOST_CHUNKS) {
            const int k = chunk * EIGHT;
            gather_of<W>(std::min(MOST_CHUNKS, chunks - chunk))(scores + start, block + k, width, count, out + k);
        }
        for (int k = chunks * EIGHT; k < width; k++)
            for (int entry = 0; entry < count; entry++) out[k] += widened(block[entry * width + k]) * scores[start + entry];
    }
    for (int k = 0; k < width; k++) out[k] /= all;
}

// Normalises queries and keys, writes keys and values of this entry into the cache, and attends to all up to it.
template <class W>
void attend(const float* qkv, const float* weight, const float* bias, float eps, W* keys, W* values, float* out, int rows, int heads,
            int entries, int width, int entry, int threads) {
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
            for (int k = 0; k < width; k++) narrow(normed[width + k], keys + place + k), narrow(row[2 * all + k], values + place + k);
            attend_head(normed.data(), keys + head, values + head, keys + head + int64_t(entries) * width, out + int64_t(at) * width,
                        width, entry + 1, scores.data());
        }
    }
}

}  // namespace

extern "C" {

int rarkit_panel() { return PANEL; }

// x (R, I), weights [O / PANEL][I][PANEL], scale (O,) or null, bias (O,), out and residual (R, O); modulations (U, I or O) with a
// stride from row to row, of which each of the R rows has its own: table_rows (R,).
#define LINEAR(NAME, W)                                                                                                                \
    void rarkit_linear_##NAME(const float* x, const void* weights, const float* scale, const float* bias, float* out, int rows,        \
                              int inputs, int outputs, int gelu, float eps, const int64_t* table_rows, int64_t stride,                 \
                              const float* shift, const float* factor, const float* gate, const float* residual, int threads) {        \
        const Around around{table_rows, stride, shift, factor, gate, residual, eps, gelu};                                             \
        linear(Linear<W>{static_cast<const W*>(weights), scale, bias, inputs, outputs}, x, out, rows, around, threads);                \
    }
LINEAR(float32, float)
LINEAR(bfloat16, BFloat16)
LINEAR(int8, int8_t)

// qkv (R, 3, N, K), weight and bias (2, K) of the norms of queries and keys, keys and values (R, N, S, K), out (R, N, K).
#define ATTEND(NAME, W)                                                                                                                \
    void rarkit_attend_##NAME(const float* qkv, const float* weight, const float* bias, float eps, void* keys, void* values,           \
                              float* out, int rows, int heads, int entries, int width, int entry, int threads) {                       \
        attend(qkv, weight, bias, eps, static_cast<W*>(keys), static_cast<W*>(values), out, rows, heads, entries, width, entry,        \
               threads);                                                                                                               \
    }
ATTEND(float32, float)
ATTEND(bfloat16, BFloat16)
ATTEND(float8_e4m3fn, Float8)

}
