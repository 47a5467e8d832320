// Normalizes a text in steps.
#pragma once
#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "characters.hpp"
#include "graphemes.hpp"
#include "segmenter.hpp"
#include "trie.hpp"

// The precompiled normalizer of SentencePiece, applied to graphemes as `tokenizers` does.
class Charsmap {
  public:
    Charsmap() = default;
    Charsmap(Trie trie, Span text) : trie_(trie), text_(text) {}

    // Appends the replacement of the shortest prefix of `part` that has one. Returns false if none has.
    bool replace(Span part, Buffer<uint8_t> &out) const {
        Trie::Node node = trie_.root();
        for (size_t i = 0; i < part.size && trie_.step(node, part.data[i]); ++i) {
            if (!node.has_value) continue;
            const size_t at = trie_.value(node);
            if (at > text_.size)
                throw TokenizerFault("a character is replaced by bytes from " + std::to_string(at) + " of " +
                                     std::to_string(text_.size) + " in charsmap_text");
            const void *end = std::memchr(text_.data + at, 0, text_.size - at);
            const size_t size = end ? static_cast<const uint8_t *>(end) - text_.data - at : text_.size - at;
            out.append(text_.data + at, size);
            return true;
        }
        return false;
    }

  private:
    Trie trie_;
    Span text_{};
};

struct NormalizerStep {
    enum Kind { kCharacters, kCharsmap, kPrepend, kReplace, kReplaceRuns, kStrip } kind;
    std::string pattern, content;
    size_t least = 0;
    bool left = false, right = false;
};

struct Normalized {
    Span text;
    size_t start;  // bytes at its start that come from the first character of the original text
};

class Normalizer {
  public:
    Normalizer(const Characters &characters, Charsmap charsmap, std::vector<NormalizerStep> steps)
        : characters_(characters), charsmap_(charsmap), steps_(std::move(steps)) {
        Buffer<uint8_t> replaced;
        for (uint8_t byte = 1; byte < 128; ++byte) {
            replaced.resize(0);
            if (!charsmap_.replace({&byte, 1}, replaced))
                mapped_[byte] = byte;
            else if (replaced.size() == 1 && replaced[0] < 128)
                mapped_[byte] = replaced[0];
        }
    }

    // The result is in `work` or is the text itself. Throws TokenizerFault.
    Normalized normalize(Span text, Workspace &work) const {
        Normalized result{text, 1};
        const size_t limit = kMaxGrowth * text.size + kMaxExtra;
        size_t unused = 0;  // the buffer that does not hold the text
        for (const NormalizerStep &step : steps_) {
            if (result.text.size == 0) break;
            Buffer<uint8_t> &out = work.normalized[unused];
            out.resize(0);
            apply(step, result, out, limit);
            if (step.kind != NormalizerStep::kStrip) unused ^= 1;
        }
        return result;
    }

  private:
    static constexpr size_t kMaxGrowth = 16, kMaxExtra = 1 << 16;
    static constexpr size_t kSmallGrapheme = 6;  // shorter ones are looked up as a whole

    static void check_growth(const Buffer<uint8_t> &out, size_t limit) {
        if (out.size() > limit)
            throw TokenizerFault("a text becomes more than " + std::to_string(kMaxGrowth) +
                                 " times as long when it is normalized");
    }

    static Span bytes(const std::string &text) {
        return {reinterpret_cast<const uint8_t *>(text.data()), text.size()};
    }

    void apply(const NormalizerStep &step, Normalized &text, Buffer<uint8_t> &out, size_t limit) const {
        const Span from = text.text, content = bytes(step.content);
        switch (step.kind) {
            case NormalizerStep::kCharacters:
                text.start = map_characters(from, out, limit, text.start);
                break;
            case NormalizerStep::kCharsmap:
                map_graphemes(from, out, limit);
                break;
            case NormalizerStep::kPrepend:
                out.append(content.data, content.size);
                out.append(from.data, from.size);
                if (text.start) text.start += content.size;
                break;
            case NormalizerStep::kReplace:
                replace(from, bytes(step.pattern), content, out, limit);
                break;
            case NormalizerStep::kReplaceRuns:
                if (!replace_runs(from, bytes(step.pattern), step.least, content, out, limit)) text.start = 0;
                break;
            case NormalizerStep::kStrip:
                text.text = strip(step, from);
                if (text.text.data != from.data) text.start = 0;
                return;
        }
        check_growth(out, limit);
        text.text = {out.data(), out.size()};
    }

