// Vectors of doubles in plain C++ with the same results at every width. Sums run in kLanes lanes: value i of
// a run goes to lane i modulo kLanes, and the lanes are added up as a tree.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "simd.hpp"

constexpr size_t kLanes = 8;

// Adding and subtracting this rounds doubles below 2**51 to integers, half to even.
constexpr double kRounder = 6755399441055744.0;

template <size_t kWidth>
struct VectorTypes {
    typedef double Doubles __attribute__((vector_size(kWidth * sizeof(double))));
    typedef uint64_t Words __attribute__((vector_size(kWidth * sizeof(uint64_t))));
    typedef float Floats __attribute__((vector_size(kWidth * sizeof(float))));
};

template <size_t kWidth>
struct Vector : VectorTypes<kWidth> {
    using typename VectorTypes<kWidth>::Doubles;
    using typename VectorTypes<kWidth>::Words;
    using typename VectorTypes<kWidth>::Floats;

    static SMALLFRY_INLINE Doubles load(const float *from) {
        Floats values;
        std::memcpy(&values, from, sizeof values);
        return __builtin_convertvector(values, Doubles);
    }
    static SMALLFRY_INLINE Doubles clamp(Doubles values, Doubles low, Doubles high) {
        const Doubles raised = values < low ? low : values;
        return raised > high ? high : raised;
    }
    static SMALLFRY_INLINE Doubles round_to_float(Doubles values) {
        return __builtin_convertvector(__builtin_convertvector(values, Floats), Doubles);
    }
    // {first, first + step, first + 2 * step …}.
    static SMALLFRY_INLINE Words count(uint64_t first, uint64_t step) {
        Words words{};
        for (size_t i = 0; i < kWidth; ++i) words[i] = first + i * step;
        return words;
    }
};

// The sum of kLanes lanes.
SMALLFRY_INLINE double sum_lanes(const double *v) {
    return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

// A sum in kLanes lanes.
template <size_t kWidth>
class LaneSum {
  public:
    using Doubles = typename Vector<kWidth>::Doubles;

    // Adds terms to lanes [part * kWidth, (part + 1) * kWidth).
    SMALLFRY_INLINE void add(size_t part, Doubles terms) { parts_[part] += terms; }

    // Adds only the terms of the first `count` lanes of all.
    SMALLFRY_INLINE void add_some(size_t part, Doubles terms, size_t count) {
        for (size_t i = 0; i < kWidth && part * kWidth + i < count; ++i) parts_[part][i] += terms[i];
    }

    SMALLFRY_INLINE double total() const {
        double lanes[kLanes];
        std::memcpy(lanes, parts_, sizeof lanes);
        return sum_lanes(lanes);
    }

  private:
    Doubles parts_[kLanes / kWidth] = {};
};
