// The dense vector field on two numbers, by its affine pieces instead of products.
//
// Where its first units are active cuts the plane of states z = (z_0, z_1) into cells; in a cell
// the second layer before its relu is affine. Where its units are active cuts the cell into
// regions, and in a region so is the field: with z_2 = 1, w1_2 = b1,
//
//     u_j(z) = sum over k of P_kj z_k,   P_kj = sum over active i of w1_ki W2_ij, b2_j in P_2j,
//     f_c(z) = sum over k of A_kc z_k,   A_kc = sum over active j of P_kj W3_jc, b3_c in A_2c.
//
// A cell is named by a word, the signs of the first units, a region by its cell and the word of
// the second units. So 2 products a unit of both layers tell a state's region, and 4 more give f.
// P and A are computed where a walk meets a cell or region first, then found by name. They depend
// on the names alone, no result on what was met before. P is a sum of rows, one for the signs of
// each eight first units, an octet: their lines cut the plane into 37 at most, and many cells
// share each.
//
// Backward, g = dL/df, an evaluation gives u = A g and adds to sums of its region,
//
//     T_kc = sum of z_k g_c,
//
// from which the gradients of the parameters come, once. M_kcj, of a cell: the sum of T over its
// regions where second unit j is active. X_kcj(i): that of M over the cells where first unit i is,
// first over those of the same signs in its octet, in double: there may be many. Y_cj(i): the sum
// over k of w1_ki X_kcj(i). Then
//
//     dW2_ij = sum over c of W3_jc Y_cj(i),    dW3_jc = sum over i of W2_ij Y_cj(i) + b2_j M_2cj,
//     dw1_ki = sum over j and c of W2_ij W3_jc X_kcj(i),    db2_j = sum over c of W3_jc M_2cj
//
// with M summed over all cells.
//
// Between forward and backward an evaluation of a sample costs 12 bytes, its state and the number
// of its region, and a region 40. There is room for a region with each evaluation, on pages that
// stay untouched where fewer are met.

#pragma once

#include <cmath>
#include <vector>

#include "dense.h"
#include "names.h"

namespace {

// Which units of V vectors are active at z. rows[k][j]: what unit j multiplies z_k by.
template <int V> inline uint64_t active(const float *rows, const float *z) {
    const vec z0 = vec{} + z[0], z1 = vec{} + z[1];
    vec u[V];
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) {
        const float *p = rows + v * LANES;
        u[v] = load(p + 2 * V * LANES) + z0 * load(p) + z1 * load(p + V * LANES);
    }
    return positive(u);
}

class Cells {
    // A walk that meets more than half as many forgets all that it met.
    using CellNames = Names<12>;
    using RegionNames = Names<13>;

    struct Piece {
        float a[3][2], unused[2]; // A, b3 in its last row
    };
    struct Count {
        int64_t cells, regions;
    };
    // Of a tile, from forward to backward: all that it ever met.
    struct Kept {
        struct Region {
            float a[2][2];
            uint64_t word;
            int64_t cell;
        };
        Count *count = nullptr;
        Region *regions;
        uint64_t *cells; // their words

        Kept() = default;
        Kept(float *memory, int64_t most)
            : count(reinterpret_cast<Count *>(memory)),
              regions(reinterpret_cast<Region *>(memory + 16)),
              cells(reinterpret_cast<uint64_t *>(regions + most)) {}
        static int64_t floats(int64_t most) { return 16 + most * (sizeof(Region) + 8) / 4; }
    };
    struct Sums {
        float a[2][2];
        double t[3][2];
    };
    class Fold;

  public:
    static constexpr int64_t WIDEST = 64; // units of a layer, a bit of a word each

    struct Shape : Dense::Shape {
        static constexpr int64_t SAMPLES = 128; // of a tile: the more, the more meet in a cell

        explicit Shape(const Problem &p) : Dense::Shape(p, SAMPLES) {}
        int64_t extra() const { return samples; } // numbers of regions
        int64_t shared() const { return Arena::rounded(Kept::floats(evaluations())); }
        int64_t evaluations() const { return samples * tape_steps * stages; }
        int64_t octets() const { return (width1 + 7) / 8; }
        int64_t p() const { return 3 * width2; } // floats of a cell's P
        int64_t m() const { return 6 * width2; } // and of its M
    };

    struct Member : Dense::Member {
        float start[3][2] = {}; // of A: b3, or NaN if a parameter is not finite

