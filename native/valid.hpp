// Tests for ASCII and valid UTF-8, and encodes UTF-8.
#pragma once
#include <cstdint>

#include "hash.hpp"

inline bool is_ascii(const uint8_t *p, const uint8_t *end) {
    for (; end - p >= 8; p += 8)
        if (load_word(p) & 0x8080808080808080u) return false;
    return (load_tail(p, static_cast<size_t>(end - p)) & 0x8080808080808080u) == 0;
}

// Unicode 15, table 3-7: well-formed byte sequences.
inline bool is_utf8(const uint8_t *p, const uint8_t *end) {
    while (p < end) {
        uint8_t lead = *p++;
        if (lead < 0x80) continue;
        if (lead < 0xC2 || lead > 0xF4) return false;
        int trailing = lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3;
        if (end - p < trailing) return false;
        if (lead == 0xE0 && *p < 0xA0) return false;
        if (lead == 0xED && *p > 0x9F) return false;
        if (lead == 0xF0 && *p < 0x90) return false;
        if (lead == 0xF4 && *p > 0x8F) return false;
        for (; trailing > 0; --trailing)
            if ((*p++ & 0xC0) != 0x80) return false;
    }
    return true;
}

inline bool is_surrogate(uint32_t c) { return c >= 0xD800 && c <= 0xDFFF; }

// Writes a character, and returns the end of its one to four bytes.
inline uint8_t *encode_utf8(uint32_t c, uint8_t *p) {
    if (c < 0x80) {
        *p++ = static_cast<uint8_t>(c);
    } else if (c < 0x800) {
        *p++ = static_cast<uint8_t>(0xC0 | c >> 6);
        *p++ = static_cast<uint8_t>(0x80 | (c & 0x3F));
    } else if (c < 0x10000) {
        *p++ = static_cast<uint8_t>(0xE0 | c >> 12);
        *p++ = static_cast<uint8_t>(0x80 | (c >> 6 & 0x3F));
        *p++ = static_cast<uint8_t>(0x80 | (c & 0x3F));
    } else {
        *p++ = static_cast<uint8_t>(0xF0 | c >> 18);
        *p++ = static_cast<uint8_t>(0x80 | (c >> 12 & 0x3F));
        *p++ = static_cast<uint8_t>(0x80 | (c >> 6 & 0x3F));
        *p++ = static_cast<uint8_t>(0x80 | (c & 0x3F));
    }
    return p;
}
