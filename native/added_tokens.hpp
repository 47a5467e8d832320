// Finds added tokens in a text, as `tokenizers` does.
#pragma once
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "characters.hpp"
#include "segmenter.hpp"
#include "trie.hpp"
#include "trie_builder.hpp"

struct AddedToken {
    uint32_t id;
    std::string content;
    bool single_word, lstrip, rstrip;
};

class AddedTokens {
  public:
    // Throws TokenizerFault for contents that are empty, equal, too long or hold a NUL character.
    AddedTokens(const Characters &characters, std::vector<AddedToken> tokens)
        : characters_(characters), tokens_(std::move(tokens)) {
        std::vector<TrieKey> keys;
        for (uint32_t i = 0; i < tokens_.size(); ++i) {
            const std::string &content = tokens_[i].content;
            const auto *data = reinterpret_cast<const uint8_t *>(content.data());
            if (content.empty() || content.size() > kMaxKey || content.find('\0') != std::string::npos)
                throw TokenizerFault("an added token is empty, longer than " + std::to_string(kMaxKey) +
                                     " bytes or holds a NUL character");
            is_first_[data[0]] = true;
            keys.push_back({data, content.size(), i});
        }
        TrieBuilder builder(std::move(keys));
        if (builder.duplicate().first != builder.duplicate().second)
            throw TokenizerFault("an added token is there twice");
        units_ = builder.build();
        trie_ = Trie(units_.data(), units_.size());
    }

    // Calls use(span, token) for each part of the text that is not empty, `token` being null if the part is
    // no added token. Stops when `use` returns false, and returns whether it never did.
    template <class Use>
    bool split(Span text, const Use &use) const {
        const uint8_t *const end = text.end(), *rest = text.data, *spaces_end = text.data;
        for (const uint8_t *at = text.data; at < end && !tokens_.empty();) {
            at = std::find_if(at, end, [&](uint8_t byte) { return is_first_[byte]; });
            const uint8_t *stop = at;
            const AddedToken *token = longest(at, end, stop);
            if (!token) {
                at += at < end;
                continue;
            }
            const uint8_t *start = at;
            at = stop;
            if (token->single_word && (is_word_before(text.data, start) || is_word_at(stop, end))) continue;
            if (token->lstrip) start = spaces_before(rest, std::max(start, rest));
            if (token->rstrip) {
                if (stop >= spaces_end) spaces_end = spaces_after(stop, end);
                stop = spaces_end;
            }
            if (rest < start && !use(between(rest, start), nullptr)) return false;
            if (start < stop && !use(between(start, stop), token)) return false;
            rest = stop;
        }
        return rest == end || use(between(rest, end), nullptr);
    }

  private:
    static Span between(const uint8_t *begin, const uint8_t *end) {
        return {begin, static_cast<size_t>(end - begin)};
    }

    // The longest token that starts at `at`, and where it stops.
    const AddedToken *longest(const uint8_t *at, const uint8_t *end, const uint8_t *&stop) const {
        const AddedToken *found = nullptr;
        Trie::Node node = trie_.root();
        while (at < end && trie_.step(node, *at)) {
            ++at;
            if (!node.has_value) continue;
            found = &tokens_[trie_.value(node)];
            stop = at;
        }
        return found;
    }

    bool is_word_at(const uint8_t *at, const uint8_t *end) const {
        size_t size;
        return at < end && characters_.classes(at, end, size) & Characters::kWord;
    }

    bool is_word_before(const uint8_t *begin, const uint8_t *at) const {
        return at > begin && is_word_at(previous_character(begin, at), at);
    }

    const uint8_t *spaces_before(const uint8_t *begin, const uint8_t *at) const {
        size_t size;
        while (at > begin) {
            const uint8_t *last = previous_character(begin, at);
            if (!(characters_.classes(last, at, size) & Characters::kSpace)) break;
            at = last;
        }
        return at;
    }

    const uint8_t *spaces_after(const uint8_t *at, const uint8_t *end) const {
        size_t size;
        for (; at < end && characters_.classes(at, end, size) & Characters::kSpace; at += size) continue;
        return at;
    }

    const Characters &characters_;
    std::vector<AddedToken> tokens_;
    bool is_first_[256] = {};
    Buffer<uint32_t> units_;
    Trie trie_;
};
