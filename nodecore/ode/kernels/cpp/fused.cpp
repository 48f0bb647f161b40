// Explicit Runge-Kutta solves of a batch under a vector field with two hidden ReLU layers, forward
// and backward, for many members at once: what the caller's library exports.
//
// Order of loops, outermost first:
//     (member, block of tiles)    independent, shared out between threads; in steps that follow an
//                                 error estimate of the whole batch, members alone
//     tile of samples             its state stays in the caches through the whole solve
//     step, stage
//     the field's own loops
//
// problem.h: arguments and tiles. walk.h: solves. dense.h, cells.h, tables.h: the fields. Gradients
// of the weights are summed per block and the blocks added in order: the bits of a result do not
// depend on the number of threads.

#include <exception>
#include <numeric>

#include "cells.h"
#include "classifier.h"
#include "dense.h"
#include "tables.h"
#include "walk.h"

namespace {

// The passes of some members whose field is an F, in an order of their own on the tape.
template <class F> class Call {
    using Shape = typename F::Shape;
    using Member = typename F::Member;
    Problem q_;
    std::vector<int64_t> numbers_; // of the members
    Shape s_;
    Arena memory_;
    std::vector<Member> members_;

  public:
    Call(const Problem &q, std::vector<int64_t> numbers, float *tape)
        : q_(q), numbers_(std::move(numbers)), s_(q), members_(q.members) {
        q_.tape = tape;
    }
    // With room for all members: what is not written to costs nothing.
    int64_t tape_floats() const { return q_.members * s_.tiles * Tile<F>::tape_floats(s_); }

    void forward() {
        prepare(false, 0);
        for_tiles(false, [&](Tile<F> tile, Arena &arena, int64_t) { tile.forward(arena); });
    }

    void forward(const Adaptive &c) {
        prepare(false, 0);
        if (q_.per_sample) {
            for_tiles(false, [&](Tile<F> tile, Arena &arena, int64_t) {
                SampleWalk<F>(q_, c, tile, s_.sample).run(arena);
            });
            return;
        }
        for_members([&](int64_t m) {
            Arena &arena = reserved(s_.tiles);
            float *stage = arena.take(s_.state());
            F field(s_, members_[m], arena, false);
            Walk<F>(q_, c, s_, field, stage, m).run(arena);
        });
    }

    void backward() {
        const int64_t per_block = Arena::rounded(F::sums(s_));
        const int64_t all = q_.members * s_.blocks * per_block;
        float *sums = prepare(true, all);
        std::memset(sums, 0, all * sizeof(float));
        for_tiles(true, [&](Tile<F> tile, Arena &arena, int64_t block) {
            tile.backward(arena, sums + block * per_block);
        });
        for_members([&](int64_t m) {
            F::reduce(q_, s_, members_[m], m, sums + m * s_.blocks * per_block, per_block);
        });
    }

  private:
    // What the field makes of each member's weights; returns room for `more` floats.
    float *prepare(bool backward, int64_t more) {
        const int64_t per_member = Arena::rounded(Member::floats(s_));
        memory_.reserve(q_.members * per_member + more);
        float *weights = memory_.take(q_.members * per_member);
        for_members([&](int64_t m) {
            members_[m] = Member(q_, s_, m, weights + m * per_member, backward);
        });
        return memory_.take(more);
    }

    // task(tile, memory of its own, number of its block), the tiles of a block one after another
    template <class Task> void for_tiles(bool backward, Task task) {
        in_parallel(int64_t(numbers_.size()) * s_.blocks, [&](int64_t i) {
            const int64_t m = numbers_[i / s_.blocks], block = i % s_.blocks;
            Arena &arena = reserved(1);
            float *stage = arena.take(s_.state());
            F field(s_, members_[m], arena, backward);
            const int64_t mark = arena.used();
            for (int64_t t = s_.first_tile(block); t < s_.first_tile(block + 1); ++t) {
                arena.rewind(mark);
                task(Tile<F>(q_, s_, field, stage, m, t), arena, m * s_.blocks + block);
            }
        });
    }

    template <class Task> void for_members(Task task) const {
        in_parallel(int64_t(numbers_.size()), [&](int64_t i) { task(numbers_[i]); });
    }

    // This thread's memory, with room for as many tiles.
    Arena &reserved(int64_t tiles) const {
        static thread_local Arena arena;
        arena.reserve(s_.state() + 16 + F::scratch(s_) + tiles * Tile<F>::floats(s_));
        return arena;
    }

    // OpenMP's threads are torch's own: a second pool would fight with the first for the cores.
    // Nothing may be thrown out of their loop: one of the exceptions goes on behind it.
    template <class Task> void in_parallel(int64_t count, Task task) const {
        const int threads = int(std::min(q_.threads, count));
        (void)threads;
        std::exception_ptr thrown;
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
        for (int64_t i = 0; i < count; ++i) {
            try {
                task(i);
            } catch (...) {
#pragma omp critical
                thrown = std::current_exception();
            }
        }
        if (thrown) std::rethrow_exception(thrown);
    }
};

// Whether a member's walk evaluates often enough, in each of its tiles, to pay for tables of cells.
// At 1,024 evaluations these are 1.3 times as fast with trained weights, 2.3 times with fresh ones.
bool in_cells(const Problem &q, int64_t member) {
    if (q.adaptive || q.taps != 1 || q.channels != 2) return false;
    if (std::max(q.width1, q.width2) > Cells::WIDEST) return false;
    const int64_t samples = std::min(q.batch, Cells::Shape(q).samples);
    return samples * q.n_steps[member] * q.stages >= 1024;
}

// f(call) for the members of each field; one after another on the tape.
template <class Function> void for_calls(const Problem &q, Function f) {
    std::vector<int64_t> members[2];
    for (int64_t m = 0; m < q.members; ++m) members[in_cells(q, m)].push_back(m);
    float *tape = q.tape;
    const auto run = [&](auto &&call) {
        f(call);
        if (tape) tape += call.tape_floats();
    };
    if (q.taps != 1) return run(Call<Tables>(q, members[0], tape));
    if (!members[0].empty()) run(Call<Dense>(q, members[0], tape));
    if (!members[1].empty()) run(Call<Cells>(q, members[1], tape));
}

// What the caller is told, who cannot catch what is thrown here.
enum Outcome { DONE, NO_MEMORY, UNKNOWN_LABEL };

template <class Function> int told(Function f) {
    try {
        f();
    } catch (const std::bad_alloc &) {
        return NO_MEMORY;
    }
    return DONE;
}

} // namespace

