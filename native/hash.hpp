// The hash of a token: 64 bits, eight bytes a step. Part of the .sfq format (docs/reference/format.md).
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "words of a token are read as little-endian");

inline uint64_t load_word(const uint8_t *p) {
    uint64_t word;
    std::memcpy(&word, p, sizeof word);
    return word;
}

// The n bytes at p, n <= 8, as a zero-padded word. Reads no byte beyond p[n - 1].
inline uint64_t load_tail(const uint8_t *p, size_t n) {
    if (n == 8) return load_word(p);
    if (n >= 4) {
        uint32_t low, high;
        std::memcpy(&low, p, 4);
        std::memcpy(&high, p + n - 4, 4);
        return low | static_cast<uint64_t>(high) << 8 * (n - 4);
    }
    if (n == 0) return 0;
    return p[0] | static_cast<uint64_t>(p[n / 2]) << 8 * (n / 2) |
           static_cast<uint64_t>(p[n - 1]) << 8 * (n - 1);
}

struct TokenHash {
    uint64_t state;

    TokenHash(uint64_t seed, size_t length)
        : state((seed + 1) * 0x9E3779B97F4A7C15u ^ static_cast<uint64_t>(length) * 0xD6E8FEB86659FD93u) {}

    void add(uint64_t word) {
        state = (state ^ word) * 0xA0761D6478BD642Fu;
        state ^= state >> 32;
    }

    uint64_t finish() const {
        uint64_t h = (state ^ state >> 29) * 0xBF58476D1CE4E5B9u;
        return h ^ h >> 32;
    }
};

inline uint64_t hash_token(const uint8_t *p, size_t n, uint64_t seed) {
    TokenHash hash(seed, n);
    for (; n > 8; n -= 8, p += 8) hash.add(load_word(p));
    hash.add(load_tail(p, n));
    return hash.finish();
}

inline bool equal_tokens(const uint8_t *a, const uint8_t *b, size_t n) {
    for (; n > 8; n -= 8, a += 8, b += 8)
        if (load_word(a) != load_word(b)) return false;
    return load_tail(a, n) == load_tail(b, n);
}

// Bytes past a token that the padded functions may read.
constexpr size_t kSlack = 16;
// Tokens up to this length are handled without branches on it: lengths are random, so branches mispredict.
constexpr size_t kShort = 16;

// The first n <= 8 bytes of a word, zero-padded.
inline uint64_t first_bytes(uint64_t word, size_t n) {
    return word & ~uint64_t{0} >> 4 * (8 - n) >> 4 * (8 - n);
}

// All bits where n > 8, none otherwise.
inline uint64_t if_longer_than_word(size_t n) { return uint64_t{0} - static_cast<uint64_t>(n > 8); }

// A faster hash_token. kSlack bytes past the token must be readable.
inline uint64_t hash_padded(const uint8_t *p, size_t n, uint64_t seed) {
    if (n > kShort) return hash_token(p, n, seed);
    const uint64_t longer = if_longer_than_word(n);
    TokenHash hash(seed, n);
    hash.add(first_bytes(load_word(p), n - ((n - 8) & longer)));
    const uint64_t after_one = hash.state;
    hash.add(load_word(p + ((n - 8) & longer)) >> (8 * (kShort - n) & 63));
    hash.state = (hash.state & longer) | (after_one & ~longer);
    return hash.finish();
}

// A faster equal_tokens. kSlack bytes past either token must be readable.
inline bool equal_padded(const uint8_t *a, const uint8_t *b, size_t n) {
    if (n > kShort) return equal_tokens(a, b, n);
    const size_t second = (n - 8) & if_longer_than_word(n);
    return (first_bytes(load_word(a) ^ load_word(b), n - second) |
            first_bytes(load_word(a + 8) ^ load_word(b + 8), second)) == 0;
}
