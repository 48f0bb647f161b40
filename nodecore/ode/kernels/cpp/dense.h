// The dense vector field f(y) = relu(relu(y W1 + b1) W2 + b2) W3 + b3 on a tile of samples.
//
// Arrays are [sample][unit]; hidden units are padded with zeros to whole SIMD vectors, and so are
// the samples of a tile.

#pragma once

#include "problem.h"
#include "products.h"

namespace {

class Dense {
  public:
    struct Shape : Tiling {
        int64_t channels, width1, width2;
        bool keep_hidden; // whether the tape holds the second hidden map beside the state

        explicit Shape(const Problem &p) : Shape(p, wanted(p)) {}
        Shape(const Problem &p, int64_t wanted)
            : Tiling(p, wanted, LANES),
              channels(p.channels), width1(padded(p.width1)), width2(padded(p.width2)),
              keep_hidden(p.keep_hidden) {}
        static int64_t wanted(const Problem &p) {
            const int64_t widest = std::max(padded(p.width1), padded(p.width2));
            return std::min<int64_t>(64, std::max<int64_t>(LANES, padded(4096 / widest)));
        }
        int64_t extra() const { return keep_hidden ? samples * width2 : 0; }
        int64_t weights() const { // floats of all parameters, padded
            return channels * width1 + width1 + width1 * width2 + width2 + channels * width2 +
                   Arena::rounded(channels);
        }
        void copy_extra(const float *from, float *to, int64_t sample) const {
            if (keep_hidden) std::copy_n(from + sample * width2, width2, to + sample * width2);
        }
    };

    // A member's parameters with padded widths; also the form in which gradients are summed.
    // W3 is kept transposed, so that its long side lies along the lanes.
    struct Weights {
        float *w1, *b1, *w2, *b2, *w3t, *b3;
        Weights() = default;
        Weights(const Shape &s, float *p) {
            w1 = p, b1 = w1 + s.channels * s.width1;
            w2 = b1 + s.width1, b2 = w2 + s.width1 * s.width2;
            w3t = b2 + s.width2, b3 = w3t + s.channels * s.width2;
        }
    };

    // The parameters of member m in padded form, and W2 transposed.
    struct Member {
        Weights p;
        float *w2t;
        static int64_t floats(const Shape &s) { return s.weights() + s.width1 * s.width2; }
        Member() = default;
        Member(const Problem &q, const Shape &s, int64_t m, float *memory, bool backward)
            : p(s, memory), w2t(memory + s.weights()) {
            std::memset(memory, 0, floats(s) * sizeof(float));
            const int64_t c = q.channels, n1 = q.width1, n2 = q.width2;
            for (int64_t i = 0; i < c; ++i)
                std::copy_n(q.w1 + (m * c + i) * n1, n1, p.w1 + i * s.width1);
            for (int64_t i = 0; i < n1; ++i) {
                const float *row = q.w2 + (m * n1 + i) * n2;
                std::copy_n(row, n2, p.w2 + i * s.width2);
                if (backward)
                    for (int64_t j = 0; j < n2; ++j) w2t[j * s.width1 + i] = row[j];
            }
            for (int64_t j = 0; j < n2; ++j)
                for (int64_t i = 0; i < c; ++i)
                    p.w3t[i * s.width2 + j] = q.w3[(m * n2 + j) * c + i];
            std::copy_n(q.b1 + m * n1, n1, p.b1);
            std::copy_n(q.b2 + m * n2, n2, p.b2);
            std::copy_n(q.b3 + m * c, c, p.b3);
        }
    };

    static int64_t sums(const Shape &s) { return s.weights(); }
    static int64_t scratch(const Shape &s) {
        return s.samples * (2 * s.width1 + 2 * s.width2 + s.channels) + zeros(s) + 7 * 16;
    }

    // Where a thread works on the tiles of one member, one after another.
    Dense(const Shape &s, const Member &w, Arena &arena, bool)
        : s_(s), w_(w), hidden1_(arena.take(s.samples * s.width1)),
          hidden2_(arena.take(s.samples * s.width2)), gradient2_(arena.take(s.samples * s.width2)),
          gradient1_(arena.take(s.samples * s.width1)), bias3_(arena.take(s.samples * s.channels)),
          zeros_(arena.take_zeros(zeros(s))) {
        for (int64_t i = 0; i < s.samples * s.channels; ++i) bias3_[i] = w.p.b3[i % s.channels];
    }

