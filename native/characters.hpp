// The table of characters: classes and replacement of each code point.
#pragma once
#include <cstdint>
#include <string>

#include "segmenter.hpp"

struct Character {
    uint32_t code;
    uint32_t size;  // bytes
};

// Reads a character of UTF-8. Reads within [at, end), which is not empty, also if it is not valid.
inline Character read_character(const uint8_t *at, const uint8_t *end) {
    const uint32_t lead = *at;
    const uint32_t size = lead < 0xc0 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    if (lead < 0x80) return {lead, 1};
    if (size == 1 || static_cast<size_t>(end - at) < size) return {0xfffd, 1};
    uint32_t code = lead & (0x7fu >> size);
    for (uint32_t i = 1; i < size; ++i) code = code << 6 | (at[i] & 0x3fu);
    return {code, size};
}

// Where the character before `at` starts, which is behind `begin`.
inline const uint8_t *previous_character(const uint8_t *begin, const uint8_t *at) {
    do --at;
    while (at > begin && (*at & 0xc0) == 0x80);
    return at;
}

class Characters {
  public:
    enum Class : uint32_t {
        kSpace = 1,
        kPunctuation = 2,
        kWord = 4,
        kLetter = 8,
        kNumber = 16,
        kJoinsPrevious = 32,
        kJoinsNext = 64,
        kControl = 128,
        kSpaced = 256,      // surrounded by spaces when it is mapped
        kPictograph = 512,  // and marks that may stand between a pictograph and ZWJ, and ZWJ
        kIndic = 1024,      // consonants, and marks that may stand between a virama and a consonant
        kLinker = 2048,     // virama
    };

    Characters(const uint16_t *blocks, size_t block_count, const uint32_t *entries, size_t entry_count,
               Span text)
        : blocks_(blocks),
          block_count_(block_count),
          entries_(entries),
          entry_count_(entry_count),
          text_(text) {
        for (uint8_t code = 0; code < 128; ++code) {
            const uint32_t found = entry(code);
            ascii_[code] = static_cast<uint16_t>(found & 0xfff);
            if (found & kSpaced) continue;
            const Span by = found >> 12 ? replacement(found) : Span{&code, 1};
            if (by.size == 1 && by.data[0] < 128) mapped_[code] = by.data[0];
        }
    }

    uint32_t entry(uint32_t code) const {
        if (code >> 8 >= block_count_) return 0;
        const size_t at = static_cast<size_t>(blocks_[code >> 8]) * 256 + (code & 255);
        return at < entry_count_ ? entries_[at] : 0;
    }

    // The classes of the character at `at`, which is `size` bytes long.
    uint32_t classes(const uint8_t *at, const uint8_t *end, size_t &size) const {
        size = 1;
        if (*at < 128) return ascii_[*at];
        const Character character = read_character(at, end);
        size = character.size;
        return entry(character.code);
    }

    // What an entry with a replacement is replaced by. Throws TokenizerFault.
    Span replacement(uint32_t entry) const {
        const size_t at = (entry >> 12) - 1;
        if (at >= text_.size || text_.size - at - 1 < text_.data[at])
            throw TokenizerFault("a character is replaced by bytes from " + std::to_string(at) + " of " +
                                 std::to_string(text_.size));
        return {text_.data + at + 1, text_.data[at]};
    }

    // The ASCII character to which an ASCII character is mapped; 0 if `entry` has to be read.
    uint8_t mapped(uint8_t byte) const { return mapped_[byte]; }

  private:
    const uint16_t *blocks_;
    size_t block_count_;
    const uint32_t *entries_;
    size_t entry_count_;
    Span text_;
    uint16_t ascii_[128];
    uint8_t mapped_[256] = {};
};
