// Explicit Runge-Kutta solves of a batch under a two-hidden-layer ReLU vector field,
//
//     f(y) = relu(relu(y W1 + b1) * W2 + b2) W3 + b3,
//
// forward, and backward (the exact gradient of the discrete solve), for many members at once, in
// steps that are given or in steps that follow an error estimate.
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
// An error estimate is one norm over the whole batch of a member: there the loop over steps lies
// outside that over the tiles, and members alone are shared out between threads. Where each sample
// has a norm and steps of its own, the samples of a tile try their steps side by side; one that was
// rejected, or has arrived, takes a step of size 0.
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
    int64_t members, batch, positions, channels, width1, width2, window, stages, most_steps,
        threads, tape_steps, keep_hidden, per_sample;
    const double *a, *b;      // (stages, stages), (stages)
    // One row for each member, or with per_sample for each sample, (members, batch):
    int64_t *n_steps;         // at most most_steps each
    double *step_sizes;       // (..., most_steps)
    const float *w1, *b1;     // (members, channels, width1), (members, width1)
    const float *w2, *b2;     // (members, window * width1, width2), ...
    const float *w3, *b3;     // (members, width2, channels), ...
    const float *z0;          // (members, batch, positions * channels)
    float *z1;                // the same
    float *tape;              // tape_steps stage states and second hidden maps a member, or null
    const float *grad_z1;
    float *grad_z0, *grad_w1, *grad_b1, *grad_w2, *grad_b2, *grad_w3, *grad_b3;
};

