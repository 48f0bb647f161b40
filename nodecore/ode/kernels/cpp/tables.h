// The vector field of a convolution on one channel, by look-ups in tables instead of products.
//
// A first hidden map is relu(a_c z + b_c), a piecewise linear function of the one number z at its
// position, and so is all that is linear in it. With i the interval of z between the sorted breaks
// -b_c / a_c, the second layer before its relu is
//
//     u_d(p) = bias_d + sum over taps q of alpha[i][q][d] + beta[i][q][d] (z(p + q) - centre[i]),
//
// i that of z(p + q): one look-up, one product and two sums for each tap and unit. A tap outside
// the image reads a row of zeros. The tables depend on the weights alone.
//
// Backward, with g(p) = dL/dout(p), s_d(p) the slope of the second relu and i that of z(p'),
//
//     dz(p')    = sum over q, d of g(p' - q) s_d(p' - q) w3_d beta[i][q][d]
//     S0[i][q][d] += g(p' - q) s_d(p' - q),   S1[i][q][d] += g(p' - q) s_d(p' - q) (z(p') - centre[i]),
//
// with the positions sorted by interval, so that a row of bins and of w3 beta stays in registers.
// Sums of the bins over the intervals in which a first unit is active give its gradients, once.
//
// Between forward and backward a position and evaluation costs 4 bytes for its state and one bit
// for each unit of the second layer (12 bytes for 96 units). Hidden maps are never kept.

#pragma once

#include <cfloat>
#include <climits>
#include <cmath>
#include <numeric>
#include <vector>

#include "problem.h"

namespace {

// Floats in their order as whole numbers: comparisons that no mode for denormals can change.
inline int32_t to_key(float x) {
    int32_t i;
    std::memcpy(&i, &x, sizeof i);
    return i ^ ((i >> 31) & INT_MAX);
}
inline float from_key(int32_t key) {
    key ^= (key >> 31) & INT_MAX;
    float x;
    std::memcpy(&x, &key, sizeof x);
    return x;
}
inline ivec to_keys(vec x) {
    const ivec i = (ivec)x;
    return i ^ ((i >> 31) & INT_MAX);
}

// How a first unit depends on z: active above its break, below it, everywhere, or nowhere.
enum class Unit { RISING, FALLING, CONSTANT, DEAD };

inline Unit kind_of(float a, float b) {
    if (!std::isfinite(a) || !std::isfinite(b)) return Unit::DEAD; // then all is NaN anyway
    return a > 0 ? Unit::RISING : a < 0 ? Unit::FALLING : b > 0 ? Unit::CONSTANT : Unit::DEAD;
}

// The key of the largest float at or below the break of a x + b: right above it the sign changes.
// Products of two floats are exact in double, so is the comparison. All floats are searched: a
// quotient would be out of range for tiny a, and neighbours are many where denormals count as 0.
inline int32_t break_key(float a, float b) {
    int64_t below = to_key(-INFINITY), above = to_key(INFINITY);
    while (above - below > 1) {
        const int64_t middle = below + (above - below) / 2;
        const bool active = double(a) * double(from_key(int32_t(middle))) > -double(b);
        (active == (a > 0) ? above : below) = middle;
    }
    return int32_t(below);
}

class Tables {
    // Vectors of units in registers at once, forward and backward.
    static constexpr int FORWARD = LANES == 8 ? 12 : 6, BACKWARD = LANES == 16 ? 6 : 4;
    static constexpr int64_t G_ROW = BACKWARD * LANES;

  public:
    struct Shape : Tiling {
        static constexpr int64_t POSITIONS = 2048; // of a tile: its gradients stay in the L2 cache
        int64_t height, width, taps, plane, width1, width2, units, intervals;

