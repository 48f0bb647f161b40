// Explicit Runge-Kutta solves of tiles under a vector field F: in given steps, forward and backward
// (the exact gradient of the discrete solve), and in steps that follow an error estimate.
//
// An error estimate is one norm over the whole batch of a member: there the loop over steps lies
// outside that over the tiles. Where each sample has a norm and steps of its own, the samples of a
// tile try their steps side by side; one that was rejected, or has arrived, takes a step of size 0.

#pragma once

#include <cmath>
#include <vector>

#include "problem.h"

namespace {

// One tile of one member.
template <class F> class Tile {
    using Shape = typename F::Shape;
    const Problem &q_;
    const Shape &s_;
    F &f_;
    int64_t member_, first_, real_;
    float *tape_;                    // [step][stage][state | what the field keeps], what it shares
    float *stage_;                   // of an evaluation off the tape
    float *z_, *z_new_, *k_, *zero_; // of a walk: states and slopes
    float *sizes_ = nullptr; // of each sample's own step, like a state; the others then count as 1

  public:
    Tile(const Problem &q, const Shape &s, F &f, float *stage, int64_t member, int64_t tile)
        : q_(q), s_(s), f_(f), member_(member), first_(tile * s.samples),
          real_(std::min(s.samples, q.batch - first_)),
          tape_(q.tape ? q.tape + (member * s.tiles + tile) * tape_floats(s) : nullptr),
          stage_(stage) {}

    static int64_t tape_floats(const Shape &s) {
        return s.tape_steps * s.stages * evaluation_floats(s) + s.shared();
    }
    // What a walk or the backward pass takes from the arena for itself.
    static int64_t floats(const Shape &s) { return (s.stages + 6) * (s.state() + 16); }
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
        f_.begin(shared());
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
        float *error = stage_;
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
        advance(stage_, z_, {float(h)});
        f_.evaluate(stage_, change, nullptr);
        add_squares(sum,
                    [&](int64_t i) { return (change[i] - k_[i]) / scale(c, std::abs(z_[i])); });
    }

    // Lets each sample take a step of its own size; those that pad the tile go with the last one.
    template <class Size> void size_samples(Size size) {
        for (int64_t s = 0; s < s_.samples; ++s)
            std::fill_n(sizes_ + s * s_.sample, s_.sample, float(size(std::min(s, real_ - 1))));
    }
    // Leaves the samples that did not accept the step where they were, on the tape as well.
    void accept(const std::vector<char> &accepted, int64_t step, const Adaptive &c) {
        const int64_t n = s_.state(), width = s_.sample;
        const bool tape = c.same_as_last && taped(step + 1);
        for (int64_t s = 0; s < s_.samples; ++s) {
            const int64_t at = s * width;
            if (accepted[std::min(s, real_ - 1)]) {
                std::copy_n(z_new_ + at, width, z_ + at);
                if (c.same_as_last) std::copy_n(k_ + s_.stages * n + at, width, k_ + at);
            } else if (tape) {
                const float *before = evaluation(step, 0);
                float *after = evaluation(step + 1, 0);
                std::copy_n(before + at, width, after + at);
                s_.copy_extra(before + n, after + n, s);
            }
        }
    }

    // The adjoint of `forward`, stage by stage. With u_j the gradient of stage j's argument:
    //     g_i = h (b_i lambda + sum over j > i of a_ji u_j),  u_i = f'(y_i)^T g_i,  lambda += sum u
    void backward(Arena &arena, float *sums) {
        f_.begin(shared());
        const int64_t n = s_.state(), stages = s_.stages;
        float *lambda = arena.take(n), *g = arena.take(n), *u = arena.take_zeros(stages * n);
        float *sum_g = arena.take_zeros(n), *zero = arena.take_zeros(n);
        if (q_.per_sample) sizes_ = arena.take(n);
        gather(q_.grad_z1, lambda);
        drop_padding(lambda);
        std::vector<float> ones(stages, 1.f);
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
                const float *y = evaluation(step, i), *kept = y + n;
                const bool last = step == 0 && i == 0;
                f_.gradient(y, kept, last ? nullptr : kept - evaluation_floats(s_), g, u + i * n,
                            sums);
            }
            combine(lambda, lambda, n, ones, u);
        }
        f_.finish(sum_g, sums);
        scatter(lambda, q_.grad_z0);
    }

  private:
    static int64_t evaluation_floats(const Shape &s) { return s.state() + Arena::rounded(s.extra()); }
    double size(int64_t row, int64_t step) const {
        return q_.step_sizes[row * q_.most_steps + step];
    }
    double h(int64_t step) const { return q_.per_sample ? 1 : size(member_, step); }
    int64_t n_steps() const {
        if (!q_.per_sample) return q_.n_steps[member_];
        return *std::max_element(q_.n_steps + row(0), q_.n_steps + row(real_));
    }
    float *shared() const { return tape_ ? evaluation(s_.tape_steps, 0) : nullptr; }
    bool taped(int64_t step) const { return tape_ && step < q_.tape_steps; }
    float *evaluation(int64_t step, int64_t stage) const {
        return tape_ + (step * s_.stages + stage) * evaluation_floats(s_);
    }
    // k = f(z + sum of coefficients times slopes), on the tape while that has room.
    void evaluate(int64_t step, int64_t i, const float *z, const std::vector<float> &coefficients,
                  float *k) {
        float *y = taped(step) ? evaluation(step, i) : stage_;
        advance(y, z, coefficients);
        f_.evaluate(y, k, taped(step) ? y + s_.state() : nullptr);
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
    template <class Sum, class V> void add_squares(Sum &sum, V v) const {
        for (int64_t s = 0, i = 0; s < real_; ++s)
            for (int64_t c = 0; c < s_.sample; ++c, ++i) sum(s, v(i));
    }

    // (batch, sample) -> [sample]. The missing samples of the last tile repeat its last one: they
    // cannot overflow unless that one does.
    void gather(const float *batch, float *tile) const {
        const int64_t n = s_.sample;
        std::copy_n(batch + row(0) * n, real_ * n, tile);
        for (int64_t s = real_; s < s_.samples; ++s)
            std::copy_n(tile + (real_ - 1) * n, n, tile + s * n);
        std::fill(tile + s_.samples * n, tile + s_.state(), 0.f);
    }
    void scatter(const float *tile, float *batch) const {
        std::copy_n(tile, real_ * s_.sample, batch + row(0) * s_.sample);
    }
    void drop_padding(float *tile) const {
        std::fill(tile + real_ * s_.sample, tile + s_.state(), 0.f);
    }
};

