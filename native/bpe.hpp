// Byte pair encoding: merges neighboring tokens in the order of their rank.
#pragma once
#include <algorithm>
#include <cstdio>
#include <functional>
#include <vector>

#include "merge_index.hpp"
#include "segmenter.hpp"
#include "trie.hpp"

class Bpe : public Segmenter {
  public:
    static constexpr uint32_t kNone = Trie::kNone;

    // `unknown` is kNone if characters that are not in the vocabulary are left out.
    Bpe(Trie trie, MergeIndex merges, uint32_t unknown, bool fuse_unknown, bool byte_fallback,
        bool ignore_merges)
        : trie_(trie),
          merges_(merges),
          unknown_(unknown),
          fuse_unknown_(fuse_unknown),
          byte_fallback_(byte_fallback),
          ignore_merges_(ignore_merges) {
        for (unsigned byte = 0; byte < 256; ++byte) {
            char name[7];
            std::snprintf(name, sizeof name, "<0x%02X>", byte);
            bytes_[byte] = trie_.find(reinterpret_cast<const uint8_t *>(name), 6);
        }
        // A word may not end with characters that are left out: the marks around them would be neighbors.
        const bool keeps_all =
            unknown_ != kNone || (byte_fallback_ && std::count(bytes_, bytes_ + 256, kNone) == 0);
        splits_ = keeps_all && is_apart(trie_.find(kMark.data, kMark.size));
    }

    void segment(Span piece, Workspace &work, TokenIds &ids) const override {
        if (ignore_merges_) {
            const uint32_t whole = trie_.find(piece.data, piece.size);
            if (whole != kNone) return ids.push(whole);
        }
        for (const uint8_t *at = piece.data; at < piece.end();) {
            const uint8_t *const end = splits_ ? word_end(at, piece.end()) : piece.end();
            segment_word({at, static_cast<size_t>(end - at)}, work, ids);
            at = end;
        }
    }

  private:
    static constexpr uint8_t kSpace[] = {0xe2, 0x96, 0x81};  // the mark of a space, U+2581
    static constexpr Span kMark{kSpace, sizeof kSpace};

    static bool is_mark(const uint8_t *at, const uint8_t *end) {
        return end - at >= 3 && std::equal(kSpace, kSpace + 3, at);
    }

    // Where the marks and the other characters that follow them end.
    static const uint8_t *word_end(const uint8_t *at, const uint8_t *end) {
        while (is_mark(at, end)) at += kMark.size;
        while (at < end && !is_mark(at, end)) ++at;
        return at;
    }

    // Whether no merge joins a token that ends with another character and one that begins with the mark: then
    // words are independent of each other, and many small heaps take less time than a large one.
    bool is_apart(uint32_t mark) const {
        constexpr uint8_t kBegins = 1, kEndsOther = 2;
        constexpr int kMaxPasses = 8;  // one, and one more to see no change, where parts come first
        const size_t tokens = merges_.max_token() + 1;
        if (mark == unknown_ || mark >= tokens || tokens > size_t{1} << 24) return false;
        std::vector<uint8_t> may(tokens, kEndsOther);
        for (uint32_t rank = 0; rank < merges_.count(); ++rank) may[merges_.merged(rank)] = 0;
        for (const uint32_t id : bytes_)
            if (id < tokens) may[id] = kEndsOther;
        if (unknown_ < tokens) may[unknown_] = kEndsOther;
        may[mark] = kBegins;
        bool changes = true;
        for (int pass = 0; changes && pass < kMaxPasses; ++pass) {
            changes = false;
            for (uint32_t rank = 0; rank < merges_.count(); ++rank) {
                const uint8_t left = may[merges_.left(rank)], right = may[merges_.right(rank)];
                if (left & kEndsOther && right & kBegins) return false;
                uint8_t &merged = may[merges_.merged(rank)];
                const auto both = static_cast<uint8_t>(merged | (left & kBegins) | (right & kEndsOther));
                changes |= both != merged;
                merged = both;
            }
        }
        return !changes;
    }

