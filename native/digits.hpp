// Formats floats with the shortest digits that round-trip.
#pragma once
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

// The longest float that `format_float` writes, and one byte more: -1.17549435e-38 or -1234567890123456.0.
inline constexpr size_t kMaxFloat = 24;

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

// Writes `value` as Python's repr writes a float, with an exponent below 1e-4 and from 1e16; returns its end.
inline char *format_float(char *p, float value) {
    if (std::signbit(value) && !std::isnan(value)) *p++ = '-';
    value = std::fabs(value);
    if (!std::isfinite(value)) {
        std::memcpy(p, std::isnan(value) ? "nan" : "inf", 3);
        return p + 3;
    }
    char text[kMaxFloat + 1];
    char *end = shortest_scientific(text, value), *mark = end - 1;
    while (*mark != 'e') --mark;
    *end = '\0';
    const int exponent = std::atoi(mark + 1);
    if (exponent < -4 || exponent >= 16) {
        std::memcpy(p, text, static_cast<size_t>(end - text));
        return p + (end - text);
    }
    char *digits = text;  // without the point
    if (mark - text > 1) {
        text[1] = text[0];
        digits = text + 1;
    }
    const int count = static_cast<int>(mark - digits);
    if (exponent < 0) {
        std::memcpy(p, "0.0000", 6);
        p += 1 - exponent;
        std::memcpy(p, digits, static_cast<size_t>(count));
        return p + count;
    }
    for (int i = 0; i <= exponent; ++i) *p++ = i < count ? digits[i] : '0';
    *p++ = '.';
    if (exponent + 1 >= count) {
        *p++ = '0';
        return p;
    }
    std::memcpy(p, digits + exponent + 1, static_cast<size_t>(count - exponent - 1));
    return p + (count - exponent - 1);
}