        Member() = default;
        Member(const Problem &q, const Shape &s, int64_t m, float *memory, bool)
            : Dense::Member(q, s, m, memory, false) {
            float zero = 0;
            for (int64_t i = 0; i < s.weights(); ++i) zero += 0 * memory[i];
            for (int k = 0; k < 3; ++k)
                for (int c = 0; c < 2; ++c) start[k][c] = zero + (k == 2 ? p.b3[c] : 0);
        }
    };

    static int64_t sums(const Shape &s) { return s.weights(); }
    static int64_t scratch(const Shape &s) {
        return Octets<double>::floats(s.octets(), s.m()) + CellNames::MOST * s.p() +
               CellNames::FLOATS + RegionNames::FLOATS +
               RegionNames::MOST * int64_t(sizeof(Piece) / 4) + 64;
    }

    Cells(const Shape &s, const Member &w, Arena &arena, bool backward)
        : s_(s), w_(w), backward_(backward),
          octets_(arena.take(Octets<double>::floats(s.octets(), s.m()))), parts_(octets_, s.p()),
          totals_(octets_, s.m()), cell_names_(arena.take(CellNames::FLOATS)),
          region_names_(arena.take(RegionNames::FLOATS)),
          p_(arena.take(CellNames::MOST * s.p())),
          pieces_(reinterpret_cast<Piece *>(arena.take(RegionNames::MOST * sizeof(Piece) / 4))) {}

    // Before a tile's walk: `shared` is what its evaluations share on the tape, or null.
    void begin(float *shared) {
        kept_ = shared ? Kept(shared, s_.evaluations()) : Kept();
        if (backward_) return start_sums();
        met_ = gone_ = {0, 0};
        parts_.clear();
        cell_names_.clear(), region_names_.clear();
        if (shared) *kept_.count = {0, 0};
    }

    // out = f(z); the numbers of the regions go to `numbers`, if they are to be kept.
    void evaluate(const float *z, float *out, float *numbers) {
        uint32_t *to = reinterpret_cast<uint32_t *>(numbers);
        for (int64_t i = 0; i < s_.samples; i += LANES) {
            make_room();
            side_by_side(z + 2 * i, out + 2 * i, to ? to + i : nullptr);
        }
    }

    // u = A g, and z and g added to the sums of the regions.
    void gradient(const float *z, const float *numbers, const float *, const float *g, float *u,
                  float *) {
        const uint32_t *number = reinterpret_cast<const uint32_t *>(numbers);
        for (int64_t i = 0; i < s_.samples; ++i, z += 2, g += 2, u += 2) {
            Sums &region = sums_[number[i]];
            for (int k = 0; k < 2; ++k) u[k] = region.a[k][0] * g[0] + region.a[k][1] * g[1];
            for (int c = 0; c < 2; ++c) {
                region.t[0][c] += z[0] * g[c], region.t[1][c] += z[1] * g[c];
                region.t[2][c] += g[c];
            }
        }
    }

    // After a tile's walk backward: from the sums of its regions to gradients of the parameters.
    void finish(const float *, float *sums);

    static void reduce(const Problem &q, const Shape &s, const Member &w, int64_t m, float *first,
                       int64_t per_block) {
        Dense::reduce(q, s, w, m, first, per_block);
    }

  private:
    const Shape &s_;
    const Member &w_;
    const bool backward_;
    float *octets_;         // memory for what is known of them:
    Octets<float> parts_;   // forward, what they add to P
    Octets<double> totals_; // backward, M over the cells that have their signs
    CellNames cell_names_;
    RegionNames region_names_;
    float *p_;      // [cell][k][j], b2 in the last row
    Piece *pieces_; // [region]
    Sums *sums_;    // [region]
    Kept kept_;
    Count met_, gone_; // known by name, and forgotten again

    // Each step for LANES states one after another: none waits for its own last step.
    void side_by_side(const float *z, float *out, uint32_t *numbers) {
        uint64_t word[LANES];
        uint32_t cell[LANES];
        with_width<WIDEST / LANES>(s_.width1 / LANES, [&](auto v) {
            for (int n = 0; n < LANES; ++n) word[n] = active<v.value>(w_.p.w1, z + 2 * n);
        });
        for (int n = 0; n < LANES; ++n)
            cell[n] = cell_names_.find(word[n], 0, [&] { return add_cell(word[n]); });
        with_width<WIDEST / LANES>(s_.width2 / LANES, [&](auto v) {
            for (int n = 0; n < LANES; ++n)
                word[n] = active<v.value>(p_ + cell[n] * s_.p(), z + 2 * n);
        });
        for (int n = 0; n < LANES; ++n) {
            const uint32_t region = region_names_.find(
                word[n], cell[n], [&] { return add_region(cell[n], word[n]); });
            const auto &a = pieces_[region].a;
            for (int c = 0; c < 2; ++c)
                out[2 * n + c] = a[2][c] + a[0][c] * z[2 * n] + a[1][c] * z[2 * n + 1];
            if (numbers) numbers[n] = uint32_t(gone_.regions + region);
        }
    }

