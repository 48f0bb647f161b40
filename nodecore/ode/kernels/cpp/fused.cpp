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
// problem.h: arguments and tiles. walk.h: solves. dense.h, tables.h: the fields. Gradients of the
// weights are summed per block and the blocks added in order: the bits of a result do not depend
// on the number of threads.

#include "classifier.h"
#include "dense.h"
#include "tables.h"
#include "walk.h"

namespace {

template <class F> class Call {
    using Shape = typename F::Shape;
    using Member = typename F::Member;
    const Problem &q_;
    Shape s_;
    Arena memory_;
    std::vector<Member> members_;

  public:
    explicit Call(const Problem &q) : q_(q), s_(q) {}
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
        in_parallel(q_.members, [&](int64_t m) {
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
        in_parallel(q_.members, [&](int64_t m) {
            F::reduce(q_, s_, members_[m], m, sums + m * s_.blocks * per_block, per_block);
        });
    }

  private:
    // What the field makes of each member's weights; returns room for `more` floats.
    float *prepare(bool backward, int64_t more) {
        const int64_t per_member = Arena::rounded(Member::floats(s_));
        memory_.reserve(q_.members * per_member + more);
        float *weights = memory_.take(q_.members * per_member);
        members_.resize(q_.members);
        in_parallel(q_.members, [&](int64_t m) {
            members_[m] = Member(q_, s_, m, weights + m * per_member, backward);
        });
        return memory_.take(more);
    }

    // task(tile, memory of its own, number of its block), the tiles of a block one after another
    template <class Task> void for_tiles(bool backward, Task task) {
        in_parallel(q_.members * s_.blocks, [&](int64_t i) {
            const int64_t m = i / s_.blocks, block = i % s_.blocks;
            Arena &arena = reserved(1);
            float *stage = arena.take(s_.state());
            F field(s_, members_[m], arena, backward);
            const int64_t mark = arena.used();
            for (int64_t t = s_.first_tile(block); t < s_.first_tile(block + 1); ++t) {
                arena.rewind(mark);
                task(Tile<F>(q_, s_, field, stage, m, t), arena, i);
            }
        });
    }

    // This thread's memory, with room for as many tiles.
    Arena &reserved(int64_t tiles) const {
        static thread_local Arena arena;
        arena.reserve(s_.state() + 16 + F::scratch(s_) + tiles * Tile<F>::floats(s_));
        return arena;
    }

    // OpenMP's threads are torch's own: a second pool would fight with the first for the cores.
    template <class Task> void in_parallel(int64_t count, Task task) const {
        const int threads = int(std::min(q_.threads, count));
        (void)threads;
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
        for (int64_t i = 0; i < count; ++i) task(i);
    }
};

// f(a call for the problem's field)
template <class Function> auto with_call(const Problem &q, Function f) {
    if (q.taps == 1) return f(Call<Dense>(q));
    return f(Call<Tables>(q));
}

} // namespace

extern "C" {
int64_t nodecore_tape_floats(const Problem *q) {
    return with_call(*q, [](auto &&call) { return call.tape_floats(); });
}
void nodecore_forward(const Problem *q) {
    with_call(*q, [](auto &&call) { call.forward(); });
}
void nodecore_adaptive(const Problem *q, const Adaptive *c) {
    with_call(*q, [&](auto &&call) { call.forward(*c); });
}
void nodecore_backward(const Problem *q) {
    with_call(*q, [](auto &&call) { call.backward(); });
}
void nodecore_classify(const Classifier *q) { classify(*q); }

int64_t nodecore_lanes() { return LANES; }
// Of the structs that the caller mirrors, in bytes.
void nodecore_sizes(int64_t *problem, int64_t *adaptive, int64_t *classifier) {
    *problem = sizeof(Problem), *adaptive = sizeof(Adaptive), *classifier = sizeof(Classifier);
}
}
