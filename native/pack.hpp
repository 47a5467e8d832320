// Packs and unpacks codes: value j of a row in its bits j * nbit and up, from the low bit of byte 0.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "simd.hpp"

// This many codes pack to whole bytes at every width.
constexpr size_t kPackStep = 512;

SMALLFRY_INLINE size_t packed_size(size_t count, int nbit) {
    return (count * static_cast<size_t>(nbit) + 7) / 8;
}

// Packs eight codes below 2**nbit, one per byte, into the lowest nbit bytes. nbit <= 8.
SMALLFRY_INLINE uint64_t pack_eight(uint64_t codes, int nbit) {
    switch (nbit) {
        case 1:
            codes |= codes >> 7;
            codes |= codes >> 14;
            return (codes | codes >> 28) & 0xff;
        case 2:
            codes |= codes >> 6;
            codes |= codes >> 12;
            return (codes & 0xff) | (codes >> 24 & 0xff00);
        case 3:
            codes |= codes >> 5;
            codes =
                (codes & 0x3f) | (codes >> 10 & 0xfc0) | (codes >> 20 & 0x3f000) | (codes >> 30 & 0xfc0000);
            return codes;
        case 4:
            codes |= codes >> 4;
            return (codes & 0xff) | (codes >> 8 & 0xff00) | (codes >> 16 & 0xff0000) |
                   (codes >> 24 & 0xff000000);
        default:
            return codes;
    }
}

// Writes packed_size(count, nbit) bytes; the bits past the last code are 0.
inline void pack_codes(const uint16_t *codes, size_t count, int nbit, uint8_t *out) {
    if (nbit == 16) {
        std::memcpy(out, codes, count * 2);
        return;
    }
    for (size_t at = 0; at < count; at += 8, out += nbit) {
        const size_t n = std::min<size_t>(8, count - at);
        uint64_t eight = 0;
        for (size_t i = 0; i < n; ++i) eight |= static_cast<uint64_t>(codes[at + i] & 0xff) << 8 * i;
        eight = pack_eight(eight, nbit);
        std::memcpy(out, &eight, packed_size(n, nbit));
    }
}

// `each_window` may read this many bytes past the end of a row.
constexpr size_t kWindowPadding = 3;

// Calls use(j, window) for value j of a row: its bits j * nbit up to j * nbit + width of the ring of count *
// nbit bits. nbit <= width <= 16, and width <= count * nbit.
template <class Use>
SMALLFRY_INLINE void each_window(const uint8_t *row, size_t count, int nbit, int width, const Use &use) {
    const auto load = [row](size_t at) {
        uint32_t word;
        std::memcpy(&word, row + at, sizeof word);
        return word;
    };
    const size_t step = static_cast<size_t>(nbit), bits = count * step, length = static_cast<size_t>(width);
    const uint32_t mask = (1u << width) - 1;
    const size_t inner = (bits - length) / step + 1, begin = inner * step;  // windows that do not wrap
    for (size_t j = 0; j < inner; ++j) use(j, load(j * step / 8) >> j * step % 8 & mask);
    if (inner == count) return;
    const size_t left = bits - begin;  // fewer than width
    const uint32_t last = load(begin / 8) >> begin % 8 & ((1u << left) - 1);
    const uint32_t ring = last | (load(0) & mask) << left;
    for (size_t j = inner; j < count; ++j) use(j, ring >> (j - inner) * step & mask);
}