        explicit Shape(const Problem &p)
            : Tiling(p, std::clamp<int64_t>(POSITIONS / plane_of(p), 1, 128), 1), height(p.height),
              width(p.width), taps(p.taps), plane(plane_of(p)), width1(p.width1),
              width2(p.width2), units(padded(p.width2)), intervals(p.width1 + 1) {}
        // Positions with the border that taps may reach.
        static int64_t plane_of(const Problem &p) {
            return (p.taps == 9 ? p.height + 2 : 1) * (p.width + 2);
        }
        int64_t positions() const { return samples * sample; }
        int64_t cells() const { return taps * units; } // of an interval
        int64_t vectors() const { return units / LANES; }
        int64_t extra() const { return (state() * slopes_bytes() + 3) / 4; }
        int64_t slopes_bytes() const { return vectors() * int64_t(sizeof(bits)); }
        void copy_extra(const float *from, float *to, int64_t sample_) const {
            const int64_t bytes = sample * slopes_bytes();
            std::memcpy(reinterpret_cast<char *>(to) + sample_ * bytes,
                        reinterpret_cast<const char *>(from) + sample_ * bytes, bytes);
        }
        int64_t tap_offset(int64_t tap) const {
            return taps == 9 ? (tap / 3 - 1) * (width + 2) + tap % 3 - 1 : tap - 1;
        }
    };

    // The tables of member m. Rows lie by panel of units, interval, tap.
    struct Member {
        float *table;   // alpha and beta side by side; one more row, of zeros, for what lies outside
        float *w3_beta; // for the backward pass
        float *w2;      // [unit in][tap][unit out], padded
        float *bias2, *w3, *centre;
        int32_t *keys;  // of the breaks, ascending
        int32_t *order; // the units that they belong to
        int64_t breaks;
        float bias3;

        static int64_t floats(const Shape &s) {
            return 2 * (s.intervals + 1) * s.cells() + s.intervals * s.cells() +
                   s.width1 * s.cells() + 2 * s.units + 3 * Arena::rounded(s.intervals + 1);
        }
        Member() = default;
        Member(const Problem &q, const Shape &s, int64_t m, float *memory, bool backward) {
            table = memory, w3_beta = table + 2 * (s.intervals + 1) * s.cells();
            w2 = w3_beta + s.intervals * s.cells(), bias2 = w2 + s.width1 * s.cells();
            w3 = bias2 + s.units, centre = w3 + s.units;
            keys = reinterpret_cast<int32_t *>(centre + Arena::rounded(s.intervals + 1));
            order = keys + Arena::rounded(s.intervals + 1);
            const float *a = q.w1 + m * s.width1, *b = q.b1 + m * s.width1;
            copy_weights(q, s, m);
            sort_breaks(a, b, s.width1);
            fill(s, a, b, backward);
        }

      private:
        void copy_weights(const Problem &q, const Shape &s, int64_t m) {
            std::memset(w2, 0, (s.width1 * s.cells() + 2 * s.units) * sizeof(float));
            const float *from = q.w2 + m * s.taps * s.width1 * s.width2;
            for (int64_t c = 0; c < s.width1; ++c)
                for (int64_t tap = 0; tap < s.taps; ++tap) {
                    float *row = w2 + c * s.cells() + tap * s.units;
                    const float *at = from + tap * q.w2_tap + c * q.w2_in;
                    for (int64_t d = 0; d < s.width2; ++d) row[d] = at[d * q.w2_out];
                }
            std::copy_n(q.b2 + m * s.width2, s.width2, bias2);
            std::copy_n(q.w3 + m * s.width2, s.width2, w3);
            // A product hands on what is not finite, also where its unit is inactive.
            bias3 = q.b3[m] + zero_times(w2, s.width1 * s.cells() + 2 * s.units) +
                    zero_times(q.w1 + m * s.width1, s.width1) +
                    zero_times(q.b1 + m * s.width1, s.width1);
        }
        static float zero_times(const float *p, int64_t n) {
            float sum = 0;
            for (int64_t i = 0; i < n; ++i) sum += 0 * p[i];
            return sum;
        }