    // Returns how many bytes come from the first character, of which there are `start` bytes in `from`.
    size_t map_characters(Span from, Buffer<uint8_t> &out, size_t limit, size_t start) const {
        out.reserve(from.size);
        uint8_t *to = out.data();
        for (const uint8_t *at = from.data; at < from.end();) {
            if (const uint8_t mapped = characters_.mapped(*at)) {
                *to++ = mapped;
                ++at;
                continue;
            }
            const Character character = read_character(at, from.end());
            const uint32_t entry = characters_.entry(character.code);
            const Span by = entry >> 12 ? characters_.replacement(entry) : Span{at, character.size};
            const bool is_spaced = entry & Characters::kSpaced;
            at += character.size;
            out.resize(static_cast<size_t>(to - out.data()));
            if (at == from.data + character.size && start) start = by.size + (is_spaced ? 2 : 0);
            out.reserve(by.size + 2 + static_cast<size_t>(from.end() - at));
            if (is_spaced) out.push(' ');
            out.append(by.data, by.size);
            if (is_spaced) out.push(' ');
            check_growth(out, limit);
            to = out.data() + out.size();
        }
        out.resize(static_cast<size_t>(to - out.data()));
        return start;
    }

    void map_graphemes(Span from, Buffer<uint8_t> &out, size_t limit) const {
        const uint8_t *const end = from.end();
        out.reserve(from.size);
        for (const uint8_t *at = from.data; at < end;) {
            const bool is_alone = at + 1 == end || (at[1] < 128 && at[1] != '\n');
            if (is_alone && *at < 128 && mapped_[*at]) {
                out.push(mapped_[*at++]);
                continue;
            }
            const Span grapheme{at, Graphemes(characters_).size(at, end)};
            at += grapheme.size;
            if (grapheme.size >= kSmallGrapheme || !charsmap_.replace(grapheme, out)) {
                for (const uint8_t *part = grapheme.data; part < at;) {
                    const Span character{part, read_character(part, at).size};
                    if (!charsmap_.replace(character, out)) out.append(part, character.size);
                    part += character.size;
                    check_growth(out, limit);
                }
            }
            check_growth(out, limit);
        }
    }

    static void replace(Span from, Span pattern, Span content, Buffer<uint8_t> &out, size_t limit) {
        const uint8_t *at = from.data;
        while (at < from.end()) {
            const uint8_t *found = std::search(at, from.end(), pattern.data, pattern.end());
            out.append(at, static_cast<size_t>(found - at));
            if (found == from.end()) return;
            out.append(content.data, content.size);
            check_growth(out, limit);
            at = found + pattern.size;
        }
    }

    // Returns whether the text does not start with a run of several patterns.
    static bool replace_runs(Span from, Span pattern, size_t least, Span content, Buffer<uint8_t> &out,
                             size_t limit) {
        bool keeps_first = true;
        const uint8_t *at = from.data;
        while (at < from.end()) {
            const uint8_t *found = std::search(at, from.end(), pattern.data, pattern.end()), *end = found;
            out.append(at, static_cast<size_t>(found - at));
            size_t run = 0;
            for (; static_cast<size_t>(from.end() - end) >= pattern.size &&
                   std::memcmp(end, pattern.data, pattern.size) == 0;
                 ++run)
                end += pattern.size;
            if (run >= least && run > 0) {
                out.append(content.data, content.size);
                if (found == from.data && run > 1) keeps_first = false;
            } else {
                out.append(found, static_cast<size_t>(end - found));
            }
            check_growth(out, limit);
            at = end;
        }
        return keeps_first;
    }

    Span strip(const NormalizerStep &step, Span text) const {
        size_t size;
        const uint8_t *begin = text.data, *end = text.end();
        while (step.left && begin < end && characters_.classes(begin, end, size) & Characters::kSpace)
            begin += size;
        while (step.right && begin < end) {
            const uint8_t *last = previous_character(begin, end);
            if (!(characters_.classes(last, end, size) & Characters::kSpace)) break;
            end = last;
        }
        return {begin, static_cast<size_t>(end - begin)};
    }

    const Characters &characters_;
    Charsmap charsmap_;
    std::vector<NormalizerStep> steps_;
    uint8_t mapped_[128] = {};  // by the charsmap, as an ASCII character of its own; 0 if by more
};
