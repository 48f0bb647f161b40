// SIMD vectors of floats, and what is done with whole vectors, in GCC's vector extensions.

#pragma once

#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>
#if defined(__AVX__)
#include <immintrin.h>
#endif

namespace {

// LANES floats in a vector; a product keeps ROWS x PANEL vectors of sums in registers.
#if defined(__AVX512F__)
constexpr int LANES = 16, ROWS = 8, PANEL = 3; // 32 registers: 8 x 3 sums, 3 weights, 1 broadcast
#elif defined(__AVX__)
constexpr int LANES = 8, ROWS = 4, PANEL = 3; // 16 registers: 4 x 3, 3, 1
#elif defined(__aarch64__)
constexpr int LANES = 4, ROWS = 4, PANEL = 6; // 32 registers: 4 x 6, 6, 1
#else
constexpr int LANES = 4, ROWS = 4, PANEL = 2;
#endif
static_assert(LANES % ROWS == 0); // tiles have whole vectors of rows, and products take ROWS at once

typedef float vec __attribute__((vector_size(LANES * sizeof(float)), may_alias));
typedef int32_t ivec __attribute__((vector_size(LANES * sizeof(float)), may_alias));

inline vec load(const float *p) { return *reinterpret_cast<const vec *>(p); }
inline void store(float *p, vec v) { *reinterpret_cast<vec *>(p) = v; }

// NaN passes through both, as in torch; the slope of relu at 0 is 0.
inline vec relu(vec x) { return vec{} > x ? vec{} : x; }
inline vec relu_gradient(vec relu_x, vec g) { return relu_x <= vec{} ? vec{} : g; }

// One bit for each lane of a vector.
typedef std::conditional_t<(LANES > 8), uint16_t, uint8_t> bits;

// The lanes in which relu has slope 1: x > 0, or NaN.
inline bits slopes(vec x) {
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask((__m512)x, _mm512_setzero_ps(), _CMP_NLE_UQ);
#elif defined(__AVX__)
    return bits(_mm256_movemask_ps(_mm256_cmp_ps((__m256)x, _mm256_setzero_ps(), _CMP_NLE_UQ)));
#else
    unsigned mask = 0;
    for (int i = 0; i < LANES; ++i) mask |= unsigned(!(x[i] <= 0)) << i;
    return bits(mask);
#endif
}

// One bit for each lane of V vectors, in order: x > 0.
template <int V> inline uint64_t positive(const vec (&x)[V]) {
#if defined(__AVX2__) && !defined(__AVX512F__)
    if constexpr (V > 4) {
        vec low[4], high[V - 4];
        for (int v = 0; v < V; ++v) (v < 4 ? low[v] : high[v - 4]) = x[v];
        return positive(low) | positive(high) << 32;
    } else { // saturation to fewer bits keeps the sign
        const auto in = [&](int v) { return v < V ? (__m256i)x[v] : _mm256_setzero_si256(); };
        const __m256i low = _mm256_packs_epi32(in(0), in(1)), high = _mm256_packs_epi32(in(2), in(3));
        const __m256i bytes = _mm256_packs_epi16(low, high), zero = _mm256_setzero_si256();
        const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        const __m256i sorted = _mm256_permutevar8x32_epi32(bytes, order);
        return uint32_t(_mm256_movemask_epi8(_mm256_cmpgt_epi8(sorted, zero)));
    }
#else
    uint64_t found = 0;
    for (int v = 0; v < V; ++v) found |= uint64_t(slopes(x[v])) << (v * LANES);
    return found;
#endif
}

template <int... I> constexpr ivec lane_bits(std::integer_sequence<int, I...>) {
    return ivec{(1 << I)...};
}

// x in the lanes whose bit is set, 0 in the others.
inline vec only(bits set, vec x) {
#if defined(__AVX512F__)
    return (vec)_mm512_maskz_mov_ps(set, (__m512)x);
#else
    constexpr ivec lane = lane_bits(std::make_integer_sequence<int, LANES>());
    const ivec all = ivec{} + int32_t(set);
    return (vec)((ivec)x & ((all & lane) == lane));
#endif
}

// Fetches the cache lines of `rows` rows of `columns` floats that will be needed soon.
inline void prefetch(const float *p, int64_t rows, int64_t stride, int64_t columns) {
    for (int64_t r = 0; r < rows; ++r, p += stride)
        for (int64_t c = 0; c < columns; c += 16) __builtin_prefetch(p + c, 1);
}

template <int... I> inline vec shuffle(vec a, vec b) {
#if defined(__clang__) || __GNUC__ >= 12
    return __builtin_shufflevector(a, b, I...);
#else
    typedef int indices __attribute__((vector_size(LANES * sizeof(int))));
    return __builtin_shuffle(a, b, indices{I...});
#endif
}

// Lane i of the result: a's sum over the lanes i and i + D, or b's if bit D of i is set.
template <int D, int... I> inline vec add_pairs(vec a, vec b, std::integer_sequence<int, I...>) {
    return shuffle<(I & D ? LANES + I : I)...>(a, b) +
           shuffle<(I & D ? LANES + I - D : I + D)...>(a, b);
}

// Lane i of the result is the sum over all lanes of v[i].
template <int D = 1> inline vec sum_lanes(vec (&v)[LANES]) {
    if constexpr (D == LANES) {
        return v[0];
    } else {
#pragma GCC unroll 16
        for (int i = 0; i < LANES / (2 * D); ++i)
            v[i] = add_pairs<D>(v[2 * i], v[2 * i + 1], std::make_integer_sequence<int, LANES>());
        return sum_lanes<2 * D>(v);
    }
}

constexpr int64_t padded(int64_t n) { return (n + LANES - 1) / LANES * LANES; }

template <int V> struct Width {
    static constexpr int value = V;
};

template <int V, class F> inline void with_width(int64_t v, F f) {
    if (v == V) f(Width<V>());
    else if constexpr (V > 1) with_width<V - 1>(v, f);
}

// Calls f(Width<v>, first column) for panels of v <= MOST vectors that cover `columns`, about
// equally wide.
template <int MOST, class F> inline void for_panels(int64_t columns, F f) {
    const int64_t vectors = columns / LANES, panels = (vectors + MOST - 1) / MOST;
    for (int64_t i = 0, start = 0; i < panels; ++i) {
        const int64_t v = (vectors - start + panels - i - 1) / (panels - i);
        with_width<MOST>(v, [&](auto width) { f(width, start * LANES); });
        start += v;
    }
}

// out = z + sum over j of coefficient[j] v[j], all of length n (whole vectors)
inline void combine(float *out, const float *z, int64_t n, const std::vector<float> &coefficient,
                    const float *v) {
    for (int64_t i = 0; i < n; i += LANES) {
        vec sum = load(z + i);
        for (size_t j = 0; j < coefficient.size(); ++j)
            if (coefficient[j] != 0) sum += coefficient[j] * load(v + j * n + i);
        store(out + i, sum);
    }
}

} // namespace