    // For as many names as LANES states can bring.
    void make_room() {
        if (met_.cells + LANES <= CellNames::MOST && met_.regions + LANES <= RegionNames::MOST)
            return;
        cell_names_.clear(), region_names_.clear();
        gone_.cells += met_.cells, gone_.regions += met_.regions;
        met_ = {0, 0};
    }

    __attribute__((noinline)) uint32_t add_cell(uint64_t word) {
        const float *parts[8];
        int n = 0;
        for (int64_t o = 0; o < s_.octets(); ++o)
            if (signs_of(word, o))
                parts[n++] = parts_.find(word, o, [&](float *row) { add_units(word, o, row); });
        const int64_t width = s_.width2;
        float *p = p_ + met_.cells * s_.p();
        for (int64_t j = 0; j < width; j += LANES) {
            vec sum[3] = {{}, {}, load(w_.p.b2 + j)};
            for (int part = 0; part < n; ++part)
                for (int k = 0; k < 3; ++k) sum[k] += load(parts[part] + k * width + j);
            for (int k = 0; k < 3; ++k) store(p + k * width + j, sum[k]);
        }
        if (kept_.count) kept_.cells[kept_.count->cells++] = word;
        return uint32_t(met_.cells++);
    }

    // What the active units of an octet add to P.
    void add_units(uint64_t word, int64_t octet, float *row) const {
        const int64_t width = s_.width2;
        for (int64_t i = 8 * octet, signs = signs_of(word, octet); signs; ++i, signs >>= 1) {
            if (!(signs & 1)) continue;
            const float *w2 = w_.p.w2 + i * width;
            for (int64_t k = 0; k < 3; ++k) {
                const vec w1 = vec{} + w_.p.w1[k * s_.width1 + i];
                float *to = row + k * width;
                for (int64_t j = 0; j < width; j += LANES)
                    store(to + j, load(to + j) + w1 * load(w2 + j));
            }
        }
    }

    __attribute__((noinline)) uint32_t add_region(uint32_t cell, uint64_t word) {
        constexpr int VECTORS = (6 + LANES - 1) / LANES; // of totals
        const int64_t width = s_.width2;
        const float *p = p_ + cell * s_.p(), *w3t = w_.p.w3t;
        vec sum[VECTORS * LANES] = {};
        alignas(64) float total[VECTORS * LANES];
        for (int64_t j = 0; j < width; j += LANES)
            for (int c = 0; c < 2; ++c) {
                const vec w3 = only(bits(word >> j), load(w3t + c * width + j));
                for (int k = 0; k < 3; ++k) sum[2 * k + c] += load(p + k * width + j) * w3;
            }
        for (int i = 0; i < VECTORS; ++i)
            store(total + i * LANES, sum_lanes(reinterpret_cast<vec(&)[LANES]>(sum[i * LANES])));
        Piece &piece = pieces_[met_.regions];
        for (int k = 0; k < 3; ++k)
            for (int c = 0; c < 2; ++c) piece.a[k][c] = w_.start[k][c] + total[2 * k + c];
        if (kept_.count) {
            Kept::Region &region = kept_.regions[kept_.count->regions++];
            std::copy_n(piece.a[0], 4, region.a[0]);
            region.word = word, region.cell = gone_.cells + cell;
        }
        return uint32_t(met_.regions++);
    }

    void start_sums() {
        static thread_local Arena arena;
        constexpr int64_t FLOATS = sizeof(Sums) / sizeof(float), CHUNK = 1024; // seldom to grow
        const int64_t n = kept_.count->regions;
        totals_.clear();
        arena.reserve((n / CHUNK + 1) * CHUNK * FLOATS);
        sums_ = reinterpret_cast<Sums *>(arena.take_zeros(n * FLOATS));
        for (int64_t r = 0; r < n; ++r) std::copy_n(kept_.regions[r].a[0], 4, sums_[r].a[0]);
    }
};

// From the sums of a tile's regions to the gradients of the parameters.
class Cells::Fold {
    const Cells &f_;
    const Shape &s_;
    const Kept &kept_;
    const Dense::Weights &w_, to_;
    Octets<double> &octets_;
    alignas(64) float m_[6 * WIDEST], x_[6 * WIDEST]; // M of a cell; X of a unit
    double b3_[2] = {}, zero_ = 0;    // NaN if a state was not finite

