// Fixed-step explicit Runge-Kutta solves of a batch under a two-hidden-layer ReLU vector field,
//
//     f(y) = relu(relu(y W1 + b1) * W2 + b2) W3 + b3,
//
// forward, and backward (the exact gradient of the discrete solve), for many members at once.
//
// A sample is `positions` blocks of `channels` numbers; every layer is applied at each position
// with the same weights. W1 and W3 see one position, W2 (the `*`) sees `window` neighbouring ones,
// zero beyond the ends. One position is the dense network, a window of 3 the 1-D convolution.
//
// Order of loops, outermost first:
//     (member, tile of samples)   independent, shared out between threads
//     step, stage                 the state of the tile stays in the caches through the whole solve
//     position                    hidden maps exist for a few neighbouring positions only
//     block of rows x block of units, in registers
//
// Arrays of a tile are [position][sample][channel]: a row is one sample at one position, and hidden
// channels are padded with zeros to whole SIMD vectors. Gradients of the weights are summed per
// tile and the tiles added in order: the bits of a result do not depend on the number of threads.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <utility>
#include <vector>

// What the caller hands over. Arrays are dense, members first; mirrored field by field in Python.
extern "C" struct Problem {
    int64_t members, batch, positions, channels, width1, width2, window, stages, threads,
        keep_hidden;
    const double *a, *b;                 // (stages, stages), (stages)
    const int64_t *n_steps;              // (members)
    const double *step_size, *last_step; // (members)
    const float *w1, *b1;                // (members, channels, width1), (members, width1)
    const float *w2, *b2;                // (members, window * width1, width2), ...
    const float *w3, *b3;                // (members, width2, channels), ...
    const float *z0;                     // (members, batch, positions * channels)
    float *z1;                           // the same
    float *tape;                         // stage states and second hidden maps, or null
    const float *grad_z1;
    float *grad_z0, *grad_w1, *grad_b1, *grad_w2, *grad_b2, *grad_w3, *grad_b3;
};