enum End : int64_t { ARRIVED, UNDERFLOWN, NOT_FINITE, SPENT };

// How much longer the next step is; an accepted step is never followed by a shorter one.
inline double factor(const Adaptive &c, double error, bool accept) {
    const double wanted = c.safety * std::pow(std::max(error, 1e-10), c.exponent);
    return std::min(std::max(wanted, accept ? 1.0 : c.min_factor), c.max_factor);
}

// The first step: Hairer, Norsett, Wanner (1993), p. 169, as in initial_step_size. From the norms of
// state and slope a short one, and from how the slope changes over that the step itself.
inline double short_step(double d0, double d1) {
    return d0 < 1e-5 || d1 < 1e-5 ? 1e-6 : 0.01 * d0 / d1;
}
inline double longer_step(const Adaptive &c, double h0, double d1, double d2) {
    const double largest = d1 >= d2 ? d1 : d2; // NaN passes through, here and below
    const double h1 = largest <= 1e-15 ? std::max(1e-6, h0 * 1e-3)
                                       : std::pow(0.01 / largest, -c.exponent);
    return std::min(h1, 100 * h0);
}

// The adaptive solve of one member. The rule is that of solve_adaptive, line by line.
template <class F> class Walk {
    const Problem &q_;
    const Adaptive &c_;
    const int64_t member_, sample_;
    std::vector<Tile<F>> tiles_;

  public:
    Walk(const Problem &q, const Adaptive &c, const typename F::Shape &s, F &f, float *stage,
         int64_t member)
        : q_(q), c_(c), member_(member), sample_(s.sample) {
        for (int64_t t = 0; t < s.tiles; ++t) tiles_.emplace_back(q, s, f, stage, member, t);
    }

    void run(Arena &arena) {
        for (Tile<F> &tile : tiles_) tile.start(arena), tile.stage(0, 0, 0);
        int64_t nfe = 1, accepted = 0, rejected = 0, end = ARRIVED;
        double time = c_.t0, h = c_.first_step;
        if (h == 0) h = first_step(), ++nfe;
        while (time < c_.t1) {
            h = std::min(h, c_.t1 - time);
            if (time + h <= time) end = UNDERFLOWN;
            else if (accepted + rejected >= q_.most_steps) end = SPENT;
            if (end) break;
            const double error =
                norm([&](Tile<F> &tile, auto &sum) { tile.attempt(accepted, h, c_, sum); });
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
                for (Tile<F> &tile : tiles_) tile.accept(c_);
                if (!c_.same_as_last && time < c_.t1) {
                    for (Tile<F> &tile : tiles_) tile.stage(accepted, 0, 0);
                    ++nfe;
                }
            } else {
                ++rejected;
            }
            h *= factor(c_, error, accept);
        }
        for (const Tile<F> &tile : tiles_) tile.finish();
        q_.n_steps[member_] = accepted, c_.rejected[member_] = rejected, c_.nfe[member_] = nfe;
        c_.state[member_] = end, c_.time[member_] = time, c_.step[member_] = h;
    }

  private:
    // The root mean square over the member's batch; tiles are added in order.
    template <class Add> double norm(Add add_squares) {
        double sum = 0;
        for (Tile<F> &tile : tiles_) {
            typename Tile<F>::OverTile over;
            add_squares(tile, over);
            sum += over.sum;
        }
        return std::sqrt(sum / double(q_.batch * sample_));
    }

    double first_step() {
        const double d0 = norm([&](Tile<F> &tile, auto &sum) { tile.size_of_state(c_, sum); });
        const double d1 = norm([&](Tile<F> &tile, auto &sum) { tile.size_of_slope(c_, sum); });
        const double h0 = short_step(d0, d1);
        const double d2 = norm([&](Tile<F> &tile, auto &sum) { tile.change_of_slope(h0, c_, sum); });
        return longer_step(c_, h0, d1, d2 / h0);
    }
};

// The adaptive solve of one tile whose samples step by themselves, by the same rule.
template <class F> class SampleWalk {
    const Problem &q_;
    const Adaptive &c_;
    Tile<F> tile_;
    const int64_t n_, sample_; // samples, floats of one
    std::vector<double> time_, h_, tried_; // `tried_`: the step, 0 where there is none to take
    std::vector<char> accepted_;

  public:
    SampleWalk(const Problem &q, const Adaptive &c, const Tile<F> &tile, int64_t sample)
        : q_(q), c_(c), tile_(tile), n_(tile.samples()), sample_(sample), time_(n_, c.t0), h_(n_, c.first_step),
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
    template <class Add> std::vector<double> norms(Add add_squares) {
        typename Tile<F>::OverSamples over(n_);
        add_squares(over);
        for (double &sum : over.sums) sum = std::sqrt(sum / double(sample_));
        return over.sums;
    }
};

} // namespace