        void sort_breaks(const float *a, const float *b, int64_t width1) {
            std::vector<std::pair<int32_t, int32_t>> found;
            for (int64_t c = 0; c < width1; ++c) {
                const Unit kind = kind_of(a[c], b[c]);
                if (kind == Unit::RISING || kind == Unit::FALLING)
                    found.emplace_back(break_key(a[c], b[c]), int32_t(c));
            }
            std::sort(found.begin(), found.end());
            breaks = int64_t(found.size());
            for (int64_t i = 0; i < breaks; ++i) keys[i] = found[i].first, order[i] = found[i].second;
            // The point of an interval nearest to 0: values there are small where z is.
            for (int64_t i = 0; i <= breaks; ++i) {
                const float lower = i ? from_key(keys[i - 1] + 1) : -FLT_MAX;
                const float upper = i < breaks ? from_key(keys[i]) : FLT_MAX;
                centre[i] = std::clamp(lower > 0 ? lower : upper < 0 ? upper : 0.f, -FLT_MAX, FLT_MAX);
            }
        }

        // Slope and intercept of what the units active in an interval give, in double. Falling
        // units are added from the right, rising ones from the left: nothing is ever taken away.
        void fill(const Shape &s, const float *a, const float *b, bool backward) {
            const int64_t n = s.cells();
            static thread_local std::vector<double> memory;
            memory.assign(2 * n * (breaks + 2), 0.0);
            double *falling = memory.data(), *rising = falling + 2 * n * (breaks + 1);
            const auto add = [&](double *to, int64_t c) {
                const double slope = a[c], intercept = b[c];
                const float *w = w2 + c * n;
                for (int64_t i = 0; i < n; ++i) to[i] += slope * w[i], to[n + i] += intercept * w[i];
            };
            for (int64_t c = 0; c < s.width1; ++c)
                if (kind_of(a[c], b[c]) == Unit::CONSTANT) add(rising, c);
            for (int64_t i = breaks - 1; i >= 0; --i) {
                std::copy_n(falling + 2 * n * (i + 1), 2 * n, falling + 2 * n * i);
                if (a[order[i]] < 0) add(falling + 2 * n * i, order[i]);
            }
            for (int64_t i = 0; i <= breaks; ++i) {
                if (i && a[order[i - 1]] > 0) add(rising, order[i - 1]);
                fill_row(s, i, rising, falling + 2 * n * i, backward);
            }
            for_panels<FORWARD>(s.units, [&](auto panel, int64_t unit) {
                const int64_t row = 2 * s.taps * decltype(panel)::value * LANES;
                std::memset(table + 2 * unit * s.taps * (s.intervals + 1) + s.intervals * row, 0,
                            row * sizeof(float));
            });
        }

        void fill_row(const Shape &s, int64_t interval, const double *x, const double *y,
                      bool backward) {
            const int64_t n = s.cells();
            const double z = centre[interval];
            for_panels<FORWARD>(s.units, [&](auto panel, int64_t unit) {
                constexpr int64_t V = decltype(panel)::value * LANES;
                float *out = table + 2 * unit * s.taps * (s.intervals + 1) + interval * 2 * s.taps * V;
                for (int64_t tap = 0; tap < s.taps; ++tap, out += 2 * V)
                    for (int64_t d = 0; d < V; ++d) {
                        const int64_t i = tap * s.units + unit + d;
                        const double slope = x[i] + y[i];
                        out[d] = float(x[n + i] + y[n + i] + slope * z), out[V + d] = float(slope);
                    }
            });
            if (!backward) return;
            for_panels<BACKWARD>(s.units, [&](auto panel, int64_t unit) {
                constexpr int64_t V = decltype(panel)::value * LANES;
                float *out = w3_beta + unit * s.taps * s.intervals + interval * s.taps * V;
                for (int64_t tap = 0; tap < s.taps; ++tap, out += V)
                    for (int64_t d = 0; d < V; ++d) {
                        const int64_t i = tap * s.units + unit + d;
                        out[d] = float((x[i] + y[i]) * w3[unit + d]);
                    }
            });
        }
    };

