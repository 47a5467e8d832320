// The token index of the .sfq format: an open-addressing hash table over mapped arrays.
//
// A probe starts at the token's home slot and reads at most kProbeLimit slots, never past the last one: there
// are `homes` home slots, and kProbeLimit - 1 more slots after the last of them. Entries are sorted by home,
// then by row, so rows and seed determine every byte of the table (index_builder.hpp). An empty slot is 0, a
// used one (fingerprint << row_bits) | (row + 1).
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "hash.hpp"
#include "simd.hpp"

#if SMALLFRY_X86
#include <emmintrin.h>
#endif

constexpr uint64_t kProbeLimit = 64;

struct IndexLayout {
    uint64_t homes;
    uint32_t row_mask;
    unsigned row_bits;

    // Needs slots >= kProbeLimit and rows < 2^32 - 1.
    IndexLayout(uint64_t rows, uint64_t slots) : homes(slots - (kProbeLimit - 1)), row_mask(0), row_bits(0) {
        for (; rows >> row_bits != 0; ++row_bits) row_mask = row_mask << 1 | 1;
    }

    uint64_t home(uint64_t hash) const { return (hash >> 32) * homes >> 32; }
    uint32_t fingerprint(uint64_t hash) const { return static_cast<uint32_t>(hash << row_bits) & ~row_mask; }
};

// An inconsistency in the arrays, which come from a file.
struct IndexFault {
    enum Kind { kNone, kRow, kOffsets } kind = kNone;
    uint64_t row = 0, begin = 0, end = 0;
};

// Tokens to look up: token i is bytes[begin[i] .. end[i]), with its hash; `readable` bytes can be read.
struct Queries {
    const uint8_t *bytes;
    const uint64_t *begin;
    const uint64_t *end;
    const uint64_t *hash;
    size_t count;
    uint64_t readable;

    uint64_t length(size_t i) const { return end[i] - begin[i]; }
};

// Bit masks over eight slots: those that hold a fingerprint, and those that are empty.
struct SlotMatches {
    static constexpr uint64_t kSlots = 8;

    unsigned found, empty;

#if SMALLFRY_X86
    SlotMatches(const uint32_t *slots, uint32_t fingerprint, uint32_t row_mask) {
        const __m128i mask = _mm_set1_epi32(static_cast<int>(~row_mask));
        const __m128i target = _mm_set1_epi32(static_cast<int>(fingerprint)), none = _mm_setzero_si128();
        const __m128i low = _mm_loadu_si128(reinterpret_cast<const __m128i *>(slots));
        const __m128i high = _mm_loadu_si128(reinterpret_cast<const __m128i *>(slots + 4));
        found = bits(_mm_cmpeq_epi32(_mm_and_si128(low, mask), target),
                     _mm_cmpeq_epi32(_mm_and_si128(high, mask), target));
        empty = bits(_mm_cmpeq_epi32(low, none), _mm_cmpeq_epi32(high, none));
    }

  private:
    static unsigned bits(__m128i low, __m128i high) {
        const __m128i words = _mm_packs_epi32(low, high);
        return static_cast<unsigned>(_mm_movemask_epi8(_mm_packs_epi16(words, words))) & 0xff;
    }
#else
    SlotMatches(const uint32_t *slots, uint32_t fingerprint, uint32_t row_mask) : found(0), empty(0) {
        for (unsigned i = 0; i < kSlots; ++i) {
            found |= static_cast<unsigned>((slots[i] & ~row_mask) == fingerprint) << i;
            empty |= static_cast<unsigned>(slots[i] == 0) << i;
        }
    }
#endif
};

template <typename Offset>
class TokenProbe {
  public:
    TokenProbe(const uint8_t *tokens, uint64_t tokens_size, const Offset *offsets, uint64_t rows,
               const uint32_t *slots, uint64_t slot_count)
        : tokens_(tokens),
          tokens_size_(tokens_size),
          offsets_(offsets),
          rows_(rows),
          slots_(slots),
          layout_(rows, slot_count) {}

    // Writes the row of each query, -1 if the token is unknown. Stages over kGroup queries (slot, offsets,
    // bytes) hide the memory latency.
    IndexFault find(const Queries &queries, int64_t *rows) const {
        IndexFault fault;
        for (size_t start = 0; start < queries.count && fault.kind == IndexFault::kNone; start += kGroup)
            find_group(queries, start, std::min(kGroup, queries.count - start), rows, fault);
        return fault;
    }