  public:
    Fold(Cells &f, float *sums)
        : f_(f), s_(f.s_), kept_(f.kept_), w_(f.w_.p), to_(s_, sums), octets_(f.totals_) {}

    void run() {
        const int64_t cells = kept_.count->cells, regions = kept_.count->regions;
        std::vector<int64_t> first(cells, -1), next(regions); // the regions of a cell
        for (int64_t r = regions - 1; r >= 0; --r)
            next[r] = std::exchange(first[kept_.regions[r].cell], r);
        for (int64_t cell = 0; cell < cells; ++cell) {
            std::fill_n(m_, s_.m(), 0.f);
            for (int64_t r = first[cell]; r >= 0; r = next[r]) add_region(r);
            share(kept_.cells[cell]);
        }
        for (int64_t i = 0; i < s_.width1; ++i) first_unit(i);
        second_biases();
        for (int c = 0; c < 2; ++c) to_.b3[c] += float(b3_[c]);
        if (zero_ != 0) spoil();
    }

  private:
    // T into M, where second units are active.
    void add_region(int64_t r) {
        const auto &t = f_.sums_[r].t;
        const int64_t width = s_.width2;
        const uint64_t word = kept_.regions[r].word;
        vec values[6];
        for (int kc = 0; kc < 6; ++kc) values[kc] = vec{} + float(t[kc / 2][kc % 2]);
        for (int64_t j = 0; j < width; j += LANES)
            for (int kc = 0; kc < 6; ++kc) {
                float *to = m_ + kc * width + j;
                store(to, load(to) + only(bits(word >> j), values[kc]));
            }
        for (int c = 0; c < 2; ++c) b3_[c] += t[2][c], zero_ += 0 * (t[0][c] + t[1][c]);
    }

    // M to the octets of a cell that have active units; the first one gets it from every cell.
    void share(uint64_t word) {
        const int64_t n = s_.m();
        for (int64_t o = 0; o < s_.octets(); ++o) {
            if (o > 0 && !signs_of(word, o)) continue;
            double *to = octets_.find(word, o, [](double *) {});
            for (int64_t i = 0; i < n; ++i) to[i] += m_[i];
        }
    }

    // X: M over the cells that have these signs, among others, in an octet.
    void add_up(int64_t octet, int signs) {
        const double *rows[PATTERNS];
        const int n = octets_.with(octet, signs, rows);
        double sum[6 * WIDEST] = {};
        for (int row = 0; row < n; ++row)
            for (int64_t i = 0; i < s_.m(); ++i) sum[i] += rows[row][i];
        std::copy_n(sum, s_.m(), x_);
    }

    void first_unit(int64_t i) {
        const int64_t width = s_.width2;
        const float w1[3] = {w_.w1[i], w_.w1[s_.width1 + i], w_.b1[i]};
        vec gradient[LANES] = {}; // of these three
        add_up(i / 8, 1 << i % 8);
        for (int64_t j = 0; j < width; j += LANES) {
            const vec w2 = load(w_.w2 + i * width + j);
            float *dw2 = to_.w2 + i * width + j;
            for (int c = 0; c < 2; ++c) {
                vec x[3], y{};
                for (int k = 0; k < 3; ++k) {
                    x[k] = load(x_ + (2 * k + c) * width + j);
                    y += w1[k] * x[k];
                }
                const vec w3 = load(w_.w3t + c * width + j);
                float *dw3 = to_.w3t + c * width + j;
                store(dw2, load(dw2) + w3 * y), store(dw3, load(dw3) + w2 * y);
                for (int k = 0; k < 3; ++k) gradient[k] += w2 * w3 * x[k];
            }
        }
        const vec sums = sum_lanes(gradient);
        to_.w1[i] += sums[0], to_.w1[s_.width1 + i] += sums[1], to_.b1[i] += sums[2];
    }

    void second_biases() {
        const int64_t width = s_.width2;
        add_up(0, 0); // over all cells
        for (int64_t i = 0; i < 2 * width; i += LANES) {
            const vec m = load(x_ + 4 * width + i);
            float *db2 = to_.b2 + i % width, *dw3 = to_.w3t + i;
            store(db2, load(db2) + load(w_.w3t + i) * m);
            store(dw3, load(dw3) + load(w_.b2 + i % width) * m);
        }
    }

    // A product hands on a state that is not finite, also where its unit is inactive.
    void spoil() {
        std::fill_n(to_.w1, 2 * s_.width1, float(NAN));
        std::fill_n(to_.w2, s_.width1 * s_.width2, float(NAN));
        std::fill_n(to_.w3t, 2 * s_.width2, float(NAN));
    }
};

inline void Cells::finish(const float *, float *sums) { Fold(*this, sums).run(); }

} // namespace
