// The distinct values of a matrix, up to a limit.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

class ValueSet {
  public:
    explicit ValueSet(size_t limit) : limit_(limit) {
        size_t slots = 16;
        while (slots < 4 * limit) slots *= 2;
        keys_.assign(slots, kEmpty);
        shift_ = 32;
        for (size_t size = slots; size > 1; size /= 2) --shift_;
    }

    // Returns false once the values exceed the limit.
    bool add(float value) {
        const uint32_t key = key_of(value);
        const size_t slot = slot_of(key);
        if (keys_[slot] == key) return true;
        if (sorted_.size() == limit_) return false;
        keys_[slot] = key;
        sorted_.push_back(value + 0.0f);
        return true;
    }

    // Call after the last add and before the first position.
    void sort() {
        std::sort(sorted_.begin(), sorted_.end());
        positions_.resize(keys_.size());
        for (size_t i = 0; i < sorted_.size(); ++i)
            positions_[slot_of(key_of(sorted_[i]))] = static_cast<uint16_t>(i);
    }

    const std::vector<float> &values() const { return sorted_; }

    // Position of a value among the sorted ones; returns false if it is not in the set.
    bool position(float value, uint16_t &position) const {
        const uint32_t key = key_of(value);
        const size_t slot = slot_of(key);
        position = positions_[slot];
        return keys_[slot] == key;
    }

  private:
    static constexpr uint32_t kEmpty = 0x80000000u;  // -0.0, which counts as 0.0

    static uint32_t key_of(float value) {
        value += 0.0f;
        uint32_t key;
        std::memcpy(&key, &value, sizeof key);
        return key;
    }

    // The slot of the key, or the empty one for it; at most a quarter of the slots are used.
    size_t slot_of(uint32_t key) const {
        size_t slot = (key * 2654435769u) >> shift_;
        while (keys_[slot] != key && keys_[slot] != kEmpty) slot = (slot + 1) & (keys_.size() - 1);
        return slot;
    }

    size_t limit_;
    int shift_;
    std::vector<uint32_t> keys_;
    std::vector<uint16_t> positions_;  // of each slot's value
    std::vector<float> sorted_;
};
