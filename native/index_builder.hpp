// Builds the token index of the .sfq format, and finds duplicates on the way.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "buffer.hpp"
#include "hash.hpp"
#include "token_index.hpp"
#include "valid.hpp"

// Tokens whose slots are prefetched together.
constexpr size_t kInsertGroup = 16;

// The slots of an index, filled in the order of rows. Each insertion keeps the entries sorted by home, then
// by row, and moves later ones up by a slot (Robin Hood hashing).
class SlotTable {
  public:
    enum Outcome { kInserted, kDuplicate, kCrowded };

    SlotTable() : layout_(0, kProbeLimit) {}
    // Needs slot_count >= kProbeLimit and rows < 2^32 - 1.
    SlotTable(uint64_t rows, uint64_t slot_count)
        : layout_(rows, slot_count), slots_(slot_count), distances_(slot_count) {
        std::fill(slots_.data(), slots_.data() + slot_count, 0);
        std::fill(distances_.data(), distances_.data() + slot_count, 0);
    }

    uint64_t homes() const { return layout_.homes; }
    Buffer<uint32_t> take_slots() { return std::move(slots_); }

    void prefetch(uint64_t hash) const {
        __builtin_prefetch(slots_.data() + layout_.home(hash), 1);
        __builtin_prefetch(distances_.data() + layout_.home(hash), 1);
    }

    // Inserts the token of a row, unless it equals that of an earlier row: `equals(row)` compares them.
    // kCrowded: a token would be kProbeLimit or more slots after its home; the table is lost.
    template <class Equals>
    Outcome insert(uint64_t hash, uint64_t row, Equals equals) {
        uint32_t entry = layout_.fingerprint(hash) | static_cast<uint32_t>(row + 1);
        uint64_t slot = layout_.home(hash);
        uint8_t distance = 0;  // from home
        for (; slots_[slot] != 0 && distances_[slot] >= distance; ++slot) {
            const bool sibling =
                distances_[slot] == distance && ((slots_[slot] ^ entry) & ~layout_.row_mask) == 0;
            if (sibling && equals((slots_[slot] & layout_.row_mask) - 1)) return kDuplicate;
            if (++distance == kProbeLimit) return kCrowded;
        }
        for (;; ++slot) {
            std::swap(entry, slots_[slot]);
            std::swap(distance, distances_[slot]);
            if (entry == 0) return kInserted;
            if (++distance == kProbeLimit) return kCrowded;
        }
    }

  private:
    IndexLayout layout_;
    Buffer<uint32_t> slots_;
    Buffer<uint8_t> distances_;  // of each slot's entry from its home
};

// Builds the index of tokens: of equal ones the first row is in it, and none that is not valid UTF-8.
template <typename Offset>
class IndexBuilder {
  public:
    enum Outcome { kBuilt, kCrowded, kBadOffset };
    static constexpr uint64_t kNone = UINT64_MAX;

    uint64_t first_row = kNone, second_row = kNone;  // of the duplicate whose second row is smallest
    uint64_t invalid_row = kNone;                    // the first row that is not valid UTF-8
    uint64_t bad_offset = kNone;                     // the first offset that decreases or exceeds the tokens

    IndexBuilder(const uint8_t *tokens, uint64_t size, const Offset *offsets, uint64_t rows)
        : tokens_(tokens), size_(size), offsets_(offsets), rows_(rows) {}

    // Offsets are checked as they are read. kCrowded: see SlotTable.
    Outcome build(uint64_t seed, SlotTable &table) {
        if (offsets_[0] > size_) return at_bad_offset(0);
        for (uint64_t start = 0; start < rows_; start += kInsertGroup) {
            const uint64_t count = std::min<uint64_t>(kInsertGroup, rows_ - start);
            uint64_t ends[kInsertGroup + 1] = {offsets_[start]}, hashes[kInsertGroup];
            for (uint64_t i = 0; i < count; ++i) {
                ends[i + 1] = offsets_[start + i + 1];
                if (ends[i + 1] < ends[i] || ends[i + 1] > size_) return at_bad_offset(start + i + 1);
                hashes[i] = hash_token(tokens_ + ends[i], ends[i + 1] - ends[i], seed);
                table.prefetch(hashes[i]);
            }
            for (uint64_t i = 0; i < count; ++i)
                if (!insert(start + i, ends[i], ends[i + 1], hashes[i], table)) return kCrowded;
        }
        return kBuilt;
    }

  private:
    bool insert(uint64_t row, uint64_t begin, uint64_t end, uint64_t hash, SlotTable &table) {
        const uint8_t *token = tokens_ + begin, *stop = tokens_ + end;
        if (!is_ascii(token, stop) && !is_utf8(token, stop)) {
            invalid_row = std::min(invalid_row, row);
            return true;
        }
        uint64_t earlier = kNone;
        const auto outcome = table.insert(hash, row, [&](uint64_t other) {
            earlier = other;
            const uint64_t at = offsets_[other], to = offsets_[other + 1];
            return at <= to && to <= size_ && to - at == end - begin &&
                   equal_tokens(tokens_ + at, token, end - begin);
        });
        if (outcome == SlotTable::kDuplicate && second_row == kNone) {
            first_row = earlier;
            second_row = row;
        }
        return outcome != SlotTable::kCrowded;
    }

    Outcome at_bad_offset(uint64_t position) {
        bad_offset = position;
        return kBadOffset;
    }

    const uint8_t *tokens_;
    uint64_t size_;
    const Offset *offsets_;
    uint64_t rows_;
};
