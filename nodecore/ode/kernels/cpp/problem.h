// What the caller hands over, how its batch is cut into tiles, and memory to work in.

#pragma once

#include <algorithm>
#include <new>

#include "vectors.h"

// Arrays are dense, members first; both structs are mirrored field by field in Python.
//
// The vector field has two hidden ReLU layers. taps = 1: a dense network on `channels` numbers,
// height = width = 1. taps = 3 or 9: a convolution on one channel, its middle layer reads that many
// neighbours in a row of `width` numbers (height = 1) or in an image.
extern "C" struct Problem {
    int64_t members, batch, channels, height, width, taps, width1, width2, stages, most_steps,
        threads, tape_steps, keep_hidden, adaptive, per_sample;
    int64_t w2_tap, w2_in, w2_out; // strides of w2 between taps, units in and units out
    const double *a, *b;           // (stages, stages), (stages)
    // One row for each member, or with per_sample for each sample, (members, batch):
    int64_t *n_steps;     // at most most_steps each
    double *step_sizes;   // (..., most_steps)
    const float *w1, *b1; // (members, channels, width1), (members, width1)
    const float *w2, *b2; // (members, taps * width1 * width2) in the strides above, ...
    const float *w3, *b3; // (members, width2, channels), ...
    const float *z0;      // (members, batch, sample)
    float *z1;            // the same
    float *tape;          // tape_steps stage states and what else the backward pass needs, or null
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

// A member's batch in tiles of `samples`, which go through a whole solve in the caches. Gradients
// of weights are summed tile by tile within a block, and the blocks added in order: a result does
// not depend on the number of threads.
struct Tiling {
    static constexpr int64_t MOST_BLOCKS = 8;
    int64_t sample, samples, tiles, blocks; // floats of a sample; samples of a tile; tiles, blocks
    int64_t stages, tape_steps;

    // Tiles of about `wanted` samples, each a multiple of `unit`.
    Tiling(const Problem &p, int64_t wanted, int64_t unit)
        : sample(p.channels * p.height * p.width), stages(p.stages), tape_steps(p.tape_steps) {
        const int64_t count = (p.batch + wanted - 1) / wanted;
        samples = ((p.batch + count - 1) / count + unit - 1) / unit * unit;
        tiles = (p.batch + samples - 1) / samples;
        blocks = std::min(tiles, MOST_BLOCKS);
    }
    int64_t state() const { return padded(samples * sample); }
    int64_t shared() const { return 0; } // floats of the tape that a tile's evaluations share
    int64_t first_tile(int64_t block) const { return block * tiles / blocks; }
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
    static constexpr int64_t rounded(int64_t floats) { return (floats + 15) / 16 * 16; }
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
        used_ += rounded(floats);
        return p;
    }
    int64_t used() const { return used_; }
    void rewind(int64_t used) { used_ = used; } // what was taken since is free again
    float *take_zeros(int64_t floats) {
        float *p = take(floats);
        std::memset(p, 0, floats * sizeof(float));
        return p;
    }
};

} // namespace
