// The merges of byte pair encoding, and a hash table from a pair of tokens to its merge, over mapped arrays.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>

class MergeIndex {
  public:
    static constexpr uint32_t kNone = 0xffffffffu;
    static constexpr size_t kProbes = 64;

    MergeIndex() = default;
    // `merges` is [count, 3]: left, right, merged. `slots` is a power of two; a slot is 0 or a rank + 1.
    MergeIndex(const uint32_t *merges, size_t count, const uint32_t *index, size_t slots)
        : merges_(merges), index_(index), count_(count), slots_(slots) {
        for (; slots >> (64 - shift_) > 1; --shift_) {
        }
    }

    // The rank of the merge of a pair, kNone if there is none.
    uint32_t find(uint32_t left, uint32_t right) const {
        size_t slot = home(left, right);
        for (size_t i = 0; i < kProbes && slots_ != 0; ++i, slot = (slot + 1) & (slots_ - 1)) {
            const uint32_t rank = index_[slot] - 1;
            if (rank == kNone) return kNone;
            if (rank >= count_) continue;  // only in a damaged file
            const uint32_t *merge = merges_ + 3 * static_cast<size_t>(rank);
            if (merge[0] == left && merge[1] == right) return rank;
        }
        return kNone;
    }

    size_t count() const { return count_; }
    uint32_t left(uint32_t rank) const { return merges_[3 * static_cast<size_t>(rank)]; }
    uint32_t right(uint32_t rank) const { return merges_[3 * static_cast<size_t>(rank) + 1]; }

    // The highest token of all merges.
    size_t max_token() const { return count_ ? *std::max_element(merges_, merges_ + 3 * count_) : 0; }

    // The token that a merge of a known rank makes.
    uint32_t merged(uint32_t rank) const { return merges_[3 * static_cast<size_t>(rank) + 2]; }

  private:
    size_t home(uint32_t left, uint32_t right) const {
        const uint64_t pair = static_cast<uint64_t>(left) << 32 | right;
        return shift_ == 64 ? 0 : pair * 0x9e3779b97f4a7c15u >> shift_;
    }

    const uint32_t *merges_ = nullptr, *index_ = nullptr;
    size_t count_ = 0, slots_ = 0;
    unsigned shift_ = 64;
};
