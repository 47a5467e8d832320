// Parses plain decimal numbers to correctly rounded doubles.
#pragma once
#if defined(__APPLE__)
#include <xlocale.h>
#endif

#include <charconv>
#include <clocale>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>

// The end of `word` if [p, end) starts with it in any case, else nullptr.
inline const char *match_word(const char *p, const char *end, const char *word) {
    for (; *word != '\0'; ++p, ++word)
        if (p == end || (*p | 0x20) != *word) return nullptr;
    return p;
}

inline const char *parse_non_finite(const char *p, const char *end, double &value) {
    const char *after = match_word(p, end, "nan");
    value = std::numeric_limits<double>::quiet_NaN();
    if (after != nullptr) return after;
    value = std::numeric_limits<double>::infinity();
    after = match_word(p, end, "infinity");
    return after != nullptr ? after : match_word(p, end, "inf");
}

// [p, end) is a number without a sign, of any number of digits and any exponent.
inline double parse_rounded(const char *p, const char *end) {
#if defined(__cpp_lib_to_chars)  // not in libc++
    double value;
    auto [after, error] = std::from_chars(p, end, value);
    if (error == std::errc()) return value;
#endif
    // strtod reads the point of the locale of the process.
    static const locale_t locale = newlocale(LC_ALL_MASK, "C", nullptr);
    return strtod_l(std::string(p, end).c_str(), nullptr, locale);
}

// Parses up to 8 digits at p and returns their number; 0 if fewer than 8 bytes are left.
inline unsigned parse_digits(const char *p, const char *limit, uint32_t &value) {
    if (limit - p < 8) return 0;
    uint64_t word;
    std::memcpy(&word, p, 8);
    word ^= 0x3030303030303030u;
    uint64_t other = ((word + 0x7676767676767676u) | word) & 0x8080808080808080u;
    unsigned count = other == 0 ? 8 : static_cast<unsigned>(__builtin_ctzll(other)) / 8;
    if (count == 0) return 0;
    word <<= 64 - 8 * count;  // zeros before the first digit
    word = word * 10 + (word >> 8);
    value = static_cast<uint32_t>(((word & 0x000000FF000000FFu) * 0x000F424000000064u +
                                   (word >> 16 & 0x000000FF000000FFu) * 0x0000271000000001u) >>
                                  32);
    return count;
}

// Parses the number at p: an optional sign, then digits with at most one point and an exponent, or nan, inf
// or infinity. Returns its end, or nullptr if there is none. A byte other than a digit must precede `limit`.
inline const char *parse_number(const char *p, const char *limit, double &value) {
    static constexpr double kPowers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                         1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                         1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    static constexpr uint64_t kScale[] = {1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000};
    static constexpr double kSigns[] = {1.0, -1.0};
    const bool negative = *p == '-';  // branchless, because signs are random
    p += negative | (*p == '+');
    const char *start = p;
    uint64_t mantissa = 0;
    for (; static_cast<unsigned>(*p - '0') < 10; ++p)
        mantissa = mantissa * 10 + static_cast<unsigned>(*p - '0');
    int64_t digits = p - start, exponent = 0;
    if (*p == '.') {
        const char *fraction = ++p;
        uint32_t part;
        while (unsigned count = parse_digits(p, limit, part)) {
            mantissa = mantissa * kScale[count] + part;
            p += count;
            if (count < 8) break;
        }
        for (; static_cast<unsigned>(*p - '0') < 10; ++p)
            mantissa = mantissa * 10 + static_cast<unsigned>(*p - '0');
        digits += p - fraction;
        exponent = fraction - p;
    }
    if (digits == 0) {
        p = parse_non_finite(start, limit, value);
        if (negative) value = -value;
        return p;
    }
    if ((*p | 0x20) == 'e') {
        const char *q = p + 1;
        bool down = *q == '-';
        if (down || *q == '+') ++q;
        if (static_cast<unsigned>(*q - '0') >= 10) return nullptr;
        int64_t power = 0;
        for (; static_cast<unsigned>(*q - '0') < 10; ++q)
            if (power < 1000000) power = power * 10 + (*q - '0');
        exponent += down ? -power : power;
        p = q;
    }
    // Both operands are exact, so one operation rounds correctly (Clinger 1990).
    if (digits <= 19 && mantissa <= 1ull << 53 && exponent >= -22 && exponent <= 22)
        value = exponent < 0 ? static_cast<double>(mantissa) / kPowers[-exponent]
                             : static_cast<double>(mantissa) * kPowers[exponent];
    else
        value = parse_rounded(start, p);
    value *= kSigns[negative];
    return p;
}