    // A block's bins, S0 and S1 side by side, and the gradient of b3 behind them.
    static int64_t sums(const Shape &s) { return 2 * s.intervals * s.cells() + 16; }
    static int64_t scratch(const Shape &s) {
        const int64_t n = s.state(), map = s.samples * s.plane;
        return 6 * (n + 16) + 2 * (map + 16) + map * G_ROW + (n + LANES) * LANES +
               Arena::rounded(s.intervals + 1) + 64;
    }

    Tables(const Shape &s, const Member &w, Arena &arena, bool backward) : s_(s), w_(w) {
        const int64_t n = s.state(), map = s.samples * s.plane;
        at_ = integers(arena.take(n)), interval_ = integers(arena.take(n));
        sorted_ = integers(arena.take(n)), sorted_at_ = integers(arena.take(n));
        sorted_z_ = arena.take(n);
        start_ = integers(arena.take(s.intervals + 1));
        row_ = integers(arena.take(map)), z_ = arena.take_zeros(map);
        if (backward)
            gradient_ = arena.take_zeros(map * G_ROW), dz_ = arena.take((n + LANES) * LANES);
        std::fill_n(row_, map, int32_t(s.intervals)); // the row of zeros
        for (int64_t i = 0; i < s.positions(); ++i) {
            const int64_t y = i / s.width % s.height, x = i % s.width, sample = i / s.sample;
            at_[i] = int32_t(sample * s.plane + (s.taps == 9 ? (y + 1) * (s.width + 2) : 0) + x + 1);
        }
    }

    // out = f(y); the slopes of the second relu go to `kept`, if there is such.
    void evaluate(const float *y, float *out, float *kept) {
        locate(y);
        for_panels<FORWARD>(s_.units, [&](auto panel, int64_t unit) {
            constexpr int V = decltype(panel)::value;
            if (s_.taps == 9) look_up<V, 9>(unit, out, reinterpret_cast<bits *>(kept));
            else look_up<V, 3>(unit, out, reinterpret_cast<bits *>(kept));
        });
    }

    // u = f'(y)^T g, and the gradients of the parameters added to the bins. `kept`: what evaluate
    // left.
    void gradient(const float *y, const float *kept, const float *, const float *g, float *u,
                  float *sums) {
        locate(y);
        sort();
        std::memset(dz_, 0, (s_.positions() + LANES) * LANES * sizeof(float));
        for_panels<BACKWARD>(s_.units, [&](auto panel, int64_t unit) {
            constexpr int V = decltype(panel)::value;
            spread<V>(reinterpret_cast<const bits *>(kept) + unit / LANES, g);
            collect<V>(unit, sums + 2 * unit * s_.taps * s_.intervals);
        });
        for (int64_t k = 0; k < s_.positions(); k += LANES) {
            vec sum[LANES];
            for (int i = 0; i < LANES; ++i) sum[i] = load(dz_ + (k + i) * LANES);
            const vec total = sum_lanes(sum);
            const int64_t count = std::min<int64_t>(LANES, s_.positions() - k);
            for (int64_t i = 0; i < count; ++i) u[sorted_[k + i]] = total[i];
        }
        std::fill(u + s_.positions(), u + s_.state(), 0.f);
    }

    void begin(float *) const {}
    // The gradient of b3 from the sum of all g.
    void finish(const float *sum_g, float *sums) const {
        double sum = 0;
        for (int64_t i = 0; i < s_.positions(); ++i) sum += sum_g[i];
        sums[2 * s_.intervals * s_.cells()] += float(sum);
    }

    static void reduce(const Problem &q, const Shape &s, const Member &w, int64_t m, float *first,
                       int64_t per_block);

