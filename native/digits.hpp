// Formats floats with the shortest digits that round-trip.
#pragma once
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

// The bytes that `format_float` and `format_json` may write, some of them behind the text.
inline constexpr size_t kMaxFloat = 24;

inline constexpr uint64_t kZeros = 0x3030303030303030u;       // 00000000
inline constexpr uint64_t kPointZeros = 0x3030303030302e30u;  // 0.000000

// digits * 10**(exponent - 8): 9 digits, of which the last may be zeros, or 0.
struct Decimal {
    uint32_t digits;
    int exponent;
};

// How floats are laid out: with an exponent below 10**low and from 10**high, and its fewest digits.
struct FloatLayout {
    int low, high, exponent_digits;
};

// Reads d.ddde±dd.
inline Decimal parse_scientific(const char *p) {
    Decimal decimal{0, 0};
    for (uint32_t unit = 100000000; *p != 'e'; ++p) {
        if (*p == '.') continue;
        decimal.digits += static_cast<uint32_t>(*p - '0') * unit;
        unit /= 10;
    }
    decimal.exponent = std::atoi(p + 1);
    return decimal;
}

// The powers of 5 by which integers of 26 bits can be multiplied.
template <class Integer>
constexpr auto kPowersOf5 = [] {
    std::array<Integer, sizeof(Integer) == 8 ? 17 : 44> powers{1};
    for (size_t i = 1; i < powers.size(); ++i) powers[i] = powers[i - 1] * 5;
    return powers;
}();

// The shortest decimal of a float that is not a power of 2. `exact` is value * 10**scale and `half_distance`
// half the gap to the next float, both with `point` bits after the binary point. The gap is at least 1 and
// below 10, so one of `nearest` (an integer) and `tens` (a multiple of 10) is the answer. `exact` is below
// 2**64 for values down to 2**-29, and below 2**128 for values down to 2**-117.
template <class Integer>
Decimal scaled_decimal(uint32_t significand, int binary) {
    const int scale = ((23 - binary) * 1233 + 4095) >> 12;  // 1233 / 4096 is log10(2), rounded
    const int point = 25 - binary - scale;                  // bits after the point
    const Integer half_distance = 2 * kPowersOf5<Integer>[static_cast<size_t>(scale)];
    const Integer exact = 2 * significand * half_distance, unit = Integer{1} << point;
    const auto whole = static_cast<uint32_t>(exact >> point);
    const uint32_t nearest = whole + ((exact & (unit - 1)) + (whole & 1) > unit / 2);
    const uint32_t tens = (whole + 5) / 10 * 10;
    // What lies halfway between two floats rounds to the even one. Differences wrap around.
    const Integer distance = half_distance - (significand & 1);
    const bool is_inside = (Integer{tens} << point) - exact + distance <= 2 * distance;
    const uint32_t digits = nearest + (tens - nearest) * is_inside;  // a branch would be random
    static constexpr uint32_t kUnits[] = {100, 10, 1};
    const int extra_digits = (digits >= 10000000) + (digits >= 100000000);  // beyond 7
    return {digits * kUnits[extra_digits], 6 + extra_digits - scale};
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
    *std::to_chars(text, text + kMaxFloat, value, std::chars_format::scientific).ptr = '\0';
    return parse_scientific(text);
}

// The text of a number of at most 8 digits, with zeros before it, as a little-endian word.
inline uint64_t eight_digits(uint32_t number) {
    uint64_t digits = uint64_t{number % 10000} << 32 | number / 10000;
    const uint64_t hundreds = digits * 10486 >> 20 & 0x0000007f0000007fu;
    digits = (digits - hundreds * 100) << 16 | hundreds;
    const uint64_t tens = digits * 103 >> 10 & 0x000f000f000f000fu;
    return ((digits - tens * 10) << 8 | tens) + kZeros;
}

inline char *write_exponent(char *p, int exponent, int digits) {
    *p++ = 'e';
    *p++ = exponent < 0 ? '-' : '+';
    exponent = std::abs(exponent);
    if (digits == 2 || exponent >= 10) *p++ = static_cast<char>('0' + exponent / 10);
    *p++ = static_cast<char>('0' + exponent % 10);
    return p;
}

// How the first 8 bytes of a number are made of the first 8 digits, by the exponent of its first digit.
struct Place {
    uint64_t fixed;        // the point, and the zeros around it
    uint64_t kept, moved;  // masks of the digits before the point, and of those moved behind it
    int at, size;          // by how many bytes these are moved, and the least number of bytes
};

constexpr int kLowestPlace = -6;
constexpr auto kPlaces = [] {
    std::array<Place, 12> places{};
    for (int i = 0; i < 12; ++i) {
        const int exponent = i + kLowestPlace;
        const bool is_fraction = exponent < 0;
        const int lead = is_fraction ? 1 - exponent : exponent + 2;
        const uint64_t mask = (uint64_t{1} << 8 * lead) - 1;
        places[static_cast<size_t>(i)] = {is_fraction ? kPointZeros & mask : uint64_t{'.'} << 8 * (lead - 1),
                                          is_fraction ? 0 : mask >> 8, ~mask, is_fraction ? lead : 1,
                                          lead + 1};
    }
    return places;
}();

// Writes a finite value with a point in its digits, unless it has an exponent; returns its end.
inline char *write_finite(char *p, float value, FloatLayout layout) {
    *p = '-';
    p += std::signbit(value);
    const Decimal decimal = shortest_decimal(std::fabs(value));
    const int exponent = decimal.exponent;
    const uint64_t word = eight_digits(decimal.digits / 10);
    const uint32_t ninth = decimal.digits % 10;
    const int count = ninth ? 9 : 8 - __builtin_clzll((word ^ kZeros) | 1) / 8;
    if (exponent >= layout.low && exponent < 6) {
        // Without branches, as they would be random.
        const Place &place = kPlaces[static_cast<size_t>(exponent - kLowestPlace)];
        const int at = place.at;
        const uint64_t first = place.fixed | (word & place.kept) | (word << 8 * at & place.moved);
        std::memcpy(p + at, &word, sizeof word);
        p[at + 8] = static_cast<char>('0' + ninth);
        std::memcpy(p, &first, sizeof first);
        return p + std::max(at + count, place.size);
    }
    char *text = p + 1;
    std::memcpy(text, &word, sizeof word);
    text[8] = static_cast<char>('0' + ninth);
    std::memcpy(text + 9, "00000000", 8);
    const bool has_exponent = exponent < layout.low || exponent >= layout.high;
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
