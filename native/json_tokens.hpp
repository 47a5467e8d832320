// Reads the tokens of a JSON request without Python strings.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "buffer.hpp"
#include "hash.hpp"
#include "simd.hpp"
#include "token_index.hpp"
#include "valid.hpp"

#if SMALLFRY_X86
#include <emmintrin.h>
#endif

// Bit masks over sixteen bytes of a JSON string: those that end a run of plain characters (quotes,
// backslashes and control characters), and those outside ASCII.
struct StringStops {
    static constexpr size_t kBytes = 16;

    unsigned stops, high;

#if SMALLFRY_X86
    explicit StringStops(const uint8_t *p) {
        const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i *>(p));
        const __m128i control = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1F)), bytes);
        const __m128i marks = _mm_or_si128(_mm_cmpeq_epi8(bytes, _mm_set1_epi8('"')),
                                           _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\\')));
        stops = static_cast<unsigned>(_mm_movemask_epi8(_mm_or_si128(control, marks)));
        high = static_cast<unsigned>(_mm_movemask_epi8(bytes));
    }
#else
    explicit StringStops(const uint8_t *p) : stops(0), high(0) {
        for (unsigned i = 0; i < kBytes; ++i) {
            stops |= static_cast<unsigned>(p[i] < 0x20 || p[i] == '"' || p[i] == '\\') << i;
            high |= static_cast<unsigned>(p[i] >> 7) << i;
        }
    }
#endif
};

// The tokens of a text like {"tokens": ["the", "of"] with their hashes.
class JsonTokens {
  public:
    // Copies the text: zeros behind it end every loop, and escapes are decoded in place.
    JsonTokens(const uint8_t *text, size_t size, size_t most)
        : size_(size),
          capacity_(std::min(most, size / 3)),  // a string and its comma have three characters or more
          text_(size + kPadding),
          numbers_(3 * capacity_),
          at_(text_.data()) {
        std::memcpy(text_.data(), text, size);
        std::memset(text_.data() + size, 0, kPadding);
    }

    // Returns false unless the text is the beginning of an object up to the end of its first member,
    // "tokens", whose value is a list of at most `most` strings of valid UTF-8.
    bool read(uint64_t seed) {
        if (!take('{')) return false;
        skip_space();
        if (std::memcmp(at_, "\"tokens\"", 8) != 0) return false;  // reads at most into the padding
        at_ += 8;
        if (!take(':') || !take('[')) return false;
        skip_space();
        if (*at_ != ']') {
            do {
                if (!take('"') || count_ == capacity_ || !read_string(seed)) return false;
                skip_space();
            } while (*at_ == ',' && ++at_);
        }
        return *at_ == ']' && at_ + 1 == text_.data() + size_;
    }

    Queries queries() const { return {text_.data(), begins(), ends(), hashes(), count_, size_ + kPadding}; }

  private:
    static constexpr size_t kPadding = std::max(kSlack, StringStops::kBytes);

    void skip_space() {
        while (*at_ == ' ' || *at_ == '\n' || *at_ == '\r' || *at_ == '\t') ++at_;
    }

    // Moves past white space and `mark`.
    bool take(uint8_t mark) {
        skip_space();
        return *at_++ == mark;
    }

    // Adds the string that begins at the current byte and moves past its closing quote.
    bool read_string(uint64_t seed) {
        uint8_t *const begin = at_;
        unsigned high = 0;
        StringStops found(at_);
        for (; found.stops == 0; found = StringStops(at_)) {
            high |= found.high;
            at_ += StringStops::kBytes;
        }
        high |= found.high & (found.stops - 1) & ~found.stops;
        at_ += __builtin_ctz(found.stops);
        uint8_t *end = at_;
        if (*at_ == '\\') {
            high = 1;
            if (!decode_escapes(end)) return false;
        }
        if (*at_++ != '"' || (high != 0 && !is_utf8(begin, end))) return false;
        const auto length = static_cast<size_t>(end - begin);
        begins()[count_] = static_cast<uint64_t>(begin - text_.data());
        ends()[count_] = begins()[count_] + length;
        hashes()[count_] = hash_padded(begin, length, seed);
        ++count_;
        return true;
    }

    // Decodes the rest of a string to `to`, which follows the last character written.
    bool decode_escapes(uint8_t *&to) {
        while (*at_ != '"') {
            if (*at_ < 0x20) return false;
            if (*at_ != '\\') {
                *to++ = *at_++;
            } else if (at_[1] == 'u') {
                if (!decode_unit(to)) return false;
            } else {
                const char *const mark = std::strchr(kEscapes, at_[1]);
                if (at_[1] == 0 || mark == nullptr) return false;
                *to++ = static_cast<uint8_t>(kEscaped[mark - kEscapes]);
                at_ += 2;
            }
        }
        return true;
    }

    // Decodes \uXXXX, or two of them that are a surrogate pair. Lone low surrogates, and high ones without a
    // pair, are left to the general JSON parser.
    bool decode_unit(uint8_t *&to) {
        uint32_t code = read_unit();
        if (is_surrogate(code)) {
            const uint32_t low = read_unit();
            if (code >= 0xDC00 || !is_surrogate(low) || low < 0xDC00) return false;
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        }
        if (code == kNoUnit) return false;
        to = encode_utf8(code, to);
        return true;
    }

    // The number in \uXXXX, kNoUnit for anything else.
    uint32_t read_unit() {
        if (at_[0] != '\\' || at_[1] != 'u') return kNoUnit;
        uint32_t unit = 0;
        at_ += 2;
        for (int i = 0; i < 4; ++i, ++at_) {
            const uint32_t digit = *at_ - uint32_t{'0'}, letter = (*at_ | 0x20u) - 'a';
            if (digit > 9 && letter > 5) return kNoUnit;
            unit = unit << 4 | (digit <= 9 ? digit : letter + 10);
        }
        return unit;
    }

    uint64_t *begins() { return numbers_.data(); }
    uint64_t *ends() { return numbers_.data() + capacity_; }
    uint64_t *hashes() { return numbers_.data() + 2 * capacity_; }
    const uint64_t *begins() const { return numbers_.data(); }
    const uint64_t *ends() const { return numbers_.data() + capacity_; }
    const uint64_t *hashes() const { return numbers_.data() + 2 * capacity_; }

    static constexpr char kEscapes[] = "\"\\/bfnrt", kEscaped[] = "\"\\/\b\f\n\r\t";
    static constexpr uint32_t kNoUnit = 0xFFFFFFFF;

    size_t size_, capacity_, count_ = 0;
    Buffer<uint8_t> text_;
    Buffer<uint64_t> numbers_;
    uint8_t *at_;
};
