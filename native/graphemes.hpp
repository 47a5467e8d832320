// Extended grapheme clusters of UAX #29.
#pragma once
#include <cstddef>
#include <cstdint>

#include "characters.hpp"

class Graphemes {
  public:
    explicit Graphemes(const Characters &characters) : characters_(characters) {}

    // The bytes of the grapheme that begins at `begin`. Flags, which have 8 bytes, are two of 4: what is
    // mapped is a grapheme of fewer than 6 bytes, or a character.
    size_t size(const uint8_t *begin, const uint8_t *end) const {
        if (*begin == '\r') return begin + 1 < end && begin[1] == '\n' ? 2 : 1;
        size_t size;
        uint32_t previous = characters_.classes(begin, end, size);
        Sequence picture = kNone, conjunct = kNone;
        Hangul hangul = hangul_of(begin, end);
        follow(previous, begin, end, picture, conjunct);
        for (const uint8_t *at = begin + size; at < end; at += size) {
            const uint32_t next = characters_.classes(at, end, size);
            const Hangul next_hangul = hangul_of(at, end);
            if ((previous | next) & Characters::kControl) return static_cast<size_t>(at - begin);
            if (!(next & Characters::kJoinsPrevious || previous & Characters::kJoinsNext ||
                  (picture == kLinked && next & Characters::kPictograph) ||
                  (conjunct == kLinked && next & Characters::kIndic) || joins(hangul, next_hangul)))
                return static_cast<size_t>(at - begin);
            follow(next, at, end, picture, conjunct);
            previous = next;
            hangul = next_hangul;
        }
        return static_cast<size_t>(end - begin);
    }

  private:
    // Of pictographs joined by ZWJ, or of Indic consonants joined by a virama.
    enum Sequence { kNone, kOpen, kLinked };

    // Letters, which these ranges of code points define, and syllables of two or three.
    enum Hangul { kOther, kLeading, kVowel, kTrailing, kTwo, kThree };

    static constexpr uint32_t kJoiner = 0x200d;

    static void follow(uint32_t classes, const uint8_t *at, const uint8_t *end, Sequence &picture,
                       Sequence &conjunct) {
        if (!(classes & Characters::kJoinsPrevious)) {
            picture = classes & Characters::kPictograph ? kOpen : kNone;
            conjunct = classes & Characters::kIndic ? kOpen : kNone;
            return;
        }
        const bool is_joiner = read_character(at, end).code == kJoiner;
        if (picture == kLinked || !(classes & Characters::kPictograph)) picture = kNone;
        if (picture == kOpen && is_joiner) picture = kLinked;
        if (classes & Characters::kLinker)
            conjunct = conjunct == kNone ? kNone : kLinked;
        else if (!(classes & Characters::kIndic))
            conjunct = kNone;
    }

    static Hangul hangul_of(const uint8_t *at, const uint8_t *end) {
        if (*at < 0xe1 || *at > 0xed) return kOther;
        const uint32_t code = read_character(at, end).code;
        if (code >= 0xac00 && code <= 0xd7a3) return (code - 0xac00) % 28 == 0 ? kTwo : kThree;
        if ((code >= 0x1100 && code < 0x1160) || (code >= 0xa960 && code <= 0xa97c)) return kLeading;
        if ((code >= 0x1160 && code < 0x11a8) || (code >= 0xd7b0 && code <= 0xd7c6)) return kVowel;
        if ((code >= 0x11a8 && code < 0x1200) || (code >= 0xd7cb && code <= 0xd7fb)) return kTrailing;
        return kOther;
    }

    static bool joins(Hangul previous, Hangul next) {
        if (previous == kOther || next == kOther) return false;
        if (previous == kLeading) return next != kTrailing;
        if (previous == kVowel || previous == kTwo) return next == kVowel || next == kTrailing;
        return next == kTrailing;
    }

    const Characters &characters_;
};