  private:
    static constexpr size_t kGroup = 32;

    struct Candidate {
        uint64_t slot;  // current slot of the probe, below `limit`
        uint64_t limit;
        uint64_t begin;
        int64_t row;
    };

    void find_group(const Queries &queries, size_t start, size_t count, int64_t *rows,
                    IndexFault &fault) const {
        Candidate candidates[kGroup];
        const uint64_t *hash = queries.hash + start;
        for (size_t i = 0; i < count; ++i) {
            candidates[i].slot = layout_.home(hash[i]);
            candidates[i].limit = candidates[i].slot + kProbeLimit;
            __builtin_prefetch(slots_ + candidates[i].slot);
            __builtin_prefetch(slots_ + candidates[i].slot + SlotMatches::kSlots - 1);
        }
        for (size_t i = 0; i < count; ++i) {
            first_candidate(hash[i], candidates[i], fault);
            if (candidates[i].row >= 0) __builtin_prefetch(offsets_ + candidates[i].row);
        }
        for (size_t i = 0; i < count; ++i) {
            skip_other_lengths(hash[i], queries.length(start + i), candidates[i], fault);
            if (candidates[i].row >= 0) __builtin_prefetch(tokens_ + candidates[i].begin);
        }
        for (size_t i = 0; i < count; ++i) {
            while (candidates[i].row >= 0 && !equals(candidates[i].begin, queries, start + i)) {
                next_candidate(hash[i], candidates[i], fault);
                skip_other_lengths(hash[i], queries.length(start + i), candidates[i], fault);
            }
            rows[start + i] = candidates[i].row;
        }
    }

    // Moves to the first slot with the fingerprint; row -1 if there is none. The distance is unpredictable,
    // so the slots where most probes end are compared at once.
    void first_candidate(uint64_t hash, Candidate &candidate, IndexFault &fault) const {
        const SlotMatches matches(slots_ + candidate.slot, layout_.fingerprint(hash), layout_.row_mask);
        const unsigned before_empty = ~matches.empty & (matches.empty - 1);
        const unsigned found = matches.found & before_empty;
        candidate.row = -1;
        if (found) {
            candidate.slot += static_cast<unsigned>(__builtin_ctz(found));
            take_row(slots_[candidate.slot++], candidate, fault);
        } else if (!matches.empty) {
            candidate.slot += SlotMatches::kSlots;
            next_candidate(hash, candidate, fault);
        }
    }

    // Moves to the next slot with the fingerprint from the current one.
    void next_candidate(uint64_t hash, Candidate &candidate, IndexFault &fault) const {
        uint32_t fingerprint = layout_.fingerprint(hash);
        candidate.row = -1;
        while (candidate.slot < candidate.limit) {
            uint32_t slot = slots_[candidate.slot++];
            if (slot == 0) return;
            if ((slot & ~layout_.row_mask) == fingerprint) return take_row(slot, candidate, fault);
        }
    }

    void take_row(uint32_t slot, Candidate &candidate, IndexFault &fault) const {
        uint64_t row = (slot & layout_.row_mask) - 1u;
        if (row < rows_)
            candidate.row = static_cast<int64_t>(row);
        else
            fault = {IndexFault::kRow, row, 0, 0};
    }

    // Compares the token at `at` with query `i` of the same length.
    bool equals(uint64_t at, const Queries &queries, size_t i) const {
        const uint64_t begin = queries.begin[i], length = queries.length(i);
        const uint8_t *token = tokens_ + at, *query = queries.bytes + begin;
        if (tokens_size_ - at < length + kSlack || queries.readable - begin < length + kSlack)
            return equal_tokens(token, query, length);
        return equal_padded(token, query, length);
    }

    // Moves on while the candidate's token has another length.
    void skip_other_lengths(uint64_t hash, uint64_t length, Candidate &candidate, IndexFault &fault) const {
        while (candidate.row >= 0) {
            uint64_t begin = offsets_[candidate.row], end = offsets_[candidate.row + 1];
            if (begin > end || end > tokens_size_) {
                fault = {IndexFault::kOffsets, static_cast<uint64_t>(candidate.row), begin, end};
                candidate.row = -1;
                return;
            }
            candidate.begin = begin;
            if (end - begin == length) return;
            next_candidate(hash, candidate, fault);
        }
    }

    const uint8_t *tokens_;
    uint64_t tokens_size_;
    const Offset *offsets_;
    uint64_t rows_;
    const uint32_t *slots_;
    IndexLayout layout_;
};
