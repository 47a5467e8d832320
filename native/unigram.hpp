// Unigram: the path of the highest score, with the tie rule and the fused unknown tokens of `tokenizers`.
#pragma once
#include <algorithm>
#include <cstdio>
#include <optional>
#include <string>

#include "segmenter.hpp"
#include "trie.hpp"

class Unigram : public Segmenter {
  public:
    Unigram(Trie trie, const double *scores, size_t count, std::optional<uint32_t> unknown,
            bool byte_fallback)
        : trie_(trie), scores_(scores), count_(count), unknown_(unknown.value_or(Trie::kNone)) {
        double least = count ? scores[0] : 0;
        for (size_t i = 1; i < count; ++i) least = scores[i] < least ? scores[i] : least;
        unknown_score_ = least - kUnknownPenalty;
        std::fill_n(byte_ids_, 256, Trie::kNone);
        for (unsigned byte = 0; byte_fallback && byte < 256; ++byte) {
            char name[8];
            std::snprintf(name, sizeof name, "<0x%02X>", byte);
            byte_ids_[byte] = trie_.find(reinterpret_cast<const uint8_t *>(name), 6);
        }
    }

    void segment(Span piece, Workspace &work, TokenIds &ids) const override {
        if (piece.size >= kUnset) throw std::bad_alloc();
        work.path.resize(0);
        work.path.resize(piece.size + 1);
        PathNode *path = work.path.data();
        find_path(piece, path);
        reverse(path, piece.size);
        for (size_t at = 0; at < piece.size;) {
            const uint32_t id = path[at].id;
            size_t end = path[at].start;
            if (id == unknown_) {
                while (end < piece.size && path[end].id == unknown_) end = path[end].start;
                append_unknown(piece.from(at, end), ids);
            } else {
                ids.push(id);
            }
            at = end;
        }
    }

  private:
    static constexpr double kUnknownPenalty = 10;
    static constexpr uint32_t kUnset = 0xffffffffu;

    static size_t character_size(uint8_t lead) {
        return lead < 0xc0 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    }

    static void offer(PathNode &node, double score, size_t start, uint32_t id) {
        if (node.start == kUnset || score > node.score) node = {score, static_cast<uint32_t>(start), id};
    }

    void find_path(Span piece, PathNode *path) const {
        for (size_t i = 0; i <= piece.size; ++i) path[i].start = kUnset;
        path[0].score = 0;
        for (size_t at = 0; at < piece.size;) {
            const double before = path[at].score;
            const size_t next = std::min(piece.size, at + character_size(piece.data[at]));
            const size_t limit = std::min(piece.size, at + kMaxKey);
            bool is_known = false;
            Trie::Node node = trie_.root();
            for (size_t i = at; i < limit && trie_.step(node, piece.data[i]);) {
                ++i;
                if (!node.has_value) continue;
                const uint32_t id = trie_.value(node);
                if (id >= count_)
                    throw TokenizerFault("the trie names token " + std::to_string(id) + ", but there are " +
                                         std::to_string(count_) + " scores");
                offer(path[i], scores_[id] + before, at, id);
                is_known |= i == next;
            }
            if (!is_known) offer(path[next], unknown_score_ + before, at, unknown_);
            at = next;
        }
    }

    // Lets each node of the best path hold the end and the id of the token that starts there.
    static void reverse(PathNode *path, size_t size) {
        size_t end = size;
        PathNode last = path[size];
        while (end > 0) {
            const size_t start = last.start;
            const PathNode before = path[start];
            path[start].start = static_cast<uint32_t>(end);
            path[start].id = last.id;
            last = before;
            end = start;
        }
    }

    void append_unknown(Span text, TokenIds &ids) const {
        const uint32_t whole = trie_.find(text.data, text.size);
        if (whole != Trie::kNone) return ids.push(whole);
        if (std::all_of(text.data, text.end(),
                        [&](uint8_t byte) { return byte_ids_[byte] != Trie::kNone; })) {
            for (size_t i = 0; i < text.size; ++i) ids.push(byte_ids_[text.data[i]]);
            return;
        }
        if (unknown_ == Trie::kNone)
            throw TokenizerFault("a character is not in the vocabulary, and there is no unknown token");
        ids.push(unknown_);
    }

    Trie trie_;
    const double *scores_;
    size_t count_;
    uint32_t unknown_;
    double unknown_score_;
    uint32_t byte_ids_[256];
};
