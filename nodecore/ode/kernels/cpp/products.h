// Products of matrices whose rows are samples, and whose columns are whole vectors.

#pragma once

#include "vectors.h"

namespace {

// sum[n][v] += x[n * stride] w[v]: a column of N numbers times a row of V vectors.
template <int N, int V>
inline __attribute__((always_inline)) void add_outer(vec (&sum)[N][V], const float *x,
                                                     int64_t stride, const float *w) {
    vec row[V];
#pragma GCC unroll 6
    for (int v = 0; v < V; ++v) row[v] = load(w + v * LANES);
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n)
#pragma GCC unroll 6
        for (int v = 0; v < V; ++v) sum[n][v] += x[n * stride] * row[v];
}

// out[row][column] = finish(start[column] + sum over k of x[row][k] w[k][column])
// x (rows, depth), w (depth, columns); `finish` gets ROWS x V sums in registers and stores them.
template <class Finish>
inline void product(const float *x, const float *w, int64_t rows, int64_t depth, int64_t columns,
                    const float *start, Finish finish) {
    for_panels<PANEL>(columns, [&](auto panel, int64_t column) {
        constexpr int V = decltype(panel)::value;
        for (int64_t row = 0; row < rows; row += ROWS) {
            vec sum[ROWS][V];
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 6
                for (int v = 0; v < V; ++v) sum[r][v] = load(start + column + v * LANES);
            const float *xs = x + row * depth, *ws = w + column;
            for (int64_t k = 0; k < depth; ++k, ++xs, ws += columns)
                add_outer(sum, xs, depth, ws);
            finish(sum, row * columns + column, column);
        }
    });
}

// out[row][c] = start[row][c] + sum over k of x[row][k] w[c][k]: few outputs, long sums.
// SIMD lanes run along k; LANES sums are then turned into one vector. C = 0: channels at run time.
template <int C>
inline void narrow_product(const float *x, const float *w, const float *start, float *out,
                           int64_t rows, int64_t depth, int64_t channels) {
    if (C) channels = C;
    for (int64_t first = 0; first < rows * channels; first += LANES) {
        vec sum[LANES] = {};
        const float *xs = x + first / channels * depth;
        for (int64_t k = 0; k < depth; k += LANES) {
#pragma GCC unroll 16
            for (int i = 0; i < LANES; ++i) {
                const int64_t row = C ? i / (C ? C : 1) : (first + i) / channels - first / channels;
                const int64_t c = C ? i % (C ? C : 1) : (first + i) % channels;
                sum[i] += load(xs + row * depth + k) * load(w + c * depth + k);
            }
        }
        store(out + first, load(start + first) + sum_lanes(sum));
    }
}

inline void narrow(const float *x, const float *w, const float *start, float *out, int64_t rows,
                   int64_t depth, int64_t channels) {
    if (channels == 1) return narrow_product<1>(x, w, start, out, rows, depth, channels);
    if (channels == 2) return narrow_product<2>(x, w, start, out, rows, depth, channels);
    narrow_product<0>(x, w, start, out, rows, depth, channels);
}

template <int N, int V>
inline void outer_block(const float *x, const float *g, float *out, int64_t rows, int64_t depth,
                        int64_t columns) {
    vec sum[N][V] = {};
    for (int64_t row = 0; row < rows; ++row, x += depth, g += columns) add_outer(sum, x, 1, g);
#pragma GCC unroll 8
    for (int k = 0; k < N; ++k)
#pragma GCC unroll 6
        for (int v = 0; v < V; ++v) {
            float *p = out + k * columns + v * LANES;
            store(p, load(p) + sum[k][v]);
        }
}

// out[k][column] += sum over rows of x[row][k] g[row][column]
inline void outer(const float *x, const float *g, float *out, int64_t rows, int64_t depth,
                  int64_t columns) {
    for_panels<PANEL>(columns, [&](auto panel, int64_t column) {
        constexpr int V = decltype(panel)::value;
        int64_t k = 0;
        auto blocks = [&](auto n) {
            constexpr int N = decltype(n)::value;
            for (; k + N <= depth; k += N)
                outer_block<N, V>(x + k, g + column, out + k * columns + column, rows, depth,
                                  columns);
        };
        blocks(Width<ROWS>());
        if constexpr (ROWS > 4) blocks(Width<4>());
        blocks(Width<2>());
        blocks(Width<1>());
    });
}

} // namespace