  private:
    const Shape &s_;
    const Member &w_;
    int32_t *at_;         // of a position, with its border
    int32_t *interval_;   // of a position
    int32_t *sorted_;     // positions by interval, `start_` where an interval begins
    int32_t *sorted_at_;  // the same, as rows of gradient_
    int32_t *start_, *row_; // row_: of the table, with borders
    float *z_, *sorted_z_;  // z - centre, with borders and sorted
    float *gradient_;       // with borders, [position][unit of a panel]: g where the slope is 1
    float *dz_;             // [position, sorted][lane]: sums of these are dz

    static int32_t *integers(float *p) { return reinterpret_cast<int32_t *>(p); }

    // The interval of each position: how many breaks lie below.
    void locate(const float *y) {
        constexpr int64_t MANY = 4;
        const int64_t n = s_.state() / LANES;
        for (int64_t i = 0; i + MANY <= n; i += MANY) count<MANY>(y, i * LANES);
        for (int64_t i = n / MANY * MANY; i < n; ++i) count<1>(y, i * LANES);
        for (int64_t i = 0; i < s_.positions(); ++i) {
            row_[at_[i]] = interval_[i];
            z_[at_[i]] = y[i] - w_.centre[interval_[i]];
        }
    }
    template <int N> void count(const float *y, int64_t i) {
        ivec key[N], below[N] = {};
        for (int j = 0; j < N; ++j) key[j] = to_keys(load(y + i + j * LANES));
        for (int64_t c = 0; c < w_.breaks; ++c) {
            const ivec bound = ivec{} + w_.keys[c];
            for (int j = 0; j < N; ++j) below[j] -= key[j] > bound;
        }
        for (int j = 0; j < N; ++j)
            *reinterpret_cast<ivec *>(interval_ + i + j * LANES) = below[j];
    }

    template <int V, int TAPS> void look_up(int64_t unit, float *out, bits *kept) {
        constexpr int64_t TAP = 2 * V * LANES, ROW = TAPS * TAP;
        const float *table = w_.table + 2 * unit * TAPS * (s_.intervals + 1);
        const float *bias2 = w_.bias2 + unit, *w3 = w_.w3 + unit;
        int64_t offset[TAPS];
        for (int q = 0; q < TAPS; ++q) offset[q] = s_.tap_offset(q);
        const int64_t n = s_.positions(), vectors = s_.vectors();
        for (int64_t i = 0; i < n; i += LANES) {
            vec sum[LANES] = {};
            const int64_t count = std::min<int64_t>(LANES, n - i);
            for (int64_t lane = 0; lane < count; ++lane) {
                const int32_t *row = row_ + at_[i + lane];
                const float *z = z_ + at_[i + lane];
                vec u[V];
#pragma GCC unroll 12
                for (int v = 0; v < V; ++v) u[v] = load(bias2 + v * LANES);
#pragma GCC unroll 1
                for (int q = 0; q < TAPS; ++q) {
                    const float *t = table + row[offset[q]] * ROW + q * TAP;
                    const vec zs = vec{} + z[offset[q]];
#pragma GCC unroll 12
                    for (int v = 0; v < V; ++v)
                        u[v] += load(t + v * LANES) + zs * load(t + (V + v) * LANES);
                }
                if (kept) {
                    bits *to = kept + (i + lane) * vectors + unit / LANES;
#pragma GCC unroll 12
                    for (int v = 0; v < V; ++v) to[v] = slopes(u[v]);
                }
                vec total = relu(u[0]) * load(w3);
#pragma GCC unroll 12
                for (int v = 1; v < V; ++v) total += relu(u[v]) * load(w3 + v * LANES);
                sum[lane] = total;
            }
            const vec total = sum_lanes(sum);
            store(out + i, unit ? load(out + i) + total : w_.bias3 + total);
        }
    }

