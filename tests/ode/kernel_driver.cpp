// Runs the kernel over odd shapes for the sanitizers: arrays of exactly the sizes it may touch,
// one thread against three, kept against recomputed hidden maps; given steps and adaptive ones.

#include "fused.cpp"

#include <cstdio>
#include <cstdlib>

namespace {

// Of exactly `n` floats: one too many read or written is an error of the sanitizer.
struct Array {
    std::vector<float> values;
    explicit Array(int64_t n, float scale = 0) : values(n) {
        for (float &v : values) v = scale * (2.f * std::rand() / RAND_MAX - 1.f);
        values.shrink_to_fit();
    }
    float *data() { return values.data(); }
};

struct Run {
    Array z1, z0, w1, b1, w2, b2, w3, b3; // the result and the gradients
    bool operator==(const Run &o) const {
        return z1.values == o.z1.values && z0.values == o.z0.values && w1.values == o.w1.values &&
               b1.values == o.b1.values && w2.values == o.w2.values && b2.values == o.b2.values &&
               w3.values == o.w3.values && b3.values == o.b3.values;
    }
};

struct Case {
    int64_t members, batch, channels, height, width, width1, width2, taps, steps = 3;
    bool in_cells = false;
    int64_t state() const { return members * batch * channels * height * width; }
};

const double RK4_A[] = {0, 0, 0, 0, .5, 0, 0, 0, 0, .5, 0, 0, 0, 0, 1, 0};
const double RK4_B[] = {1 / 6., 1 / 3., 1 / 3., 1 / 6.};

// Fehlberg's method, and one of two stages whose estimate takes the next step's first one.
const double FEHLBERG_A[] = {0, 0, 0, .5, 0, 0, 1 / 256., 255 / 256., 0};
const double FEHLBERG_B[] = {1 / 512., 255 / 256., 1 / 512.};
const double FEHLBERG_ERROR[] = {-1 / 512., 0, 1 / 512.};
const double HEUN_A[] = {0, 0, 1, 0}, HEUN_B[] = {.5, .5}, HEUN_ERROR[] = {-.5, 1, -.5};

enum Steps { GIVEN, FEHLBERG, HEUN };

// A pass forward; the number of steps where that is the solver's choice.
void forward(Problem &q, Steps steps) {
    if (steps == GIVEN) {
        nodecore_forward(&q);
        return;
    }
    std::vector<int64_t> counts(3 * q.members);
    std::vector<double> ends(2 * q.members);
    Adaptive c{};
    const std::vector<double> tolerance(q.members, 1e-2);
    c.same_as_last = steps == HEUN, c.t1 = 1, c.exponent = -.5;
    c.rtol = c.atol = tolerance.data();
    c.safety = .9, c.min_factor = .2, c.max_factor = 10;
    c.b_error = steps == HEUN ? HEUN_ERROR : FEHLBERG_ERROR;
    c.nfe = counts.data(), c.rejected = c.nfe + q.members, c.state = c.rejected + q.members;
    c.time = ends.data(), c.step = c.time + q.members;
    nodecore_adaptive(&q, &c);
    for (int64_t m = 0; m < q.members; ++m)
        if (c.state[m] != ARRIVED || c.time[m] != 1) std::puts("did not arrive"), std::exit(1);
}

Run solve(const Case &c, Array *in, int64_t threads, bool keep, Steps steps) {
    const int64_t state = c.state();
    const int64_t most = steps == GIVEN ? c.steps : 1000;
    std::vector<int64_t> n_steps(c.members);
    std::vector<double> sizes(c.members * most);
    for (int64_t m = 0; m < c.members && steps == GIVEN; ++m) {
        n_steps[m] = c.steps - m % 3;
        for (int64_t i = 0; i < n_steps[m]; ++i) sizes[m * most + i] = 1. / n_steps[m];
    }
    Run r{Array(state),
          Array(state),
          Array(in[1].values.size()),
          Array(in[2].values.size()),
          Array(in[3].values.size()),
          Array(in[4].values.size()),
          Array(in[5].values.size()),
          Array(in[6].values.size())};
    Problem q{};
    q.members = c.members, q.batch = c.batch, q.channels = c.channels;
    q.height = c.height, q.width = c.width, q.taps = c.taps;
    q.width1 = c.width1, q.width2 = c.width2, q.threads = threads;
    q.w2_tap = c.width1 * c.width2, q.w2_in = c.width2, q.w2_out = 1;
    q.adaptive = steps != GIVEN;
    q.stages = steps == GIVEN ? 4 : steps == HEUN ? 2 : 3;
    q.a = steps == GIVEN ? RK4_A : steps == HEUN ? HEUN_A : FEHLBERG_A;
    q.b = steps == GIVEN ? RK4_B : steps == HEUN ? HEUN_B : FEHLBERG_B;
    q.n_steps = n_steps.data(), q.step_sizes = sizes.data(), q.most_steps = most;
    q.z0 = in[0].data(), q.w1 = in[1].data(), q.b1 = in[2].data(), q.w2 = in[3].data();
    q.b2 = in[4].data(), q.w3 = in[5].data(), q.b3 = in[6].data(), q.grad_z1 = in[7].data();
    q.z1 = r.z1.data(), q.grad_z0 = r.z0.data(), q.grad_w1 = r.w1.data(), q.grad_b1 = r.b1.data();
    q.grad_w2 = r.w2.data(), q.grad_b2 = r.b2.data(), q.grad_w3 = r.w3.data();
    q.grad_b3 = r.b3.data();
    forward(q, steps); // without a tape
    const std::vector<float> untaped = r.z1.values;
    const int64_t taken = *std::max_element(n_steps.begin(), n_steps.end());
    for (int64_t room : {taken - 1, taken}) { // the first tape is too short for a step
        if (room == 0 || (steps == GIVEN && room < taken)) continue;
        q.tape_steps = room, q.keep_hidden = keep;
        q.tape = static_cast<float *>(
            ::operator new(nodecore_tape_floats(&q) * 4, std::align_val_t{64}));
        forward(q, steps);
        if (room == taken) nodecore_backward(&q);
        ::operator delete(q.tape, std::align_val_t{64});
        if (r.z1.values != untaped) std::puts("the tape changes the result"), std::exit(1);
    }
    return r;
}

void check(const Case &c) {
    const int64_t state = c.state(), m = c.members;
    Array in[] = {Array(state, 1),
                  Array(m * c.channels * c.width1, 1),
                  Array(m * c.width1, .1f),
                  Array(m * c.taps * c.width1 * c.width2, .3f),
                  Array(m * c.width2, .1f),
                  Array(m * c.width2 * c.channels, .3f),
                  Array(m * c.channels, .1f),
                  Array(state, 1)};
    for (Steps steps : {GIVEN, FEHLBERG, HEUN}) {
        if (steps != GIVEN && c.in_cells) continue; // these are for given steps only
        Run one = solve(c, in, 1, true, steps);
        if (!(one == solve(c, in, 3, true, steps)))
            std::puts("threads change the result"), std::exit(1);
        if (!(one == solve(c, in, 3, false, steps)))
            std::puts("recomputing changes the result"), std::exit(1);
    }
}

} // namespace

