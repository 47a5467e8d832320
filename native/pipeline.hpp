// The steps from a text to its tokens: added tokens, normalizer, pre-tokenizer and segmenter.
#pragma once
#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "added_tokens.hpp"
#include "characters.hpp"
#include "normalizer.hpp"
#include "pre_tokenizer.hpp"
#include "segmenter.hpp"

// An added token, and whether it is searched for in the normalized text.
struct ListedToken {
    AddedToken token;
    bool normalized;
};

class Pipeline {
  public:
    // Throws TokenizerFault.
    Pipeline(Characters characters, Charsmap charsmap, std::vector<NormalizerStep> normalizer,
             std::vector<PreTokenizerStep> pre_tokenizer, std::unique_ptr<Segmenter> segmenter,
             const std::vector<ListedToken> &added)
        : characters_(characters),
          normalizer_(characters_, charsmap, std::move(normalizer)),
          segmenter_(std::move(segmenter)),
          pre_tokenizer_(characters_, *segmenter_, std::move(pre_tokenizer)),
          added_(characters_, select(added, false)),
          added_normalized_(characters_, select(added, true)) {}
    Pipeline(const Pipeline &) = delete;
    Pipeline &operator=(const Pipeline &) = delete;

    // Appends the ids of a text, at most `max_tokens`. Throws TokenizerFault.
    void append_ids(Span text, size_t max_tokens, Workspace &work, TokenIds &ids) const {
        const size_t limit = max_tokens < SIZE_MAX - ids.size() ? ids.size() + max_tokens : SIZE_MAX;
        const auto push = [&](const AddedToken &token) {
            ids.push(token.id);
            return ids.size() < limit;
        };
        if (max_tokens == 0) return;
        added_.split(text, [&](Span part, const AddedToken *found) {
            if (found) return push(*found);
            const Normalized normalized = normalizer_.normalize(part, work);
            const size_t start = part.data == text.data ? normalized.start : 0;
            return added_normalized_.split(normalized.text, [&](Span piece, const AddedToken *token) {
                if (token) return push(*token);
                pre_tokenizer_.tokenize(piece, start_after(start, piece.data - normalized.text.data), limit,
                                        work, ids);
                return ids.size() < limit;
            });
        });
        if (ids.size() > limit) ids.resize(limit);
    }

  private:
    static std::vector<AddedToken> select(const std::vector<ListedToken> &listed, bool normalized) {
        std::vector<AddedToken> tokens;
        for (const ListedToken &each : listed)
            if (each.normalized == normalized) tokens.push_back(each.token);
        return tokens;
    }

    Characters characters_;
    Normalizer normalizer_;
    std::unique_ptr<Segmenter> segmenter_;
    PreTokenizer pre_tokenizer_;
    AddedTokens added_, added_normalized_;
};