    // Positions sorted by their interval.
    void sort() {
        const int64_t n = s_.positions();
        std::fill_n(start_, s_.intervals + 1, 0);
        for (int64_t i = 0; i < n; ++i) ++start_[interval_[i] + 1];
        std::partial_sum(start_, start_ + s_.intervals + 1, start_);
        next_.assign(start_, start_ + s_.intervals);
        for (int64_t i = 0; i < n; ++i) {
            const int32_t to = next_[interval_[i]]++;
            sorted_[to] = int32_t(i), sorted_at_[to] = at_[i], sorted_z_[to] = z_[at_[i]];
        }
    }
    std::vector<int32_t> next_;

    // gradient_ of V vectors of units: g in those with a slope.
    template <int V> void spread(const bits *kept, const float *g) {
        const int64_t vectors = s_.vectors();
        for (int64_t i = 0; i < s_.positions(); ++i, kept += vectors) {
            float *to = gradient_ + at_[i] * G_ROW;
            const vec gs = vec{} + g[i];
#pragma GCC unroll 12
            for (int v = 0; v < V; ++v) store(to + v * LANES, only(kept[v], gs));
        }
    }

    template <int V> void collect(int64_t unit, float *bins) {
        constexpr int64_t TAP = V * LANES;
        const float *w3_beta = w_.w3_beta + unit * s_.taps * s_.intervals;
        for (int64_t i = 0; i <= w_.breaks; ++i) {
            const int64_t begin = start_[i], end = start_[i + 1];
            if (begin == end) continue;
            for (int64_t tap = 0; tap < s_.taps; ++tap) {
                const float *weight = w3_beta + (i * s_.taps + tap) * TAP;
                const float *shifted = gradient_ - s_.tap_offset(tap) * G_ROW;
                vec w[V], s0[V] = {}, s1[V] = {};
#pragma GCC unroll 12
                for (int v = 0; v < V; ++v) w[v] = load(weight + v * LANES);
                for (int64_t k = begin; k < end; ++k) {
                    const float *g = shifted + sorted_at_[k] * G_ROW;
                    const vec z = vec{} + sorted_z_[k];
                    vec dz = load(dz_ + k * LANES);
#pragma GCC unroll 12
                    for (int v = 0; v < V; ++v) {
                        const vec gv = load(g + v * LANES);
                        s0[v] += gv, s1[v] += gv * z, dz += gv * w[v];
                    }
                    store(dz_ + k * LANES, dz);
                }
                float *to = bins + 2 * (i * s_.taps + tap) * TAP;
#pragma GCC unroll 12
                for (int v = 0; v < V; ++v) {
                    store(to + v * LANES, load(to + v * LANES) + s0[v]);
                    store(to + TAP + v * LANES, load(to + TAP + v * LANES) + s1[v]);
                }
            }
        }
    }
};

// From the bins to the gradients of the parameters, in double. T0 and T1 are the sums of g s_d and
// g s_d z over all positions at which first unit c is active:
//     dW2 = w3 (a_c T1 + b_c T0),  da_c = sum of W2 w3 T1,  db_c = sum of W2 w3 T0
class Reduction {
    const Problem &q_;
    const Tables::Shape &s_;
    const Tables::Member &w_;
    const int64_t m_, n_;
    std::vector<double> bins_, total_, dw3_; // [interval][T0 | T1]; a running sum of them

  public:
    Reduction(const Problem &q, const Tables::Shape &s, const Tables::Member &w, int64_t m)
        : q_(q), s_(s), w_(w), m_(m), n_(s.cells()), bins_(2 * n_ * (w.breaks + 1)),
          total_(2 * n_), dw3_(s.units) {}

    double *interval(int64_t i) { return bins_.data() + 2 * n_ * i; }