extern "C" {
int64_t nodecore_tape_floats(const Problem *q) {
    int64_t floats = 0;
    for_calls(*q, [&](auto &call) { floats += call.tape_floats(); });
    return floats;
}
int nodecore_forward(const Problem *q) {
    return told([&] { for_calls(*q, [](auto &call) { call.forward(); }); });
}
int nodecore_adaptive(const Problem *q, const Adaptive *c) {
    return told([&] {
        std::vector<int64_t> all(q->members);
        std::iota(all.begin(), all.end(), 0);
        if (q->taps == 1) return Call<Dense>(*q, all, q->tape).forward(*c);
        Call<Tables>(*q, all, q->tape).forward(*c);
    });
}
int nodecore_backward(const Problem *q) {
    return told([&] { for_calls(*q, [](auto &call) { call.backward(); }); });
}
int nodecore_classify(const Classifier *q) {
    if (!labels_are_known(*q)) return UNKNOWN_LABEL;
    return told([&] { classify(*q); });
}

int64_t nodecore_lanes() { return LANES; }
// Of the structs that the caller mirrors, in bytes.
void nodecore_sizes(int64_t *problem, int64_t *adaptive, int64_t *classifier) {
    *problem = sizeof(Problem), *adaptive = sizeof(Adaptive), *classifier = sizeof(Classifier);
}
}
