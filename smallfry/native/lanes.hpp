// Eight values side by side, in plain C++ that every instruction set gives the same bits for.
#pragma once
#include <cstdint>
#include <cstring>

#include "simd.hpp"

// Vectors wider than the registers of the default target are passed between inlined functions only.
#pragma GCC diagnostic ignored "-Wpsabi"

constexpr size_t kLanes = 8;

typedef double Lanes __attribute__((vector_size(64)));
typedef uint64_t WordLanes __attribute__((vector_size(64)));
typedef float FloatLanes __attribute__((vector_size(32)));
typedef uint16_t ShortLanes __attribute__((vector_size(16)));
typedef uint8_t ByteLanes __attribute__((vector_size(8)));

// Doubles of magnitude below 2**51 round to whole numbers, half to even, when this is added and taken off
// again.
constexpr double kRounder = 6755399441055744.0;

SMALLFRY_INLINE Lanes load_lanes(const float *from) {
    FloatLanes values;
    std::memcpy(&values, from, sizeof values);
    return __builtin_convertvector(values, Lanes);
}

// The first `count` values, then zeros.
SMALLFRY_INLINE Lanes load_some_lanes(const float *from, size_t count) {
    float padded[kLanes] = {};
    std::memcpy(padded, from, count * sizeof(float));
    return load_lanes(padded);
}

SMALLFRY_INLINE Lanes clamp_lanes(Lanes values, double low, double high) {
    const Lanes lows = low - Lanes{}, highs = high - Lanes{};
    values = values < lows ? lows : values;
    return values > highs ? highs : values;
}

SMALLFRY_INLINE Lanes round_to_float(Lanes values) {
    return __builtin_convertvector(__builtin_convertvector(values, FloatLanes), Lanes);
}

SMALLFRY_INLINE double sum_lanes(const Lanes &v) {
    return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}
