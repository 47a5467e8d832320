// Splits a normalized text into pieces, in steps, and passes each piece to the segmenter.
#pragma once
#include <algorithm>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "byte_level.hpp"
#include "characters.hpp"
#include "segmenter.hpp"

struct PreTokenizerStep {
    enum Kind { kBert, kWhitespaceSplit, kWhitespace, kPunctuation, kMetaspace, kByteLevel } kind;
    enum Prepend { kAlways, kFirst, kNever } prepend = kNever;
    std::string replacement;  // of a space, one character
    bool split = false;
    bool prefix_space = false;
    ByteLevel::Pattern pattern = ByteLevel::kWhole;
};

class PreTokenizer {
  public:
    // Throws TokenizerFault for too many steps: each is a level of recursion, and can double a text.
    PreTokenizer(const Characters &characters, const Segmenter &segmenter,
                 std::vector<PreTokenizerStep> steps)
        : characters_(characters), byte_level_(characters), segmenter_(segmenter), steps_(std::move(steps)) {
        const auto byte_levels = std::count_if(steps_.begin(), steps_.end(), [](const auto &step) {
            return step.kind == PreTokenizerStep::kByteLevel;
        });
        if (steps_.size() > kMaxSteps || byte_levels > 1)
            throw TokenizerFault("the tokenizer has " + std::to_string(steps_.size()) + " pre-tokenizers, " +
                                 std::to_string(byte_levels) +
                                 " of them of type 'byte_level', expected at most " +
                                 std::to_string(kMaxSteps) + " and one");
    }

    // Appends the ids of a text, at least the first `limit` that `ids` holds then. The first `start` bytes
    // come from the first character of the original text. Throws TokenizerFault.
    void tokenize(Span text, size_t start, size_t limit, Workspace &work, TokenIds &ids) const {
        work.pieces.resize(2 * steps_.size());
        run(0, text, start, {limit, work, ids});
    }

  private:
    static constexpr size_t kMaxSteps = 16;

    struct Output {
        size_t limit;
        Workspace &work;
        TokenIds &ids;
    };

    // Returns false once there are enough ids.
    bool run(size_t number, Span text, size_t start, const Output &out) const {
        if (text.size == 0) return true;
        if (number == steps_.size()) {
            segmenter_.segment(text, out.work, out.ids);
            return out.ids.size() < out.limit;
        }
        const auto use = [&](Span piece) {
            return run(number + 1, piece, start_after(start, piece.data - text.data), out);
        };
        switch (steps_[number].kind) {
            case PreTokenizerStep::kBert:
                return split_at<Characters::kSpace | Characters::kPunctuation>(text, use);
            case PreTokenizerStep::kWhitespaceSplit:
                return split_at<Characters::kSpace>(text, use);
            case PreTokenizerStep::kPunctuation:
                return split_at<Characters::kPunctuation>(text, use);
            case PreTokenizerStep::kWhitespace:
                return split_words(text, use);
            case PreTokenizerStep::kMetaspace:
                return mark_spaces(number, text, start, out);
            case PreTokenizerStep::kByteLevel:
                return map_bytes(number, text, out);
        }
        return true;
    }

    // Splits at characters of the classes. White space among them is left out, others are pieces.
    template <uint32_t separators, class Use>
    bool split_at(Span text, const Use &use) const {
        const uint8_t *const end = text.end(), *begin = text.data;
        size_t size;
        for (const uint8_t *at = begin; at < end; at += size) {
            const uint32_t classes = characters_.classes(at, end, size) & separators;
            if (!classes) continue;
            if (at > begin && !use({begin, static_cast<size_t>(at - begin)})) return false;
            if (!(classes & Characters::kSpace) && !use({at, size})) return false;
            begin = at + size;
        }
        return begin == end || use({begin, static_cast<size_t>(end - begin)});
    }

    // Pieces are runs of word characters, and runs of others that are not white space.
    template <class Use>
    bool split_words(Span text, const Use &use) const {
        constexpr uint32_t kRelevant = Characters::kSpace | Characters::kWord;
        const uint8_t *const end = text.end(), *begin = text.data;
        uint32_t previous = Characters::kSpace;
        size_t size;
        for (const uint8_t *at = begin; at < end; at += size) {
            uint32_t kind = characters_.classes(at, end, size) & kRelevant;
            if (kind & Characters::kWord) kind = Characters::kWord;
            if (kind == previous) continue;
            if (previous != Characters::kSpace && !use({begin, static_cast<size_t>(at - begin)}))
                return false;
            previous = kind;
            begin = at;
        }
        return previous == Characters::kSpace || use({begin, static_cast<size_t>(end - begin)});
    }

    // Replaces spaces, and splits before each replacement.
    bool mark_spaces(size_t number, Span text, size_t start, const Output &out) const {
        const PreTokenizerStep &step = steps_[number];
        const Span mark{reinterpret_cast<const uint8_t *>(step.replacement.data()), step.replacement.size()};
        Buffer<uint8_t> &marked = out.work.pieces[number];
        marked.resize(0);
        const auto is_marked = [&](const uint8_t *at, const uint8_t *end) {
            return static_cast<size_t>(end - at) >= mark.size && std::memcmp(at, mark.data, mark.size) == 0;
        };
        const bool is_prepended =
            step.prepend == PreTokenizerStep::kAlways || (step.prepend == PreTokenizerStep::kFirst && start);
        if (is_prepended && *text.data != ' ' && !is_marked(text.data, text.end()))
            marked.append(mark.data, mark.size);
        for (const uint8_t *at = text.data; at < text.end();) {
            const uint8_t *space = std::find(at, text.end(), ' ');
            marked.append(at, static_cast<size_t>(space - at));
            if (space == text.end()) break;
            marked.append(mark.data, mark.size);
            at = space + 1;
        }
        const uint8_t *begin = marked.data(), *const first = begin, *const end = begin + marked.size();
        for (const uint8_t *at = begin; step.split && at < end; ++at) {
            if (*at != *mark.data || at == begin || !is_marked(at, end)) continue;
            if (!run(number + 1, {begin, static_cast<size_t>(at - begin)}, begin == first ? start : 0, out))
                return false;
            begin = at;
        }
        return run(number + 1, {begin, static_cast<size_t>(end - begin)}, begin == first ? start : 0, out);
    }

    // Splits by the pattern, and writes the bytes of each piece as characters.
    bool map_bytes(size_t number, Span text, const Output &out) const {
        const PreTokenizerStep &step = steps_[number];
        Buffer<uint8_t> &mapped = out.work.pieces[number];
        Buffer<uint8_t> &spaced = out.work.pieces[steps_.size() + number];
        if (step.prefix_space && *text.data != ' ') {
            spaced.resize(0);
            spaced.push(' ');
            spaced.append(text.data, text.size);
            text = {spaced.data(), spaced.size()};
        }
        return byte_level_.split(text, step.pattern, [&](Span piece) {
            mapped.resize(0);
            byte_level_.map(piece, mapped);
            return run(number + 1, {mapped.data(), mapped.size()}, false, out);
        });
    }

    const Characters &characters_;
    ByteLevel byte_level_;
    const Segmenter &segmenter_;
    std::vector<PreTokenizerStep> steps_;
};