    void segment_word(Span word, Workspace &work, TokenIds &ids) const {
        Buffer<BpeSymbol> &symbols = work.symbols;
        symbols.resize(0);
        split(word, symbols);
        merge(symbols, work.queue);
        for (size_t i = 0; i < symbols.size(); i = symbols[i].next) ids.push(symbols[i].id);
    }

    static size_t character_size(Span piece, size_t at) {
        size_t end = at + 1;
        while (end < piece.size && (piece.data[end] & 0xc0) == 0x80) ++end;
        return end - at;
    }

    void split(Span piece, Buffer<BpeSymbol> &symbols) const {
        const auto add = [&symbols](uint32_t id) {
            const size_t at = symbols.size();
            symbols.push({id, at == 0 ? BpeSymbol::kEnd : static_cast<uint32_t>(at - 1),
                          static_cast<uint32_t>(at + 1)});
        };
        bool pending = false;  // an unknown token that is not added yet
        for (size_t at = 0, size = 0; at < piece.size; at += size) {
            size = character_size(piece, at);
            const uint8_t *character = piece.data + at;
            const uint32_t id = trie_.find(character, size);
            if (id != kNone) {
                if (pending) add(unknown_);
                pending = false;
                add(id);
            } else if (byte_fallback_ && std::all_of(character, character + size, [this](uint8_t byte) {
                           return bytes_[byte] != kNone;
                       })) {
                // A pending unknown token stays behind the bytes, as in the tokenizers package.
                for (size_t i = 0; i < size; ++i) add(bytes_[character[i]]);
            } else if (unknown_ != kNone) {
                if (pending && !fuse_unknown_) add(unknown_);
                pending = true;
            }
        }
        if (pending) add(unknown_);
        if (symbols.size() > UINT32_MAX - 2) throw std::bad_alloc();
    }

    // Merges the pair with the lowest rank, the leftmost first, until no pair has a merge. A merged symbol
    // stays at its left part.
    void merge(Buffer<BpeSymbol> &symbols, Buffer<uint64_t> &queue) const {
        const size_t count = symbols.size();
        queue.resize(0);
        const auto rank_of = [&](size_t left, size_t right) {
            return merges_.find(symbols[left].id, symbols[right].id);
        };
        for (size_t i = 0; i + 1 < count; ++i) {
            const uint32_t rank = rank_of(i, i + 1);
            if (rank != kNone) queue.push(static_cast<uint64_t>(rank) << 32 | i);
        }
        std::make_heap(queue.data(), queue.data() + queue.size(), std::greater<>());
        const auto enqueue = [&](size_t left, size_t right) {
            const uint32_t rank = rank_of(left, right);
            if (rank == kNone) return;
            queue.push(static_cast<uint64_t>(rank) << 32 | left);
            std::push_heap(queue.data(), queue.data() + queue.size(), std::greater<>());
        };
        while (queue.size() != 0) {
            const uint64_t top = queue[0];
            std::pop_heap(queue.data(), queue.data() + queue.size(), std::greater<>());
            queue.resize(queue.size() - 1);
            const auto left = static_cast<uint32_t>(top);
            const uint32_t right = symbols[left].next;
            if (right >= count) continue;  // removed, or the last one
            // The symbols may have changed since; the same merged token is merged nevertheless.
            const uint32_t rank = rank_of(left, right),
                           merged = merges_.merged(static_cast<uint32_t>(top >> 32));
            if (rank == kNone || merges_.merged(rank) != merged) continue;
            const uint32_t after = symbols[right].next;
            symbols[left].id = merged;
            symbols[left].next = after;
            symbols[right].next = BpeSymbol::kEnd;
            if (after < count) symbols[after].previous = left;
            if (symbols[left].previous != BpeSymbol::kEnd) enqueue(symbols[left].previous, left);
            if (after < count) enqueue(left, after);
        }
    }

    Trie trie_;
    MergeIndex merges_;
    uint32_t unknown_;
    bool fuse_unknown_, byte_fallback_, ignore_merges_;
    uint32_t bytes_[256];  // the token of each byte
    bool splits_;          // whether words are segmented one by one
};
