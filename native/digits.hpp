// Formats floats with the shortest digits that round-trip.
#pragma once
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

// The bytes that `format_float` and `format_json` may write, some of them behind the text.
inline constexpr size_t kMaxFloat = 24;

// digits * 10**exponent
struct Decimal {
    uint32_t digits;
    int exponent;
};

inline constexpr uint32_t kPowersOf10[] = {1,      10,      100,      1000,      10000,
                                           100000, 1000000, 10000000, 100000000, 1000000000};

// How floats are laid out: with an exponent below 10**low and from 10**high, and its fewest digits.
struct FloatLayout {
    int low, high, exponent_digits;
};

// Writes d.ddde±dd with the fewest digits that read as the same float; returns its end.
inline char *shortest_scientific(char *p, float value) {
#if defined(__cpp_lib_to_chars)
    return std::to_chars(p, p + kMaxFloat, value, std::chars_format::scientific).ptr;
#else
    int size = 0;
    for (int precision = 0; precision <= 8; ++precision) {
        size = std::snprintf(p, kMaxFloat, "%.*e", precision, static_cast<double>(value));
        if (std::strtof(p, nullptr) == value) break;
    }
    return p + size;
#endif
}

inline Decimal parse_scientific(const char *p) {
    Decimal decimal{0, 0};
    for (bool fraction = false; *p != 'e'; ++p) {
        if (*p == '.') {
            fraction = true;
            continue;
        }
        decimal.digits = decimal.digits * 10 + static_cast<uint32_t>(*p - '0');
        decimal.exponent -= fraction;
    }
    decimal.exponent += std::atoi(p + 1);
    return decimal;
}

// The powers of 5 by which integers of 26 bits can be multiplied.
template <class Integer>
constexpr auto kPowersOf5 = [] {
    std::array<Integer, sizeof(Integer) == 8 ? 17 : 44> powers{1};
    for (size_t i = 1; i < powers.size(); ++i) powers[i] = powers[i - 1] * 5;
    return powers;
}();

// See shortest_decimal. The scale is that at which the distance of two floats is from 1 to 10, so that
// between the bounds of what rounds to the value, which are exact integers, are an integer and at most one
// multiple of 10.
template <class Integer>
Decimal scaled_decimal(uint32_t significand, int binary) {
    const int scale = ((23 - binary) * 1233 + 4095) >> 12;  // 1233 / 4096 is log10(2), rounded
    const int point = 25 - binary - scale;                  // bits behind the point
    const Integer half_distance = 2 * kPowersOf5<Integer>[static_cast<size_t>(scale)];
    const Integer exact = 2 * significand * half_distance, unit = Integer{1} << point;
    const uint32_t is_odd = significand & 1, whole = static_cast<uint32_t>(exact >> point);
    // Bounds round to an even value only.
    const auto least = static_cast<uint32_t>((exact - half_distance + unit - !is_odd) >> point);
    const auto most = static_cast<uint32_t>((exact + half_distance - is_odd) >> point);
    const auto nearest = static_cast<uint32_t>((exact + unit / 2 - 1 + (whole & 1)) >> point);
    const bool is_shorter = (least + 9) / 10 <= most / 10;
    Decimal decimal{is_shorter ? most / 10 : nearest, is_shorter - scale};
    for (; decimal.digits % 10 == 0; ++decimal.exponent) decimal.digits /= 10;
    return decimal;
}

// The decimal of the fewest digits that reads as `value`, and of these the nearest; for finite values from 0.
inline Decimal shortest_decimal(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    if (bits == 0) return {0, 0};
    const int binary = static_cast<int>(bits >> 23) - 127;
    const uint32_t fraction = bits & 0x7fffff, significand = fraction | 0x800000;
    // The values next to a power of 2 are at two distances.
    if (fraction != 0 && binary < 23) {
        if (binary >= -29) return scaled_decimal<uint64_t>(significand, binary);
        if (binary >= -117) return scaled_decimal<unsigned __int128>(significand, binary);
    }
    char text[kMaxFloat + 1];
    *shortest_scientific(text, value) = '\0';
    return parse_scientific(text);
}

// Decimal digits of a number, 1 for 0.
inline int count_digits(uint32_t number) {
    const int below = (32 - __builtin_clz(number | 1)) * 1233 >> 12;
    return below + (number >= (below ? kPowersOf10[below] : 0));
}

// Writes a number of at most 8 digits, with zeros before it.
inline void write_digits(char *p, uint32_t number) {
    uint64_t digits = uint64_t{number % 10000} << 32 | number / 10000;
    const uint64_t hundreds = digits * 10486 >> 20 & 0x0000007f0000007fu;
    digits = (digits - hundreds * 100) << 16 | hundreds;
    const uint64_t tens = digits * 103 >> 10 & 0x000f000f000f000fu;
    digits = ((digits - tens * 10) << 8 | tens) + 0x3030303030303030u;
    std::memcpy(p, &digits, sizeof digits);
}

inline char *write_exponent(char *p, int exponent, int digits) {
    *p++ = 'e';
    *p++ = exponent < 0 ? '-' : '+';
    exponent = std::abs(exponent);
    if (digits == 2 || exponent >= 10) *p++ = static_cast<char>('0' + exponent / 10);
    *p++ = static_cast<char>('0' + exponent % 10);
    return p;
}

// Writes a finite value with a point in its digits, unless it has an exponent; returns its end.
inline char *write_finite(char *p, float value, FloatLayout layout) {
    *p = '-';
    p += std::signbit(value);
    const Decimal decimal = shortest_decimal(std::fabs(value));
    const int count = count_digits(decimal.digits), exponent = decimal.exponent + count - 1;
    const uint32_t digits = decimal.digits * kPowersOf10[9 - count];
    const bool has_exponent = exponent < layout.low || exponent >= layout.high;
    const bool is_fraction = exponent < 0 && !has_exponent;
    std::memcpy(p, "0.000000", 8);
    char *text = p + (is_fraction ? 1 - exponent : 1);
    *text = static_cast<char>('0' + digits / 100000000);
    write_digits(text + 1, digits % 100000000);
    if (is_fraction) return text + count;
    std::memcpy(text + 9, "00000000", 8);
    const int whole = has_exponent ? 1 : exponent + 1;
    for (int i = 0; i < whole; ++i) *p++ = *text++;
    if (count > whole || !has_exponent) {
        *p = '.';
        p += 1 + std::max(count - whole, 1);
    }
    return has_exponent ? write_exponent(p, exponent, layout.exponent_digits) : p;
}

// Writes `value` as Python's repr writes a float, with an exponent below 1e-4 and from 1e16; returns its end.
inline char *format_float(char *p, float value) {
    if (std::isfinite(value)) return write_finite(p, value, {-4, 16, 2});
    const char *word = std::isnan(value) ? "nan" : value < 0 ? "-inf" : "inf";
    const size_t size = std::strlen(word);
    std::memcpy(p, word, size);
    return p + size;
}

// Writes `value` as orjson writes a float32, with an exponent below 1e-6 and from 1e13, null if it is not
// finite; returns its end.
inline char *format_json(char *p, float value) {
    if (std::isfinite(value)) return write_finite(p, value, {-6, 13, 1});
    std::memcpy(p, "null", 4);
    return p + 4;
}
