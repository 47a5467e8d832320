// Builds a double-array trie in the layout of darts-clone (trie.hpp).
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <utility>
#include <vector>

#include "buffer.hpp"
#include "trie.hpp"

struct TrieKey {
    const uint8_t *data;
    size_t size;
    uint32_t value;
};

class TrieBuilder {
  public:
    // Keys are not empty and hold no NUL.
    explicit TrieBuilder(std::vector<TrieKey> keys) : keys_(std::move(keys)) {
        order_.resize(keys_.size());
        for (size_t i = 0; i < order_.size(); ++i) order_[i] = static_cast<uint32_t>(i);
        std::sort(order_.begin(), order_.end(), [&](uint32_t a, uint32_t b) {
            const TrieKey &first = keys_[a], &second = keys_[b];
            const int order = std::memcmp(first.data, second.data, std::min(first.size, second.size));
            return order != 0 ? order < 0 : first.size < second.size;
        });
    }

    // The positions of two equal keys, or of the same key twice if there are none.
    std::pair<uint32_t, uint32_t> duplicate() const {
        for (size_t i = 1; i < order_.size(); ++i) {
            const uint32_t a = order_[i - 1], b = order_[i];
            if (keys_[a].size == keys_[b].size &&
                std::memcmp(keys_[a].data, keys_[b].data, keys_[a].size) == 0)
                return std::minmax(a, b);
        }
        return {0, 0};
    }

    // Keys are distinct. Throws std::length_error if offsets cannot express the size of the trie.
    Buffer<uint32_t> build() {
        grow();
        take(0);
        units_[0] = 0;
        taken_offset_[0] = true;
        std::vector<Branch> open{{0, 0, order_.size(), 0}};
        while (!open.empty()) {
            const Branch branch = open.back();
            open.pop_back();
            expand(branch, open);
        }
        return std::move(units_);
    }

  private:
    static constexpr size_t kBlock = 256;
    static constexpr size_t kOpenBlocks = 16;       // only the last blocks are searched for free units
    static constexpr uint32_t kFree = 0x80000000u;  // no byte equals its label

    // The keys order_[begin … end) have their first `depth` bytes in common, which lead to `unit`.
    struct Branch {
        size_t unit, begin, end, depth;
    };

    uint8_t label(size_t position, size_t depth) const {
        const TrieKey &key = keys_[order_[position]];
        return depth < key.size ? key.data[depth] : 0;
    }

    void expand(const Branch &branch, std::vector<Branch> &open) {
        if (branch.begin == branch.end) return;
        children_.clear();
        for (size_t at = branch.begin; at < branch.end; ++at) {
            const uint8_t byte = label(at, branch.depth);
            if (children_.empty() || children_.back().first != byte) children_.emplace_back(byte, at);
        }
        const size_t base = place(branch.unit);
        set_offset(branch.unit, branch.unit ^ base);
        taken_offset_[base] = true;
        for (const auto &[byte, at] : children_) take(base ^ byte);
        for (size_t i = children_.size(); i-- > 0;) {  // in reverse, so that the first one is expanded next
            const auto [byte, begin] = children_[i];
            if (byte == 0) {
                units_[base] = keys_[order_[begin]].value | 0x80000000u;
                units_[branch.unit] |= 256;
                continue;
            }
            units_[base ^ byte] = byte;
            const size_t end = i + 1 < children_.size() ? children_[i + 1].second : branch.end;
            open.push_back({base ^ byte, begin, end, branch.depth + 1});
        }
    }

    // Finds a base at which all children are free and which no other unit has.
    size_t place(size_t unit) {
        for (size_t free = next_free_[kEnd]; free != kEnd; free = next_free_[free]) {
            const size_t base = (free - 1) ^ children_[0].first;
            if (taken_offset_[base] || !expressible(unit ^ base)) continue;
            if (std::all_of(children_.begin(), children_.end(),
                            [&](const auto &child) { return !used_[base ^ child.first]; }))
                return base;
        }
        const size_t base = units_.size() | (unit & (kBlock - 1));
        grow();
        return base;
    }

    static bool expressible(size_t offset) { return offset < 1u << 21 || (offset & 255) == 0; }

    void set_offset(size_t unit, size_t offset) {
        if (offset >= 1u << 29) throw std::length_error("the trie needs more than 536,870,912 units");
        units_[unit] |= static_cast<uint32_t>(offset < 1u << 21 ? offset << 10 : offset << 2 | 512);
    }

    void grow() {
        const size_t begin = units_.size();
        units_.resize(begin + kBlock);
        std::fill_n(units_.data() + begin, kBlock, kFree);
        used_.resize(begin + kBlock);
        taken_offset_.resize(begin + kBlock);
        next_free_.resize(begin + kBlock + 1);
        previous_free_.resize(begin + kBlock + 1);
        if (begin >= kOpenBlocks * kBlock)
            for (size_t at = begin - kOpenBlocks * kBlock; at < begin - (kOpenBlocks - 1) * kBlock; ++at)
                if (!used_[at]) unlink(at);
        for (size_t at = begin; at < begin + kBlock; ++at) {  // appended to the circular list
            const size_t last = previous_free_[kEnd];
            next_free_[last] = static_cast<uint32_t>(at + 1);
            previous_free_[at + 1] = static_cast<uint32_t>(last);
            next_free_[at + 1] = kEnd;
            previous_free_[kEnd] = static_cast<uint32_t>(at + 1);
        }
    }

    void take(size_t at) {
        used_[at] = true;
        unlink(at);
    }

    void unlink(size_t at) {
        next_free_[previous_free_[at + 1]] = next_free_[at + 1];
        previous_free_[next_free_[at + 1]] = previous_free_[at + 1];
    }

    static constexpr uint32_t kEnd = 0;  // the list of free units holds unit + 1

    std::vector<TrieKey> keys_;
    std::vector<uint32_t> order_;
    std::vector<std::pair<uint8_t, size_t>> children_;  // byte and position of the first key
    Buffer<uint32_t> units_;
    std::vector<bool> used_, taken_offset_;
    std::vector<uint32_t> next_free_, previous_free_;
};
