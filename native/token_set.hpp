// A growing set of tokens that detects duplicates in a stream, without a Python object per token.
#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>
#include <random>
#include <stdexcept>

#include "buffer.hpp"
#include "hash.hpp"
#include "index_builder.hpp"

// Increasing offsets in 4 bytes each: every kStep-th is stored whole, those after it relative to it.
class CompactOffsets {
  public:
    size_t size() const { return relative_.size(); }
    uint64_t operator[](size_t i) const { return whole_[i / kStep] + relative_[i]; }

    // Throws std::length_error if kStep items take 4 GiB.
    void push(uint64_t offset) {
        const bool first = size() % kStep == 0;
        const uint64_t relative = first ? 0 : offset - whole_[whole_.size() - 1];
        if (relative > UINT32_MAX) throw std::length_error("64 tokens take more than 4 GiB, expected less");
        if (first) whole_.push(offset);
        relative_.push(static_cast<uint32_t>(relative));
    }

  private:
    static constexpr size_t kStep = 64;

    Buffer<uint64_t> whole_;
    Buffer<uint32_t> relative_;
};

class TokenSet {
  public:
    static constexpr size_t kMaxSize = std::numeric_limits<uint32_t>::max() - 1;

    TokenSet() : seed_(std::random_device()()) {
        offsets_.push(0);
        resize(kLeastHomes);
    }

    size_t size() const { return offsets_.size() - 1; }

    uint64_t hash(const uint8_t *token, size_t length) const { return hash_token(token, length, seed_); }
    void prefetch(uint64_t hash) const { table_.prefetch(hash); }

    // Returns whether the token, with its hash, is new. Throws std::bad_alloc. At most kMaxSize tokens.
    bool add(const uint8_t *token, size_t length, uint64_t hash) {
        if (size() >= table_.homes() / 4 * 3) grow();
        auto equals = [&](uint64_t other) {
            return offsets_[other + 1] - offsets_[other] == length &&
                   equal_tokens(bytes_.data() + offsets_[other], token, length);
        };
        auto outcome = table_.insert(hash, size(), equals);
        if (outcome == SlotTable::kDuplicate) return false;
        bytes_.append(token, length);
        offsets_.push(bytes_.size());
        if (outcome == SlotTable::kCrowded) grow();
        return true;
    }

  private:
    static constexpr uint64_t kLeastHomes = 1024, kMostHomes = uint64_t{1} << 32;

    // Fills a table of more homes. A large table that is crowded has tokens that were made to collide.
    void grow() {
        uint64_t homes = table_.homes();
        do {
            if (homes == kMostHomes || homes / 64 > size())
                throw std::length_error("the hashes of the tokens collide: they were made for it");
            homes *= 2;
        } while (!resize(homes));
    }

    bool resize(uint64_t homes) {
        table_ = SlotTable();  // frees its memory first
        table_ = SlotTable(std::min<uint64_t>(homes, kMaxSize), homes + kProbeLimit - 1);
        for (size_t start = 0; start < size(); start += kInsertGroup) {
            const size_t count = std::min(kInsertGroup, size() - start);
            uint64_t hashes[kInsertGroup];
            for (size_t i = 0; i < count; ++i) {
                const uint64_t begin = offsets_[start + i], end = offsets_[start + i + 1];
                hashes[i] = hash(bytes_.data() + begin, end - begin);
                table_.prefetch(hashes[i]);
            }
            for (size_t i = 0; i < count; ++i) {
                auto outcome = table_.insert(hashes[i], start + i, [](uint64_t) { return false; });
                if (outcome == SlotTable::kCrowded) return false;
            }
        }
        return true;
    }

    uint64_t seed_;  // random per process, so that no file can cause collisions
    Buffer<uint8_t> bytes_;
    CompactOffsets offsets_;
    SlotTable table_;
};
