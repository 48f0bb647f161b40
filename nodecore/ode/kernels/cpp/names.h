// Words of bits, and what is found by them.

#pragma once

#include "vectors.h"

namespace {

// Numbers by a word and the number of its owner: a hash table of 2^BITS entries, half of them used.
template <int BITS> class Names {
    struct Entry {
        uint64_t word;
        uint32_t owner, number; // owner + 1: 0 where there is no entry
    };
    Entry *entries_;

  public:
    static constexpr int64_t MOST = int64_t(1) << (BITS - 1);
    static constexpr int64_t FLOATS = 2 * MOST * int64_t(sizeof(Entry) / sizeof(float));

    explicit Names(float *memory) : entries_(reinterpret_cast<Entry *>(memory)) {}
    void clear() { std::memset(static_cast<void *>(entries_), 0, FLOATS * sizeof(float)); }

    // The number of a name; that of a new one is what add() returns.
    template <class Add> uint32_t find(uint64_t word, uint32_t owner, Add add) {
        constexpr uint64_t SPREAD = 0x9E3779B97F4A7C15u; // 2^64 divided by the golden ratio
        ++owner;
        for (uint64_t at = (word + owner * SPREAD) * SPREAD >> (64 - BITS);; ++at) {
            Entry &entry = entries_[at % (2 * MOST)];
            if (entry.word == word && entry.owner == owner) return entry.number;
            if (entry.owner) continue;
            entry = {word, owner, add()};
            return entry.number;
        }
    }
};

// Eight signs of a word, and how many patterns of them there are.
constexpr int PATTERNS = 256;
inline int signs_of(uint64_t word, int64_t octet) { return word >> (8 * octet) & (PATTERNS - 1); }

// A row of `size` numbers for each pattern of eight signs that is met, of eight octets of a word.
template <class Number> class Octets {
  public:
    static int64_t floats(int64_t octets, int64_t size) {
        return octets * PATTERNS * size * int64_t(sizeof(Number) / sizeof(float));
    }

    Octets(float *memory, int64_t size) : rows_(reinterpret_cast<Number *>(memory)), size_(size) {}
    void clear() {
        std::memset(row_, -1, sizeof row_);
        std::memset(count_, 0, sizeof count_);
        rows_met_ = 0;
    }

    // The row of an octet of a word. A new one is of zeros, then handed to fill(row).
    template <class Fill> Number *find(uint64_t word, int64_t octet, Fill fill) {
        const int pattern = signs_of(word, octet);
        int16_t &number = row_[octet][pattern];
        if (number < 0) {
            number = rows_met_++;
            met_[octet][count_[octet]++] = uint8_t(pattern);
            std::memset(row(number), 0, size_ * sizeof(Number));
            fill(row(number));
        }
        return row(number);
    }

    // The rows of all patterns of an octet that have these signs among theirs; how many they are.
    int with(int64_t octet, int signs, const Number **rows) const {
        int n = 0;
        for (int i = 0; i < count_[octet]; ++i) {
            const int pattern = met_[octet][i];
            if ((pattern & signs) == signs) rows[n++] = row(row_[octet][pattern]);
        }
        return n;
    }

  private:
    Number *rows_;
    int64_t size_;
    int16_t row_[8][PATTERNS], rows_met_; // -1: not met
    uint8_t met_[8][PATTERNS];            // patterns in the order in which they were met
    int count_[8];

    Number *row(int64_t number) const { return rows_ + size_ * number; }
};

} // namespace
