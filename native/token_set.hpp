// A growing set of tokens that detects duplicates in a stream, without a Python object per token.
#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>
#include <random>

#include "buffer.hpp"
#include "hash.hpp"

class TokenSet {
  public:
    TokenSet() : seed_(std::random_device()()), slots_(1024) {
        std::fill(slots_.data(), slots_.data() + slots_.size(), 0);
        offsets_.push(0);
    }

    size_t size() const { return hashes_.size(); }
    static constexpr size_t kMaxSize = std::numeric_limits<uint32_t>::max() - 1;

    // Returns whether the token is new. Throws std::bad_alloc. At most kMaxSize tokens.
    bool add(const uint8_t *token, size_t length) {
        if (size() >= slots_.size() / 2) grow();
        uint64_t hash = hash_token(token, length, seed_);
        size_t slot = hash & (slots_.size() - 1);
        for (; slots_[slot] != 0; slot = (slot + 1) & (slots_.size() - 1)) {
            size_t other = slots_[slot] - 1u;
            if (hashes_[other] == hash && offsets_[other + 1] - offsets_[other] == length &&
                equal_tokens(bytes_.data() + offsets_[other], token, length))
                return false;
        }
        hashes_.reserve(1);
        offsets_.reserve(1);
        bytes_.append(token, length);
        offsets_.push(bytes_.size());
        hashes_.push(hash);
        slots_[slot] = static_cast<uint32_t>(hashes_.size());
        return true;
    }

  private:
    void grow() {
        Buffer<uint32_t> larger(slots_.size() * 2);
        std::fill(larger.data(), larger.data() + larger.size(), 0);
        for (size_t i = 0; i < hashes_.size(); ++i) {
            size_t slot = hashes_[i] & (larger.size() - 1);
            while (larger[slot] != 0) slot = (slot + 1) & (larger.size() - 1);
            larger[slot] = static_cast<uint32_t>(i + 1);
        }
        slots_ = std::move(larger);
    }

    uint64_t seed_;  // random per process, so that no file can cause collisions
    Buffer<uint8_t> bytes_;
    Buffer<uint64_t> offsets_;
    Buffer<uint64_t> hashes_;
    Buffer<uint32_t> slots_;
};
