// Packs and unpacks codes: value j of a byte in its bits j * nbit and up; 16-bit codes little-endian.
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

inline void unpack_codes(const uint8_t *packed, size_t count, int nbit, uint16_t *codes) {
    if (nbit == 16) {
        std::memcpy(codes, packed, count * 2);
        return;
    }
    const int mask = (1 << nbit) - 1;
    const size_t per_byte = 8 / nbit;
    for (size_t i = 0; i < count; ++i)
        codes[i] = static_cast<uint16_t>(packed[i / per_byte] >> (i % per_byte * nbit) & mask);
}