// What an adaptive solve needs besides, and what it reports, a number for each row of n_steps and
// step_sizes. It writes these, too; with per_sample n_steps counts the rejected steps of size 0.
extern "C" struct Adaptive {
    int64_t same_as_last; // whether a stage after the others is the first one of the next step
    double t0, t1, first_step, exponent, safety, min_factor, max_factor;
    const double *rtol, *atol;       // (members)
    const double *b_error;           // (stages + same_as_last)
    int64_t *nfe, *rejected, *state; // `state` one of End
    double *time, *step;             // where and with which step it ended
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
    int64_t tape_steps;
    bool keep_hidden;

    explicit Shape(const Problem &p)
        : positions(p.positions), channels(p.channels), width1(padded(p.width1)),
          width2(padded(p.width2)), window(p.window), radius(p.window / 2), ring(2 * radius + 1),
          stages(p.stages), tape_steps(p.tape_steps), keep_hidden(p.keep_hidden) {
        const int64_t most = std::max<int64_t>(LANES, padded(4096 / std::max(width1, width2)));
        const int64_t wanted = std::min<int64_t>(64, most);
        const int64_t count = (p.batch + wanted - 1) / wanted;
        samples = padded((p.batch + count - 1) / count);
        tiles = (p.batch + samples - 1) / samples;
    }
    int64_t state() const { return positions * samples * channels; }
    int64_t hidden() const { return keep_hidden ? positions * samples * width2 : 0; }
    int64_t evaluation() const { return state() + hidden(); }
    int64_t tape() const { return tape_steps * stages * evaluation(); } // of a tile
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

// Where a thread works on the tiles of one member, one after another.
struct Scratch {
    float *hidden1, *hidden2, *gradient2; // rings of positions: [p % ring][sample][unit]
    float *gradient1, *bias3, *zeros, *stage;
    static int64_t zeros_floats(const Shape &s) {
        return s.samples * std::max(s.channels, std::max(s.width1, s.width2));
    }
    static int64_t floats(const Shape &s) {
        return s.ring * s.samples * (s.width1 + 2 * s.width2) + s.samples * s.width1 +
               s.samples * s.channels + zeros_floats(s) + s.state() + 7 * 16;
    }
    Scratch(const Shape &s, const Member &w, Arena &arena)
        : hidden1(arena.take(s.ring * s.samples * s.width1)),
          hidden2(arena.take(s.ring * s.samples * s.width2)),
          gradient2(arena.take(s.ring * s.samples * s.width2)),
          gradient1(arena.take(s.samples * s.width1)), bias3(arena.take(s.samples * s.channels)),
          zeros(arena.take_zeros(zeros_floats(s))), stage(arena.take(s.state())) {
        for (int64_t i = 0; i < s.samples * s.channels; ++i) bias3[i] = w.p.b3[i % s.channels];
    }
};

// One tile of one member.
class Tile {
    const Problem &q_;
    const Shape &s_;
    const Member &w_;
    const Scratch &x_;
    int64_t member_, first_, real_;
    float *tape_;                    // [step][stage][state | second hidden map]
    float *z_, *z_new_, *k_, *zero_; // of a walk: states and slopes
    float *sizes_ = nullptr; // of each sample's own step, like a state; the others then count as 1

  public:
    Tile(const Problem &q, const Shape &s, const Member &w, const Scratch &x, int64_t member,
         int64_t tile)
        : q_(q), s_(s), w_(w), x_(x), member_(member), first_(tile * s.samples),
          real_(std::min(s.samples, q.batch - first_)),
          tape_(q.tape ? q.tape + (member * s.tiles + tile) * s.tape() : nullptr) {}

    // Scratch that a walk or the backward pass takes from the arena for itself.
    static int64_t floats(const Shape &s) { return (s.stages + 5) * (s.state() + 16); }
    int64_t samples() const { return real_; }
    int64_t row(int64_t sample) const { return member_ * q_.batch + first_ + sample; }

    // The first state of a walk.
    void start(Arena &arena) {
        const int64_t n = s_.state();
        if (q_.per_sample) sizes_ = arena.take(n);
        z_ = arena.take(n), z_new_ = arena.take(n), zero_ = arena.take_zeros(n);
        k_ = arena.take((s_.stages + 1) * n);
        gather(q_.z0, z_);
    }
    void finish() const { scatter(z_, q_.z1); }

    // The walk in given steps.
    void forward(Arena &arena) {
        start(arena);
        for (int64_t step = 0; step < q_.n_steps[member_]; ++step) {
            for (int64_t i = 0; i < s_.stages; ++i) stage(step, h(step), i);
            combine(z_, z_, s_.state(), row_of_b(h(step)), k_);
        }
        finish();
    }

    // Stage i of a step of size h from z.
    void stage(int64_t step, double h, int64_t i) {
        evaluate(step, i, z_, row_of_a(h, i), k_ + i * s_.state());
    }

    // What a norm is made of: a sum of squares over the tile, or one for each sample.
    struct OverTile {
        double sum = 0;
        void operator()(int64_t, float value) { sum += value * value; }
    };
    struct OverSamples {
        std::vector<double> sums;
        explicit OverSamples(int64_t samples) : sums(samples) {}
        void operator()(int64_t sample, float value) { sums[sample] += double(value) * value; }
    };

    // A step of size h whose first slope is known; adds the squares of its scaled error to `sum`.
    template <class Sum> void attempt(int64_t step, double h, const Adaptive &c, Sum &sum) {
        const int64_t n = s_.state();
        for (int64_t i = 1; i < s_.stages; ++i) stage(step, h, i);
        advance(z_new_, z_, row_of_b(h));
        if (c.same_as_last) evaluate(step + 1, 0, z_new_, {}, k_ + s_.stages * n);
        float *error = x_.stage;
        advance(error, zero_, scaled(h, c.b_error, s_.stages + c.same_as_last));
        add_squares(sum, [&](int64_t i) {
            return error[i] / scale(c, std::max(std::abs(z_[i]), std::abs(z_new_[i])));
        });
    }
    void accept(const Adaptive &c) {
        std::swap(z_, z_new_);
        if (c.same_as_last) std::copy_n(k_ + s_.stages * s_.state(), s_.state(), k_);
    }

    // For the first step size: squares of the scaled state, slope, and change of slope over an
    // Euler step of size h.
    template <class Sum> void size_of_state(const Adaptive &c, Sum &sum) const {
        add_squares(sum, [&](int64_t i) { return z_[i] / scale(c, std::abs(z_[i])); });
    }
    template <class Sum> void size_of_slope(const Adaptive &c, Sum &sum) const {
        add_squares(sum, [&](int64_t i) { return k_[i] / scale(c, std::abs(z_[i])); });
    }
    template <class Sum> void change_of_slope(double h, const Adaptive &c, Sum &sum) {
        float *change = k_ + s_.state();
        advance(x_.stage, z_, {float(h)});
        field(x_.stage, change, nullptr);
        add_squares(sum,
                    [&](int64_t i) { return (change[i] - k_[i]) / scale(c, std::abs(z_[i])); });
    }

    // Lets each sample take a step of its own size; those that pad the tile go with the last one.
    template <class Size> void size_samples(Size size) {
        for_rows([&](int64_t sample, int64_t row) {
            std::fill_n(sizes_ + row * s_.channels, s_.channels, float(size(sample)));
        });
    }
    // Leaves the samples that did not accept the step where they were, on the tape as well.
    void accept(const std::vector<char> &accepted, int64_t step, const Adaptive &c) {
        const int64_t n = s_.state(), width = s_.width2;
        const bool tape = c.same_as_last && taped(step + 1);
        for_rows([&](int64_t sample, int64_t row) {
            const int64_t at = row * s_.channels;
            if (accepted[sample]) {
                std::copy_n(z_new_ + at, s_.channels, z_ + at);
                if (c.same_as_last) std::copy_n(k_ + s_.stages * n + at, s_.channels, k_ + at);
            } else if (tape) {
                const float *before = evaluation(step, 0);
                float *after = evaluation(step + 1, 0);
                std::copy_n(before + at, s_.channels, after + at);
                if (s_.keep_hidden)
                    std::copy_n(before + n + row * width, width, after + n + row * width);
            }
        });
    }

    // The adjoint of `forward`, stage by stage. With u_j the gradient of stage j's argument:
    //     g_i = h (b_i lambda + sum over j > i of a_ji u_j),  u_i = f'(y_i)^T g_i,  lambda += sum u
    void backward(Arena &arena, Weights sums) {
        const int64_t n = s_.state(), stages = s_.stages;
        float *lambda = arena.take(n), *g = arena.take(n), *u = arena.take(stages * n);
        float *sum_g = arena.take_zeros(n), *zero = arena.take_zeros(n);
        if (q_.per_sample) sizes_ = arena.take(n);
        gather(q_.grad_z1, lambda);
        drop_padding(lambda);
        std::vector<float> ones(stages, 1.f);
        std::memset(u, 0, stages * n * sizeof(float));
        for (int64_t step = n_steps() - 1; step >= 0; --step) {
            if (sizes_) size_samples([&](int64_t sample) { return size(row(sample), step); });
            for (int64_t i = stages - 1; i >= 0; --i) {
                std::vector<float> column(stages, 0.f);
                for (int64_t j = i + 1; j < stages; ++j)
                    column[j] = float(h(step) * q_.a[j * stages + i]);
                combine(g, zero, n, column, u);
                combine(g, g, n, {float(h(step) * q_.b[i])}, lambda);
                if (sizes_)
                    for (int64_t j = 0; j < n; j += LANES) store(g + j, load(g + j) * load(sizes_ + j));
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
    double size(int64_t row, int64_t step) const {
        return q_.step_sizes[row * q_.most_steps + step];
    }
    double h(int64_t step) const { return q_.per_sample ? 1 : size(member_, step); }
    int64_t n_steps() const {
        if (!q_.per_sample) return q_.n_steps[member_];
        return *std::max_element(q_.n_steps + row(0), q_.n_steps + row(real_));
    }
    bool taped(int64_t step) const { return tape_ && step < q_.tape_steps; }
    float *evaluation(int64_t step, int64_t stage) const {
        return tape_ + (step * s_.stages + stage) * s_.evaluation();
    }
    // k = f(z + sum of coefficients times slopes), on the tape while that has room.
    void evaluate(int64_t step, int64_t i, const float *z, const std::vector<float> &coefficients,
                  float *k) {
        float *y = taped(step) ? evaluation(step, i) : x_.stage;
        advance(y, z, coefficients);
        field(y, k, taped(step) && s_.keep_hidden ? y + s_.state() : nullptr);
    }
    // out = z + sum of coefficients times slopes, times each sample's own step where it has one
    void advance(float *out, const float *z, const std::vector<float> &coefficient) const {
        const int64_t n = s_.state();
        if (!sizes_) return combine(out, z, n, coefficient, k_);
        combine(out, zero_, n, coefficient, k_);
        for (int64_t i = 0; i < n; i += LANES)
            store(out + i, load(z + i) + load(sizes_ + i) * load(out + i));
    }
    static std::vector<float> scaled(double h, const double *coefficients, int64_t count) {
        std::vector<float> row(count);
        for (int64_t j = 0; j < count; ++j) row[j] = float(h * coefficients[j]);
        return row;
    }
    std::vector<float> row_of_a(double h, int64_t i) const {
        return scaled(h, q_.a + i * s_.stages, i);
    }
    std::vector<float> row_of_b(double h) const { return scaled(h, q_.b, s_.stages); }

    float scale(const Adaptive &c, float size) const {
        return float(c.atol[member_]) + float(c.rtol[member_]) * size;
    }
    // Over the samples that are there; v(i) is a number of the tile's array of states.
    template <class Sum, class F> void add_squares(Sum &sum, F v) const {
        for (int64_t p = 0; p < s_.positions; ++p)
            for (int64_t s = 0, i = p * s_.samples * s_.channels; s < real_; ++s)
                for (int64_t c = 0; c < s_.channels; ++c, ++i) sum(s, v(i));
    }
    // f(sample, row of the arrays); samples that pad the tile count as its last one.
    template <class F> void for_rows(F f) const {
        for (int64_t p = 0; p < s_.positions; ++p)
            for (int64_t s = 0; s < s_.samples; ++s)
                f(std::min(s, real_ - 1), p * s_.samples + s);
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
        float *out = at(x_.hidden1, p, s_.width1);
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
        product(window(x_.hidden1, s_.width1, w_.p.w2, s_.width2, p), s_.samples, s_.width1,
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
            float *h2 = hidden2 ? hidden2 + p * s_.samples * s_.width2 : x_.hidden2;
            second_layer(p, h2);
            narrow(h2, w_.p.w3t, x_.bias3, out + p * block, s_.samples, s_.width2, s_.channels);
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
        if (!kept) h2 = x_.hidden2, second_layer(p, x_.hidden2);
        g += p * s_.samples * s_.channels;
        outer(g, h2, sums.w3t, s_.samples, s_.channels, s_.width2);
        float *out = at(x_.gradient2, p, s_.width2);
        Taps taps;
        taps.add(g, w_.p.w3t);
        product(taps, s_.samples, s_.channels, s_.width2, x_.zeros,
                [&](auto &sum, int64_t offset, int64_t column) {
                    finish_gradient(sum, h2 + offset, out + offset, sums.b2 + column, s_.width2);
                });
        for (int64_t tap = 0; tap < s_.window; ++tap) {
            const int64_t neighbour = p + tap - s_.radius;
            if (neighbour >= 0 && neighbour < s_.positions)
                outer(at(x_.hidden1, neighbour, s_.width1), out,
                      sums.w2 + tap * s_.width1 * s_.width2, s_.samples, s_.width1, s_.width2);
        }
    }

    void first_gradient(int64_t p, const float *y, const float *next, float *u, Weights &sums) {
        if (next) next += p * s_.samples * s_.width2;
        const float *h1 = at(x_.hidden1, p, s_.width1);
        product(window(x_.gradient2, s_.width2, w_.w2t, s_.width1, p), s_.samples, s_.width2,
                s_.width1, x_.zeros, [&](auto &sum, int64_t offset, int64_t column) {
                    finish_gradient(sum, h1 + offset, x_.gradient1 + offset, sums.b1 + column,
                                    s_.width1);
                    if (next && column == 0)
                        prefetch(next + offset / s_.width1 * s_.width2, ROWS, s_.width2, s_.width2);
                });
        const int64_t block = p * s_.samples * s_.channels;
        outer(y + block, x_.gradient1, sums.w1, s_.samples, s_.channels, s_.width1);
        narrow(x_.gradient1, w_.p.w1, x_.zeros, u + block, s_.samples, s_.width1, s_.channels);
    }
};

// ---------------------------------------------------------------------------- adaptive steps

enum End : int64_t { ARRIVED, UNDERFLOWN, NOT_FINITE, SPENT };

// How much longer the next step is; an accepted step is never followed by a shorter one.
double factor(const Adaptive &c, double error, bool accept) {
    const double wanted = c.safety * std::pow(std::max(error, 1e-10), c.exponent);
    return std::min(std::max(wanted, accept ? 1.0 : c.min_factor), c.max_factor);
}

// The first step: Hairer, Norsett, Wanner (1993), p. 169, as in initial_step_size. From the norms of
// state and slope a short one, and from how the slope changes over that the step itself.
double short_step(double d0, double d1) {
    return d0 < 1e-5 || d1 < 1e-5 ? 1e-6 : 0.01 * d0 / d1;
}
double longer_step(const Adaptive &c, double h0, double d1, double d2) {
    const double largest = d1 >= d2 ? d1 : d2; // NaN passes through, here and below
    const double h1 = largest <= 1e-15 ? std::max(1e-6, h0 * 1e-3)
                                       : std::pow(0.01 / largest, -c.exponent);
    return std::min(h1, 100 * h0);
}

// The adaptive solve of one member. The rule is that of solve_adaptive, line by line.
class Walk {
    const Problem &q_;
    const Adaptive &c_;
    const int64_t member_;
    std::vector<Tile> tiles_;

  public:
    Walk(const Problem &q, const Adaptive &c, const Shape &s, const Member &w, const Scratch &x,
         int64_t member)
        : q_(q), c_(c), member_(member) {
        for (int64_t t = 0; t < s.tiles; ++t) tiles_.emplace_back(q, s, w, x, member, t);
    }

    void run(Arena &arena) {
        for (Tile &tile : tiles_) tile.start(arena), tile.stage(0, 0, 0);
        int64_t nfe = 1, accepted = 0, rejected = 0, end = ARRIVED;
        double time = c_.t0, h = c_.first_step;
        if (h == 0) h = first_step(), ++nfe;
        while (time < c_.t1) {
            h = std::min(h, c_.t1 - time);
            if (time + h <= time) end = UNDERFLOWN;
            else if (accepted + rejected >= q_.most_steps) end = SPENT;
            if (end) break;
            const double error =
                norm([&](Tile &tile, auto &sum) { tile.attempt(accepted, h, c_, sum); });
            nfe += q_.stages - 1 + c_.same_as_last;
            if (!std::isfinite(error)) {
                end = NOT_FINITE;
                break;
            }
            const bool accept = error <= 1;
            if (accept) {
                // The last step lands on t1 exactly, whatever the rounding of the sum.
                time = h >= c_.t1 - time ? c_.t1 : time + h;
                q_.step_sizes[member_ * q_.most_steps + accepted++] = h;
                for (Tile &tile : tiles_) tile.accept(c_);
                if (!c_.same_as_last && time < c_.t1) {
                    for (Tile &tile : tiles_) tile.stage(accepted, 0, 0);
                    ++nfe;
                }
            } else {
                ++rejected;
            }
            h *= factor(c_, error, accept);
        }
        for (const Tile &tile : tiles_) tile.finish();
        q_.n_steps[member_] = accepted, c_.rejected[member_] = rejected, c_.nfe[member_] = nfe;
        c_.state[member_] = end, c_.time[member_] = time, c_.step[member_] = h;
    }

  private:
    // The root mean square over the member's batch; tiles are added in order.
    template <class F> double norm(F add_squares) {
        double sum = 0;
        for (Tile &tile : tiles_) {
            Tile::OverTile over;
            add_squares(tile, over);
            sum += over.sum;
        }
        return std::sqrt(sum / double(q_.batch * q_.positions * q_.channels));
    }

    double first_step() {
        const double d0 = norm([&](Tile &tile, auto &sum) { tile.size_of_state(c_, sum); });
        const double d1 = norm([&](Tile &tile, auto &sum) { tile.size_of_slope(c_, sum); });
        const double h0 = short_step(d0, d1);
        const double d2 = norm([&](Tile &tile, auto &sum) { tile.change_of_slope(h0, c_, sum); });
        return longer_step(c_, h0, d1, d2 / h0);
    }
};

// The adaptive solve of one tile whose samples step by themselves, by the same rule.
class SampleWalk {
    const Problem &q_;
    const Adaptive &c_;
    Tile tile_;
    const int64_t n_;
    std::vector<double> time_, h_, tried_; // `tried_`: the step, 0 where there is none to take
    std::vector<char> accepted_;

  public:
    SampleWalk(const Problem &q, const Adaptive &c, const Tile &tile)
        : q_(q), c_(c), tile_(tile), n_(tile.samples()), time_(n_, c.t0), h_(n_, c.first_step),
          tried_(n_), accepted_(n_) {}

    void run(Arena &arena) {
        tile_.start(arena), tile_.size_samples([](int64_t) { return 0.0; });
        tile_.stage(0, 0, 0);
        for (int64_t s = 0; s < n_; ++s)
            report(q_.n_steps, s) = report(c_.rejected, s) = 0, report(c_.state, s) = ARRIVED,
            report(c_.nfe, s) = c_.first_step == 0 ? 2 : 1;
        if (c_.first_step == 0) first_steps();
        for (int64_t step = 0; choose(step); ++step) {
            tile_.size_samples([&](int64_t s) { return tried_[s]; });
            const std::vector<double> error =
                norms([&](auto &sum) { tile_.attempt(step, 1, c_, sum); });
            for (int64_t s = 0; s < n_; ++s) judge(s, step, error[s]);
            tile_.accept(accepted_, step, c_);
            if (!c_.same_as_last) tile_.stage(step + 1, 1, 0);
        }
        tile_.finish();
        for (int64_t s = 0; s < n_; ++s) report(c_.time, s) = time_[s], report(c_.step, s) = h_[s];
    }

  private:
    template <class T> T &report(T *rows, int64_t sample) const {
        return rows[tile_.row(sample)];
    }
    bool active(int64_t s) const { return time_[s] < c_.t1 && report(c_.state, s) == ARRIVED; }

    // The steps to try next; false where no sample has any.
    bool choose(int64_t step) {
        for (int64_t s = 0; s < n_; ++s) {
            if (!active(s)) continue;
            h_[s] = std::min(h_[s], c_.t1 - time_[s]);
            if (time_[s] + h_[s] <= time_[s]) report(c_.state, s) = UNDERFLOWN;
            else if (step >= q_.most_steps) report(c_.state, s) = SPENT;
        }
        bool any = false;
        for (int64_t s = 0; s < n_; ++s) tried_[s] = active(s) ? any = true, h_[s] : 0;
        return any;
    }

    void judge(int64_t s, int64_t step, double error) {
        accepted_[s] = tried_[s] > 0 && error <= 1;
        double &size = q_.step_sizes[tile_.row(s) * q_.most_steps + step];
        size = accepted_[s] ? tried_[s] : 0;
        if (tried_[s] == 0) return;
        report(q_.n_steps, s) = step + 1, report(c_.nfe, s) += q_.stages - 1 + c_.same_as_last;
        if (!std::isfinite(error)) {
            report(c_.state, s) = NOT_FINITE;
            return;
        }
        if (accepted_[s]) {
            time_[s] = h_[s] >= c_.t1 - time_[s] ? c_.t1 : time_[s] + h_[s];
            report(c_.nfe, s) += !c_.same_as_last && time_[s] < c_.t1;
        } else {
            ++report(c_.rejected, s);
        }
        h_[s] *= factor(c_, error, accepted_[s]);
    }

    void first_steps() {
        const auto d0 = norms([&](auto &sum) { tile_.size_of_state(c_, sum); });
        const auto d1 = norms([&](auto &sum) { tile_.size_of_slope(c_, sum); });
        for (int64_t s = 0; s < n_; ++s) h_[s] = short_step(d0[s], d1[s]);
        tile_.size_samples([&](int64_t s) { return h_[s]; });
        const auto d2 = norms([&](auto &sum) { tile_.change_of_slope(1, c_, sum); });
        for (int64_t s = 0; s < n_; ++s) h_[s] = longer_step(c_, h_[s], d1[s], d2[s] / h_[s]);
    }

    // The root mean square of each sample.
    template <class F> std::vector<double> norms(F add_squares) {
        Tile::OverSamples over(n_);
        add_squares(over);
        for (double &sum : over.sums) sum = std::sqrt(sum / double(q_.positions * q_.channels));
        return over.sums;
    }
};

// ---------------------------------------------------------------------------- a call

class Call {
    const Problem &q_;
    Shape s_;
    Arena memory_;
    std::vector<Member> members_;

  public:
    explicit Call(const Problem &q) : q_(q), s_(q) {}
    int64_t tape_floats() const { return q_.members * s_.tiles * s_.tape(); }

    void forward() {
        prepare(false, 0);
        in_parallel(q_.members * s_.tiles, [&](int64_t i) {
            Arena &arena = reserved(1);
            const int64_t m = i / s_.tiles;
            const Scratch scratch(s_, members_[m], arena);
            Tile(q_, s_, members_[m], scratch, m, i % s_.tiles).forward(arena);
        });
    }

    void forward(const Adaptive &c) {
        prepare(false, 0);
        if (q_.per_sample) return sample_walks(c);
        in_parallel(q_.members, [&](int64_t m) {
            Arena &arena = reserved(s_.tiles);
            const Scratch scratch(s_, members_[m], arena);
            Walk(q_, c, s_, members_[m], scratch, m).run(arena);
        });
    }

    void sample_walks(const Adaptive &c) {
        in_parallel(q_.members * s_.tiles, [&](int64_t i) {
            Arena &arena = reserved(1);
            const int64_t m = i / s_.tiles;
            const Scratch scratch(s_, members_[m], arena);
            SampleWalk(q_, c, Tile(q_, s_, members_[m], scratch, m, i % s_.tiles)).run(arena);
        });
    }

    void backward() {
        const int64_t per_tile = (Weights::floats(s_) + 15) / 16 * 16;
        float *sums = prepare(true, q_.members * s_.tiles * per_tile);
        in_parallel(q_.members * s_.tiles, [&](int64_t i) {
            Arena &arena = reserved(1);
            const int64_t m = i / s_.tiles;
            const Scratch scratch(s_, members_[m], arena);
            float *sum = sums + i * per_tile;
            std::memset(sum, 0, per_tile * sizeof(float));
            Tile(q_, s_, members_[m], scratch, m, i % s_.tiles).backward(arena, Weights(s_, sum));
        });
        in_parallel(q_.members,
                    [&](int64_t m) { reduce(m, sums + m * s_.tiles * per_tile, per_tile); });
    }

  private:
    // The members' weights in padded form; returns room for `more` floats.
    float *prepare(bool transposed, int64_t more) {
        const int64_t per_member = Member::floats(s_);
        memory_.reserve(q_.members * per_member + more);
        float *weights = memory_.take(q_.members * per_member);
        members_.resize(q_.members);
        in_parallel(q_.members, [&](int64_t m) {
            members_[m] = Member(q_, s_, m, weights + m * per_member, transposed);
        });
        return memory_.take(more);
    }

    // This thread's memory, with room for as many tiles.
    Arena &reserved(int64_t tiles) const {
        static thread_local Arena arena;
        arena.reserve(Scratch::floats(s_) + tiles * Tile::floats(s_));
        return arena;
    }

    // OpenMP's threads are torch's own: a second pool would fight with the first for the cores.
    template <class Task> void in_parallel(int64_t count, Task task) const {
        const int threads = int(std::min(q_.threads, count));
        (void)threads;
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
        for (int64_t i = 0; i < count; ++i) task(i);
    }

    // Adds the tiles of a member in order and strips the padding.
    void reduce(int64_t m, float *first, int64_t per_tile) {
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
void nodecore_forward(const Problem *q) { Call(*q).forward(); }
void nodecore_adaptive(const Problem *q, const Adaptive *c) { Call(*q).forward(*c); }
void nodecore_backward(const Problem *q) { Call(*q).backward(); }

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