namespace {

// ---------------------------------------------------------------------------- vectors

#if defined(__AVX512F__)
constexpr int LANES = 16, ROWS = 8, PANEL = 3; // 32 registers: 8 x 3 sums, 3 weights, 1 broadcast
#elif defined(__AVX__)
constexpr int LANES = 8, ROWS = 4, PANEL = 3; // 16 registers: 4 x 3, 3, 1
#elif defined(__aarch64__)
constexpr int LANES = 4, ROWS = 8, PANEL = 3;
#else
constexpr int LANES = 4, ROWS = 4, PANEL = 2;
#endif

typedef float vec __attribute__((vector_size(LANES * sizeof(float)), may_alias));

inline vec load(const float *p) { return *reinterpret_cast<const vec *>(p); }
inline void store(float *p, vec v) { *reinterpret_cast<vec *>(p) = v; }

// NaN passes through both, as in torch; the slope of relu at 0 is 0.
inline vec relu(vec x) { return vec{} > x ? vec{} : x; }
inline vec relu_gradient(vec relu_x, vec g) { return relu_x <= vec{} ? vec{} : g; }

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

// ---------------------------------------------------------------------------- products

// The input blocks that a position reads, each with the weights of its tap.
struct Taps {
    int count = 0;
    const float *x[3], *w[3];
    void add(const float *block, const float *weight) { x[count] = block, w[count++] = weight; }
};

template <int V> struct Width {
    static constexpr int value = V;
};

// Calls f(Width<v>, first column) for panels of v <= PANEL vectors that cover `columns`.
template <class F> inline void for_panels(int64_t columns, F f) {
    const int64_t vectors = columns / LANES, panels = (vectors + PANEL - 1) / PANEL;
    for (int64_t i = 0, start = 0; i < panels; ++i) {
        const int64_t v = (vectors - start + panels - i - 1) / (panels - i);
        if (v == 1) f(Width<1>(), start * LANES);
        if (v == 2) f(Width<2>(), start * LANES);
        if constexpr (PANEL >= 3)
            if (v == 3) f(Width<3>(), start * LANES);
        start += v;
    }
}

// out[row][column] = finish(start[column] + sum over taps, k of x[row][k] w[k][column])
// x (rows, depth), w (depth, columns); `finish` gets ROWS x V sums in registers and stores them.
template <class Finish>
inline void product(const Taps &taps, int64_t rows, int64_t depth, int64_t columns,
                    const float *start, Finish finish) {
    for_panels(columns, [&](auto panel, int64_t column) {
        constexpr int V = decltype(panel)::value;
        for (int64_t row = 0; row < rows; row += ROWS) {
            vec sum[ROWS][V];
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 3
                for (int v = 0; v < V; ++v) sum[r][v] = load(start + column + v * LANES);
            for (int tap = 0; tap < taps.count; ++tap) {
                const float *x = taps.x[tap] + row * depth, *w = taps.w[tap] + column;
                for (int64_t k = 0; k < depth; ++k, ++x, w += columns) {
                    vec weight[V];
#pragma GCC unroll 3
                    for (int v = 0; v < V; ++v) weight[v] = load(w + v * LANES);
#pragma GCC unroll 8
                    for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 3
                        for (int v = 0; v < V; ++v) sum[r][v] += x[r * depth] * weight[v];
                }
            }
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
    for (int64_t row = 0; row < rows; ++row, x += depth, g += columns) {
        vec gradient[V];
#pragma GCC unroll 3
        for (int v = 0; v < V; ++v) gradient[v] = load(g + v * LANES);
#pragma GCC unroll 8
        for (int k = 0; k < N; ++k)
#pragma GCC unroll 3
            for (int v = 0; v < V; ++v) sum[k][v] += x[k] * gradient[v];
    }
#pragma GCC unroll 8
    for (int k = 0; k < N; ++k)
#pragma GCC unroll 3
        for (int v = 0; v < V; ++v) {
            float *p = out + k * columns + v * LANES;
            store(p, load(p) + sum[k][v]);
        }
}

// out[k][column] += sum over rows of x[row][k] g[row][column]
inline void outer(const float *x, const float *g, float *out, int64_t rows, int64_t depth,
                  int64_t columns) {
    for_panels(columns, [&](auto panel, int64_t column) {
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

// out = z + sum over j of coefficient[j] v[j], all of length n (whole vectors)
void combine(float *out, const float *z, int64_t n, const std::vector<float> &coefficient,
             const float *v) {
    for (int64_t i = 0; i < n; i += LANES) {
        vec sum = load(z + i);
        for (size_t j = 0; j < coefficient.size(); ++j)
            if (coefficient[j] != 0) sum += coefficient[j] * load(v + j * n + i);
        store(out + i, sum);
    }
}

// ---------------------------------------------------------------------------- shapes and memory

struct Shape {
    int64_t positions, channels, width1, width2, window, radius, ring, stages;
    int64_t samples, tiles; // samples of a tile (whole vectors), tiles of a member's batch
    bool keep_hidden;

    explicit Shape(const Problem &p)
        : positions(p.positions), channels(p.channels), width1(padded(p.width1)),
          width2(padded(p.width2)), window(p.window), radius(p.window / 2), ring(2 * radius + 1),
          stages(p.stages), keep_hidden(p.keep_hidden) {
        const int64_t most = std::max<int64_t>(LANES, padded(4096 / std::max(width1, width2)));
        const int64_t wanted = std::min<int64_t>(64, most);
        const int64_t count = (p.batch + wanted - 1) / wanted;
        samples = padded((p.batch + count - 1) / count);
        tiles = (p.batch + samples - 1) / samples;
    }
    int64_t state() const { return positions * samples * channels; }
    int64_t hidden() const { return keep_hidden ? positions * samples * width2 : 0; }
    int64_t evaluation() const { return state() + hidden(); }
};

// One aligned allocation, dealt out piece by piece.
class Arena {
    static constexpr std::align_val_t ALIGNED{64};
    float *memory_ = nullptr;
    int64_t size_ = 0, used_ = 0;

  public:
    Arena() = default;
    Arena(const Arena &) = delete;
    ~Arena() { ::operator delete(memory_, ALIGNED); }
    void reserve(int64_t floats) {
        used_ = 0;
        if (floats <= size_) return;
        ::operator delete(memory_, ALIGNED);
        memory_ = nullptr, size_ = 0;
        memory_ = static_cast<float *>(::operator new(floats * sizeof(float), ALIGNED));
        size_ = floats;
    }
    float *take(int64_t floats) {
        float *p = memory_ + used_;
        used_ += (floats + 15) / 16 * 16;
        return p;
    }
    float *take_zeros(int64_t floats) {
        float *p = take(floats);
        std::memset(p, 0, floats * sizeof(float));
        return p;
    }
};

// A member's parameters with padded widths; also the form in which gradients are summed.
// W3 is kept transposed, so that its long side lies along the lanes.
struct Weights {
    float *w1, *b1, *w2, *b2, *w3t, *b3;
    static int64_t floats(const Shape &s) {
        return s.channels * s.width1 + s.width1 + s.window * s.width1 * s.width2 + s.width2 +
               s.channels * s.width2 + (s.channels + 15) / 16 * 16;
    }
    Weights() = default;
    Weights(const Shape &s, float *p) {
        w1 = p, b1 = w1 + s.channels * s.width1;
        w2 = b1 + s.width1, b2 = w2 + s.window * s.width1 * s.width2;
        w3t = b2 + s.width2, b3 = w3t + s.channels * s.width2;
    }
};

// The parameters of member m in padded form, and W2 with taps mirrored and transposed.
struct Member {
    Weights p;
    float *w2t;
    static int64_t floats(const Shape &s) {
        return (Weights::floats(s) + s.window * s.width1 * s.width2 + 15) / 16 * 16;
    }
    Member() = default;
    Member(const Problem &q, const Shape &s, int64_t m, float *memory, bool transposed)
        : p(s, memory), w2t(memory + Weights::floats(s)) {
        std::memset(memory, 0, floats(s) * sizeof(float));
        const int64_t c = q.channels, n1 = q.width1, n2 = q.width2;
        for (int64_t i = 0; i < c; ++i)
            std::copy_n(q.w1 + (m * c + i) * n1, n1, p.w1 + i * s.width1);
        for (int64_t tap = 0; tap < s.window; ++tap)
            for (int64_t i = 0; i < n1; ++i) {
                const float *row = q.w2 + ((m * s.window + tap) * n1 + i) * n2;
                std::copy_n(row, n2, p.w2 + (tap * s.width1 + i) * s.width2);
                float *mirrored = w2t + (s.window - 1 - tap) * s.width2 * s.width1 + i;
                if (transposed)
                    for (int64_t j = 0; j < n2; ++j) mirrored[j * s.width1] = row[j];
            }
        for (int64_t j = 0; j < n2; ++j)
            for (int64_t i = 0; i < c; ++i) p.w3t[i * s.width2 + j] = q.w3[(m * n2 + j) * c + i];
        std::copy_n(q.b1 + m * n1, n1, p.b1);
        std::copy_n(q.b2 + m * n2, n2, p.b2);
        std::copy_n(q.b3 + m * c, c, p.b3);
    }
};

// ---------------------------------------------------------------------------- one tile

// Solves one tile of one member. Scratch comes from the thread's arena.
class Tile {
    const Problem &q_;
    const Shape &s_;
    const Member &w_;
    int64_t member_, first_, real_, steps_;
    float *tape_;                            // [step][stage][state | second hidden map]
    float *hidden1_, *hidden2_, *gradient2_; // rings of positions: [p % ring][sample][unit]
    float *gradient1_, *bias3_, *zeros_;

  public:
    Tile(const Problem &q, const Shape &s, const Member &w, int64_t member, int64_t tile,
         float *tape, Arena &arena)
        : q_(q), s_(s), w_(w), member_(member), first_(tile * s.samples),
          real_(std::min(s.samples, q.batch - first_)), steps_(q.n_steps[member]), tape_(tape) {
        arena.reserve((3 * s.ring + 1) * s.samples * std::max(s.width1, s.width2) +
                      2 * s.samples * std::max(s.channels, std::max(s.width1, s.width2)) +
                      (s.stages + 5) * (s.state() + 16) + 256);
        hidden1_ = arena.take(s.ring * s.samples * s.width1);
        hidden2_ = arena.take(s.ring * s.samples * s.width2);
        gradient2_ = arena.take(s.ring * s.samples * s.width2);
        gradient1_ = arena.take(s.samples * s.width1);
        bias3_ = arena.take(s.samples * s.channels);
        zeros_ = arena.take_zeros(s.samples * std::max(s.channels, std::max(s.width1, s.width2)));
        for (int64_t i = 0; i < s.samples * s.channels; ++i) bias3_[i] = w.p.b3[i % s.channels];
    }

    void forward(Arena &arena) {
        const int64_t n = s_.state();
        float *z = arena.take(n), *scratch = arena.take(n), *k = arena.take(s_.stages * n);
        gather(q_.z0, z);
        for (int64_t step = 0; step < steps_; ++step) {
            for (int64_t i = 0; i < s_.stages; ++i) {
                float *y = tape_ ? evaluation(step, i) : scratch;
                combine(y, z, n, row_of_a(step, i), k);
                field(y, k + i * n, tape_ && s_.keep_hidden ? y + n : nullptr);
            }
            combine(z, z, n, row_of_b(step), k);
        }
        scatter(z, q_.z1);
    }

    // The adjoint of `forward`, stage by stage. With u_j the gradient of stage j's argument:
    //     g_i = h (b_i lambda + sum over j > i of a_ji u_j),  u_i = f'(y_i)^T g_i,  lambda += sum u
    void backward(Arena &arena, Weights sums) {
        const int64_t n = s_.state(), stages = s_.stages;
        float *lambda = arena.take(n), *g = arena.take(n), *u = arena.take(stages * n);
        float *sum_g = arena.take_zeros(n), *zero = arena.take_zeros(n);
        gather(q_.grad_z1, lambda);
        drop_padding(lambda);
        std::vector<float> ones(stages, 1.f);
        std::memset(u, 0, stages * n * sizeof(float));
        for (int64_t step = steps_ - 1; step >= 0; --step) {
            for (int64_t i = stages - 1; i >= 0; --i) {
                std::vector<float> column(stages, 0.f);
                for (int64_t j = i + 1; j < stages; ++j)
                    column[j] = float(h(step) * q_.a[j * stages + i]);
                combine(g, zero, n, column, u);
                combine(g, g, n, {float(h(step) * q_.b[i])}, lambda);
                combine(sum_g, sum_g, n, {1.f}, g);
                const float *y = evaluation(step, i);
                const float *hidden2 = s_.keep_hidden ? y + n : nullptr;
                const bool last = step == 0 && i == 0;
                const float *next = hidden2 && !last ? hidden2 - s_.evaluation() : nullptr;
                field_gradient(y, hidden2, next, g, u + i * n, sums);
            }
            combine(lambda, lambda, n, ones, u);
        }
        for (int64_t i = 0; i < n; ++i) sums.b3[i % s_.channels] += sum_g[i];
        scatter(lambda, q_.grad_z0);
    }

  private:
    double h(int64_t step) const {
        return step == steps_ - 1 ? q_.last_step[member_] : q_.step_size[member_];
    }
    float *evaluation(int64_t step, int64_t stage) const {
        return tape_ + (step * s_.stages + stage) * s_.evaluation();
    }
    std::vector<float> row_of_a(int64_t step, int64_t i) const {
        std::vector<float> row(i);
        for (int64_t j = 0; j < i; ++j) row[j] = float(h(step) * q_.a[i * s_.stages + j]);
        return row;
    }
    std::vector<float> row_of_b(int64_t step) const {
        std::vector<float> row(s_.stages);
        for (int64_t j = 0; j < s_.stages; ++j) row[j] = float(h(step) * q_.b[j]);
        return row;
    }
    float *at(float *ring, int64_t position, int64_t width) const {
        return ring + position % s_.ring * s_.samples * width;
    }

    // (batch, positions * channels) -> [position][sample][channel]. The missing samples of the last
    // tile repeat its last one: they cannot overflow unless that one does.
    void gather(const float *batch, float *tile) const {
        const int64_t dim = s_.positions * s_.channels;
        for (int64_t p = 0; p < s_.positions; ++p)
            for (int64_t s = 0; s < s_.samples; ++s)
                std::copy_n(batch + (member_ * q_.batch + first_ + std::min(s, real_ - 1)) * dim +
                                p * s_.channels,
                            s_.channels, tile + (p * s_.samples + s) * s_.channels);
    }
    void scatter(const float *tile, float *batch) const {
        const int64_t dim = s_.positions * s_.channels;
        for (int64_t p = 0; p < s_.positions; ++p)
            for (int64_t s = 0; s < real_; ++s)
                std::copy_n(tile + (p * s_.samples + s) * s_.channels, s_.channels,
                            batch + (member_ * q_.batch + first_ + s) * dim + p * s_.channels);
    }
    void drop_padding(float *tile) const {
        for (int64_t p = 0; p < s_.positions; ++p)
            std::fill_n(tile + (p * s_.samples + real_) * s_.channels,
                        (s_.samples - real_) * s_.channels, 0.f);
    }

    void first_layer(const float *y, int64_t p) {
        float *out = at(hidden1_, p, s_.width1);
        Taps taps;
        taps.add(y + p * s_.samples * s_.channels, w_.p.w1);
        product(taps, s_.samples, s_.channels, s_.width1, w_.p.b1,
                [&](auto &sum, int64_t offset, int64_t) {
                    each(sum, [&](vec &v, int r, int c) {
                        store(out + offset + r * s_.width1 + c, relu(v));
                    });
                });
    }

    void second_layer(int64_t p, float *out) {
        product(window(hidden1_, s_.width1, w_.p.w2, s_.width2, p), s_.samples, s_.width1,
                s_.width2, w_.p.b2, [&](auto &sum, int64_t offset, int64_t) {
                    each(sum, [&](vec &v, int r, int c) {
                        store(out + offset + r * s_.width2 + c, relu(v));
                    });
                });
    }

    // The neighbours of position p that exist, from a ring of maps of `depth` units.
    Taps window(float *ring, int64_t depth, const float *weight, int64_t columns, int64_t p) const {
        Taps taps;
        for (int64_t tap = 0; tap < s_.window; ++tap) {
            const int64_t neighbour = p + tap - s_.radius;
            if (neighbour >= 0 && neighbour < s_.positions)
                taps.add(at(ring, neighbour, depth), weight + tap * depth * columns);
        }
        return taps;
    }

    template <int V, class F> static inline void each(vec (&sum)[ROWS][V], F f) {
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 3
            for (int v = 0; v < V; ++v) f(sum[r][v], r, v * LANES);
    }

    // Masks ROWS x V gradients by their hidden units, stores them, adds their sum to `bias`.
    template <int V>
    static inline void finish_gradient(vec (&sum)[ROWS][V], const float *hidden, float *out,
                                       float *bias, int64_t columns) {
        vec total[V] = {};
        each(sum, [&](vec &v, int r, int c) {
            v = relu_gradient(load(hidden + r * columns + c), v);
            store(out + r * columns + c, v);
            total[c / LANES] += v;
        });
        for (int v = 0; v < V; ++v) store(bias + v * LANES, load(bias + v * LANES) + total[v]);
    }

    // out = f(y); the second hidden map goes to `hidden2` (all positions) if it is to be kept.
    void field(const float *y, float *out, float *hidden2) {
        const int64_t block = s_.samples * s_.channels;
        for (int64_t q = 0; q < s_.positions + s_.radius; ++q) {
            if (q < s_.positions) first_layer(y, q);
            const int64_t p = q - s_.radius;
            if (p < 0) continue;
            float *h2 = hidden2 ? hidden2 + p * s_.samples * s_.width2 : hidden2_;
            second_layer(p, h2);
            narrow(h2, w_.p.w3t, bias3_, out + p * block, s_.samples, s_.width2, s_.channels);
        }
    }

    // u = f'(y)^T g, and the gradients of the parameters added to `sums`. Position q of the first
    // map is computed `radius` ahead of the second map's gradient, that as far ahead of the first's.
    // `next`: the second hidden maps of the evaluation that comes next, still far from the core.
    void field_gradient(const float *y, const float *hidden2, const float *next, const float *g,
                        float *u, Weights &sums) {
        for (int64_t q = 0; q < s_.positions + 2 * s_.radius; ++q) {
            if (q < s_.positions) first_layer(y, q);
            const int64_t middle = q - s_.radius, p = middle - s_.radius;
            if (middle >= 0 && middle < s_.positions) second_gradient(middle, hidden2, g, sums);
            if (p >= 0) first_gradient(p, y, next, u, sums);
        }
    }

    void second_gradient(int64_t p, const float *kept, const float *g, Weights &sums) {
        const float *h2 = kept + p * s_.samples * s_.width2;
        if (!kept) h2 = hidden2_, second_layer(p, hidden2_);
        g += p * s_.samples * s_.channels;
        outer(g, h2, sums.w3t, s_.samples, s_.channels, s_.width2);
        float *out = at(gradient2_, p, s_.width2);
        Taps taps;
        taps.add(g, w_.p.w3t);
        product(taps, s_.samples, s_.channels, s_.width2, zeros_,
                [&](auto &sum, int64_t offset, int64_t column) {
                    finish_gradient(sum, h2 + offset, out + offset, sums.b2 + column, s_.width2);
                });
        for (int64_t tap = 0; tap < s_.window; ++tap) {
            const int64_t neighbour = p + tap - s_.radius;
            if (neighbour >= 0 && neighbour < s_.positions)
                outer(at(hidden1_, neighbour, s_.width1), out,
                      sums.w2 + tap * s_.width1 * s_.width2, s_.samples, s_.width1, s_.width2);
        }
    }

    void first_gradient(int64_t p, const float *y, const float *next, float *u, Weights &sums) {
        if (next) next += p * s_.samples * s_.width2;
        const float *h1 = at(hidden1_, p, s_.width1);
        product(window(gradient2_, s_.width2, w_.w2t, s_.width1, p), s_.samples, s_.width2,
                s_.width1, zeros_, [&](auto &sum, int64_t offset, int64_t column) {
                    finish_gradient(sum, h1 + offset, gradient1_ + offset, sums.b1 + column,
                                    s_.width1);
                    if (next && column == 0)
                        prefetch(next + offset / s_.width1 * s_.width2, ROWS, s_.width2, s_.width2);
                });
        const int64_t block = p * s_.samples * s_.channels;
        outer(y + block, gradient1_, sums.w1, s_.samples, s_.channels, s_.width1);
        narrow(gradient1_, w_.p.w1, zeros_, u + block, s_.samples, s_.width1, s_.channels);
    }
};

// ---------------------------------------------------------------------------- a call

class Call {
    const Problem &q_;
    Shape s_;
    Arena memory_;
    std::vector<int64_t> before_; // steps of the members before each one
    std::vector<Member> members_;
    float *sums_ = nullptr;

  public:
    explicit Call(const Problem &q) : q_(q), s_(q), before_(q.members + 1, 0) {
        for (int64_t m = 0; m < q.members; ++m) before_[m + 1] = before_[m] + q.n_steps[m];
    }
    int64_t tape_floats() const { return before_.back() * s_.tiles * s_.stages * s_.evaluation(); }

    void run(bool backward) {
        const int64_t per_member = Member::floats(s_),
                      per_tile = (Weights::floats(s_) + 15) / 16 * 16;
        const int64_t tasks = q_.members * s_.tiles;
        memory_.reserve(q_.members * per_member + (backward ? tasks * per_tile : 0));
        float *weights = memory_.take(q_.members * per_member);
        if (backward) sums_ = memory_.take(tasks * per_tile);
        members_.resize(q_.members);
        in_parallel(q_.members, [&](int64_t m) {
            members_[m] = Member(q_, s_, m, weights + m * per_member, backward);
        });
        in_parallel(tasks, [&](int64_t i) {
            static thread_local Arena arena;
            const int64_t m = i / s_.tiles, t = i % s_.tiles;
            float *tape = q_.tape ? q_.tape + (before_[m] * s_.tiles + t * q_.n_steps[m]) *
                                                  s_.stages * s_.evaluation()
                                  : nullptr;
            Tile tile(q_, s_, members_[m], m, t, tape, arena);
            if (!backward) return tile.forward(arena);
            float *sum = sums_ + i * per_tile;
            std::memset(sum, 0, per_tile * sizeof(float));
            tile.backward(arena, Weights(s_, sum));
        });
        if (backward) in_parallel(q_.members, [&](int64_t m) { reduce(m, per_tile); });
    }

  private:
    // OpenMP's threads are torch's own: a second pool would fight with the first for the cores.
    template <class Task> void in_parallel(int64_t count, Task task) const {
        const int threads = int(std::min(q_.threads, count));
        (void)threads;
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
        for (int64_t i = 0; i < count; ++i) task(i);
    }

    // Adds the tiles of a member in order and strips the padding.
    void reduce(int64_t m, int64_t per_tile) {
        float *first = sums_ + m * s_.tiles * per_tile;
        for (int64_t t = 1; t < s_.tiles; ++t)
            for (int64_t i = 0; i < per_tile; ++i) first[i] += first[t * per_tile + i];
        const Weights g(s_, first);
        const int64_t c = q_.channels, n1 = q_.width1, n2 = q_.width2;
        for (int64_t i = 0; i < c; ++i)
            std::copy_n(g.w1 + i * s_.width1, n1, q_.grad_w1 + (m * c + i) * n1);
        for (int64_t tap = 0; tap < s_.window; ++tap)
            for (int64_t i = 0; i < n1; ++i)
                std::copy_n(g.w2 + (tap * s_.width1 + i) * s_.width2, n2,
                            q_.grad_w2 + ((m * s_.window + tap) * n1 + i) * n2);
        for (int64_t j = 0; j < n2; ++j)
            for (int64_t i = 0; i < c; ++i)
                q_.grad_w3[(m * n2 + j) * c + i] = g.w3t[i * s_.width2 + j];
        std::copy_n(g.b1, n1, q_.grad_b1 + m * n1);
        std::copy_n(g.b2, n2, q_.grad_b2 + m * n2);
        std::copy_n(g.b3, c, q_.grad_b3 + m * c);
    }
};

} // namespace

extern "C" {
int64_t nodecore_tape_floats(const Problem *q) { return Call(*q).tape_floats(); }
void nodecore_forward(const Problem *q) { Call(*q).run(false); }
void nodecore_backward(const Problem *q) { Call(*q).run(true); }

// The linear classifier behind a solve: mean cross entropy of each member and its gradients. Torch
// does the same in ten small operations, which together cost an eighth of a short solve.
// Arrays: z, grad_z (members, batch, dim); w (members, dim, classes); b (members, classes);
// y (members, batch) labels; loss (members). One loop over samples, members outermost.
struct Classifier {
    int64_t members, batch, dim, classes;
    const float *z, *w, *b;
    const int64_t *y;
    float *loss, *grad_z, *grad_w, *grad_b;
};

void nodecore_classify(const Classifier *q) {
    const int64_t dim = q->dim, classes = q->classes;
    std::vector<float> slope(classes);
    std::fill_n(q->grad_w, q->members * dim * classes, 0.0f);
    std::fill_n(q->grad_b, q->members * classes, 0.0f);
    for (int64_t m = 0; m < q->members; ++m) {
        const float *w = q->w + m * dim * classes, *b = q->b + m * classes;
        float *grad_w = q->grad_w + m * dim * classes, *grad_b = q->grad_b + m * classes;
        double loss = 0.0;
        for (int64_t n = m * q->batch; n < (m + 1) * q->batch; ++n) {
            const float *z = q->z + n * dim;
            const int64_t label = q->y[n];
            std::copy_n(b, classes, slope.begin());
            for (int64_t i = 0; i < dim; ++i)
                for (int64_t c = 0; c < classes; ++c) slope[c] += z[i] * w[i * classes + c];
            const float top = *std::max_element(slope.begin(), slope.end());
            const float own = slope[label] - top;
            float sum = 0.0f;
            for (float &s : slope) sum += s = std::exp(s - top);
            loss += std::log(sum) - own;
            // d loss / d logits = (softmax - one-hot) / batch
            for (int64_t c = 0; c < classes; ++c) {
                slope[c] = (slope[c] / sum - float(c == label)) / float(q->batch);
                grad_b[c] += slope[c];
            }
            for (int64_t i = 0; i < dim; ++i) {
                float grad = 0.0f;
                for (int64_t c = 0; c < classes; ++c) {
                    grad += slope[c] * w[i * classes + c];
                    grad_w[i * classes + c] += z[i] * slope[c];
                }
                q->grad_z[n * dim + i] = grad;
            }
        }
        q->loss[m] = float(loss / double(q->batch));
    }
}

int64_t nodecore_lanes() { return LANES; }
}