    void run(double db3) {
        const float *a = q_.w1 + m_ * s_.width1, *b = q_.b1 + m_ * s_.width1;
        for (int64_t i = w_.breaks; i > 0; --i) { // active above the break
            add(i);
            if (a[w_.order[i - 1]] > 0) finish(w_.order[i - 1], a, b);
        }
        add(0);
        for (int64_t c = 0; c < s_.width1; ++c) {
            const Unit kind = kind_of(a[c], b[c]);
            if (kind == Unit::CONSTANT) finish(c, a, b);
        }
        second_layer(db3);
        std::fill(total_.begin(), total_.end(), 0.0);
        for (int64_t c = 0; c < s_.width1; ++c)
            if (kind_of(a[c], b[c]) == Unit::DEAD) finish(c, a, b);
        for (int64_t i = 0; i < w_.breaks; ++i) { // active below
            add(i);
            if (a[w_.order[i]] < 0) finish(w_.order[i], a, b);
        }
        for (int64_t d = 0; d < s_.width2; ++d)
            q_.grad_w3[m_ * s_.width2 + d] = float(dw3_[d]);
    }

  private:
    void add(int64_t i) {
        const double *bins = interval(i);
        for (int64_t j = 0; j < 2 * n_; ++j) total_[j] += bins[j];
    }

    // The gradients of first unit c, active wherever total_ was summed.
    void finish(int64_t c, const float *a, const float *b) {
        const double slope = a[c], intercept = b[c];
        double da = 0, db = 0;
        for (int64_t tap = 0; tap < s_.taps; ++tap) {
            const double *t0 = total_.data() + tap * s_.units, *t1 = t0 + n_;
            const float *w = w_.w2 + c * n_ + tap * s_.units;
            float *out = q_.grad_w2 + m_ * s_.taps * s_.width1 * s_.width2 + tap * q_.w2_tap +
                         c * q_.w2_in;
            for (int64_t d = 0; d < s_.width2; ++d) {
                const double sum = slope * t1[d] + intercept * t0[d], w3 = w_.w3[d];
                out[d * q_.w2_out] = float(w3 * sum);
                dw3_[d] += w[d] * sum, da += w[d] * w3 * t1[d], db += w[d] * w3 * t0[d];
            }
        }
        q_.grad_w1[m_ * s_.width1 + c] = float(da), q_.grad_b1[m_ * s_.width1 + c] = float(db);
    }

    // Of the second layer's biases, from all positions: each is its own tap in the middle.
    void second_layer(double db3) {
        const double *all = total_.data() + s_.taps / 2 * s_.units;
        for (int64_t d = 0; d < s_.width2; ++d) {
            q_.grad_b2[m_ * s_.width2 + d] = float(w_.w3[d] * all[d]);
            dw3_[d] += w_.bias2[d] * all[d];
        }
        q_.grad_b3[m_] = float(db3);
    }
};

inline void Tables::reduce(const Problem &q, const Shape &s, const Member &w, int64_t m,
                           float *first, int64_t per_block) {
    if (!std::isfinite(w.bias3)) {
        const auto fill = [m](float *p, int64_t n) { std::fill_n(p + m * n, n, float(NAN)); };
        fill(q.grad_w1, s.width1), fill(q.grad_b1, s.width1), fill(q.grad_w3, s.width2);
        fill(q.grad_w2, s.taps * s.width1 * s.width2), fill(q.grad_b2, s.width2);
        return fill(q.grad_b3, 1);
    }
    Reduction reduction(q, s, w, m);
    double db3 = 0;
    for (int64_t block = 0; block < s.blocks; ++block) {
        const float *sums = first + block * per_block;
        db3 += sums[2 * s.intervals * s.cells()];
        for_panels<BACKWARD>(s.units, [&](auto panel, int64_t unit) {
            constexpr int64_t V = decltype(panel)::value * LANES;
            for (int64_t i = 0; i <= w.breaks; ++i) {
                const float *row = sums + 2 * unit * s.taps * s.intervals + 2 * i * s.taps * V;
                double *to = reduction.interval(i) + unit;
                const double centre = w.centre[i];
                for (int64_t tap = 0; tap < s.taps; ++tap, row += 2 * V, to += s.units)
                    for (int64_t d = 0; d < V; ++d) {
                        to[d] += row[d];
                        to[s.cells() + d] += row[V + d] + centre * row[d];
                    }
            }
        });
    }
    reduction.run(db3);
}

} // namespace
