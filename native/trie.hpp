// Reads a double-array trie in the layout of darts-clone, from arrays that may hold anything.
#pragma once
#include <cstddef>
#include <cstdint>

// Keys are at most this long, which bounds every walk, also in a trie whose nodes form a cycle.
constexpr size_t kMaxKey = 1024;

class Trie {
  public:
    static constexpr uint32_t kNone = 0xffffffffu;  // not a value: values have 31 bits

    // A node: where its children are, and whether a key ends here.
    struct Node {
        size_t children;
        bool has_value;
    };

    Trie() = default;
    Trie(const uint32_t *units, size_t count) : units_(units), count_(count) {}

    size_t size() const { return count_; }
    Node root() const { return count_ ? node_at(0) : Node{count_, false}; }

    // Moves to the child of a byte other than NUL. Returns false, and leaves `node`, if there is none.
    bool step(Node &node, uint8_t byte) const {
        const size_t at = node.children ^ byte;
        if (at >= count_ || (units_[at] & 0x800000ffu) != byte || byte == 0) return false;
        node = node_at(at);
        return true;
    }

    // The value of the key that ends at a node that has one; kNone if it lies outside the array.
    uint32_t value(const Node &node) const {
        return node.children < count_ ? units_[node.children] & 0x7fffffffu : kNone;
    }

    // Walks the whole of `text`. Returns false if no key begins with it.
    bool walk(Node &node, const uint8_t *text, size_t size) const {
        for (size_t i = 0; i < size; ++i)
            if (!step(node, text[i])) return false;
        return true;
    }

    // The value of a key, kNone if it is not in the trie.
    uint32_t find(const uint8_t *key, size_t size) const {
        Node node = root();
        return walk(node, key, size) && node.has_value ? value(node) : kNone;
    }

  private:
    Node node_at(size_t at) const {
        const uint32_t unit = units_[at];
        return {at ^ static_cast<size_t>(unit >> 10 << ((unit & 512) >> 6)), (unit & 256) != 0};
    }

    const uint32_t *units_ = nullptr;
    size_t count_ = 0;
};