// The classifier on two members, in arrays of exactly the sizes it may touch.
void check_classifier() {
    std::vector<float> z(2 * 5 * 3, 0.5f), w(2 * 3 * 4, 0.1f), b(2 * 4, 0.2f);
    std::vector<float> loss(2), grad_z(z.size()), grad_w(w.size()), grad_b(b.size());
    const std::vector<int64_t> y = {0, 1, 2, 3, 0, 1, 2, 3, 0, 1};
    const Classifier q{2,        5,           3,           4,           z.data(), w.data(),
                       b.data(), y.data(),    loss.data(), grad_z.data(),         grad_w.data(),
                       grad_b.data()};
    nodecore_classify(&q);
    for (float value : loss)
        if (std::abs(value - std::log(4.0f)) > 1e-6f) std::puts("wrong loss"), std::exit(1);
}

int main() {
    check_classifier();
    check({1, 1, 1, 1, 1, 1, 1, 1});
    check({3, 70, 2, 1, 1, 48, 48, 1});
    check({2, 129, 3, 1, 1, 17, 65, 1});
    check({3, 130, 2, 1, 1, 48, 41, 1, 20, true});
    check({1, 1, 2, 1, 1, 64, 1, 1, 400, true});
    check({2, 9, 2, 1, 1, 1, 64, 1, 90, true});
    check({2, 33, 1, 1, 2, 32, 32, 3});
    check({1, 700, 1, 1, 7, 20, 9, 3});
    check({1, 1, 1, 1, 1, 1, 1, 9});
    check({2, 70, 1, 5, 3, 9, 50, 9});
    check({1, 2, 1, 50, 50, 3, 17, 9});
}
