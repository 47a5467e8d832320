// WordPiece: the longest token first, from the left.
#pragma once
#include <algorithm>

#include "segmenter.hpp"
#include "trie.hpp"

class WordPiece : public Segmenter {
  public:
    WordPiece(Trie trie, uint32_t unknown, Span prefix, size_t max_characters)
        : trie_(trie), unknown_(unknown), max_characters_(max_characters), inside_(trie.root()) {
        if (!trie_.walk(inside_, prefix.data, prefix.size)) inside_ = {SIZE_MAX, false};
    }

    void segment(Span word, Workspace &, TokenIds &ids) const override {
        const size_t before = ids.size();
        if (word.size > max_characters_ && characters(word) > max_characters_) return ids.push(unknown_);
        Trie::Node start = trie_.root();
        for (size_t at = 0; at < word.size; start = inside_) {
            Trie::Node node = start, longest{};
            size_t end = at;
            const size_t limit = std::min(word.size, at + kMaxKey);
            for (size_t i = at; i < limit && trie_.step(node, word.data[i]); ++i)
                if (node.has_value) {
                    longest = node;
                    end = i + 1;
                }
            if (end == at) {
                ids.resize(before);
                return ids.push(unknown_);
            }
            ids.push(trie_.value(longest));
            at = end;
        }
    }

  private:
    static size_t characters(Span word) {
        return static_cast<size_t>(
            std::count_if(word.data, word.end(), [](uint8_t byte) { return (byte & 0xc0) != 0x80; }));
    }

    Trie trie_;
    uint32_t unknown_;
    size_t max_characters_;
    Trie::Node inside_;  // where tokens that continue a word start
};