    // out = f(y); the second hidden map goes to `hidden2` if it is to be kept.
    void evaluate(const float *y, float *out, float *hidden2) {
        first_layer(y);
        float *h2 = hidden2 && s_.keep_hidden ? hidden2 : hidden2_;
        second_layer(h2);
        narrow(h2, w_.p.w3t, bias3_, out, s_.samples, s_.width2, s_.channels);
    }

    // u = f'(y)^T g, and the gradients of the parameters added to `sums`. `kept`: what evaluate
    // left; `next`: what it left for the evaluation that comes next, still far from the core.
    void gradient(const float *y, const float *kept, const float *next, const float *g, float *u,
                  float *sums) {
        Weights to(s_, sums);
        first_layer(y);
        const float *h2 = s_.keep_hidden ? kept : (second_layer(hidden2_), hidden2_);
        if (!s_.keep_hidden) next = nullptr;
        outer(g, h2, to.w3t, s_.samples, s_.channels, s_.width2);
        product(g, w_.p.w3t, s_.samples, s_.channels, s_.width2, zeros_,
                [&](auto &sum, int64_t offset, int64_t column) {
                    finish_gradient(sum, h2 + offset, gradient2_ + offset, to.b2 + column,
                                    s_.width2);
                });
        outer(hidden1_, gradient2_, to.w2, s_.samples, s_.width1, s_.width2);
        product(gradient2_, w_.w2t, s_.samples, s_.width2, s_.width1, zeros_,
                [&](auto &sum, int64_t offset, int64_t column) {
                    finish_gradient(sum, hidden1_ + offset, gradient1_ + offset, to.b1 + column,
                                    s_.width1);
                    if (next && column == 0)
                        prefetch(next + offset / s_.width1 * s_.width2, ROWS, s_.width2, s_.width2);
                });
        outer(y, gradient1_, to.w1, s_.samples, s_.channels, s_.width1);
        narrow(gradient1_, w_.p.w1, zeros_, u, s_.samples, s_.width1, s_.channels);
    }

    void begin(float *) const {}
    // The gradient of b3 from the sum of all g.
    void finish(const float *sum_g, float *sums) const {
        float *b3 = Weights(s_, sums).b3;
        for (int64_t i = 0; i < s_.state(); ++i) b3[i % s_.channels] += sum_g[i];
    }

    // Adds the blocks of member m in order and strips the padding.
    static void reduce(const Problem &q, const Shape &s, const Member &, int64_t m, float *first,
                       int64_t per_block) {
        for (int64_t t = 1; t < s.blocks; ++t)
            for (int64_t i = 0; i < s.weights(); ++i) first[i] += first[t * per_block + i];
        const Weights g(s, first);
        const int64_t c = q.channels, n1 = q.width1, n2 = q.width2;
        for (int64_t i = 0; i < c; ++i)
            std::copy_n(g.w1 + i * s.width1, n1, q.grad_w1 + (m * c + i) * n1);
        for (int64_t i = 0; i < n1; ++i)
            std::copy_n(g.w2 + i * s.width2, n2, q.grad_w2 + (m * n1 + i) * n2);
        for (int64_t j = 0; j < n2; ++j)
            for (int64_t i = 0; i < c; ++i)
                q.grad_w3[(m * n2 + j) * c + i] = g.w3t[i * s.width2 + j];
        std::copy_n(g.b1, n1, q.grad_b1 + m * n1);
        std::copy_n(g.b2, n2, q.grad_b2 + m * n2);
        std::copy_n(g.b3, c, q.grad_b3 + m * c);
    }

  private:
    const Shape &s_;
    const Member &w_;
    float *hidden1_, *hidden2_, *gradient2_, *gradient1_, *bias3_, *zeros_;

    static int64_t zeros(const Shape &s) {
        return s.samples * std::max(s.channels, std::max(s.width1, s.width2));
    }

    void first_layer(const float *y) {
        product(y, w_.p.w1, s_.samples, s_.channels, s_.width1, w_.p.b1,
                [&](auto &sum, int64_t offset, int64_t) {
                    each(sum, [&](vec &v, int r, int c) {
                        store(hidden1_ + offset + r * s_.width1 + c, relu(v));
                    });
                });
    }

    void second_layer(float *out) {
        product(hidden1_, w_.p.w2, s_.samples, s_.width1, s_.width2, w_.p.b2,
                [&](auto &sum, int64_t offset, int64_t) {
                    each(sum, [&](vec &v, int r, int c) {
                        store(out + offset + r * s_.width2 + c, relu(v));
                    });
                });
    }

    template <int V, class F> static inline void each(vec (&sum)[ROWS][V], F f) {
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 6
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
};

} // namespace
