// A trellis code of rows, what its search computes once, and the buffers of a thread that searches.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <new>
#include <vector>

#include "simd.hpp"

// The values of a segment at most, which bounds the memory.
constexpr size_t kSegment = 1024;

// The state at a border is found from the values within this many lengths of a window.
constexpr size_t kReach = 6;

// Rings shorter than kFewWindows lengths of a window try this many borders, over their number of windows.
constexpr size_t kBorders = 128;
constexpr size_t kFewWindows = 6;

constexpr size_t kMaxLanes = 16;

// The low bits of a cost keep the codes of the last values on its path, as many as fit in kHistory bits.
constexpr size_t kHistory = 4;
constexpr size_t kInWord = 32 / kHistory;  // paths whose codes are stored in a word

// Integers are exact enough up to this ratio of the largest to the mean squared value in the codebook, times
// that of the largest to the least squared scale; at 4 bits up to a quarter.
constexpr double kEvenness = 128;

template <size_t Bytes>
struct LaneTypes {
    static constexpr size_t size = Bytes / sizeof(float);
    typedef float Floats __attribute__((vector_size(Bytes)));
    typedef int32_t Ints __attribute__((vector_size(Bytes)));
};

// A register of Bytes bytes: one value of each of `size` rows.
template <size_t Bytes>
struct Lanes : LaneTypes<Bytes> {
    using typename LaneTypes<Bytes>::Floats;
    using typename LaneTypes<Bytes>::Ints;

    template <class Vector, class Element>
    static SMALLFRY_INLINE Vector load(const Element *from) {
        Vector values;
        std::memcpy(&values, from, sizeof values);
        return values;
    }
    template <class Vector, class Element>
    static SMALLFRY_INLINE void store(Element *to, Vector values) {
        std::memcpy(to, &values, sizeof values);
    }
    // Adds the products of the low and of the high 16 bits. In assembly, because intrinsics are not inlined
    // into functions that are compiled for no instruction set in particular; nor does clang let those have
    // operands in large registers.
    static SMALLFRY_INLINE Ints add_products(Ints from, Ints a, const int32_t &b) {
        Ints sum = from;
#if SMALLFRY_X86 && !defined(__clang__)
        if constexpr (Bytes == 64) {
            __asm__("vpdpwssd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(a), "m"(b));
            return sum;
        }
        Ints products = Ints{} + b;
        if constexpr (Bytes == 32)
            __asm__("vpmaddwd %1, %0, %0" : "+x"(products) : "x"(a));
        else
            __asm__("pmaddwd %1, %0" : "+x"(products) : "x"(a));
        return sum + products;
#else
        return sum + (a << 16 >> 16) * (b << 16 >> 16) + (a >> 16) * (b >> 16);
#endif
    }
    static SMALLFRY_INLINE Ints minimum(Ints a, Ints b) { return a < b ? a : b; }
};

constexpr int32_t kInfinity = 0x7F800000;  // the bits of a float

inline int32_t pair(int32_t low, int32_t high) { return (low & 0xFFFF) | high * (1 << 16); }

// Windows of `state_bits` bits, `nbit` bits apart, index the codebook. The paths to a value are the bits that
// its window shares with the one before: 2**(state_bits - nbit).
//
// A value x of a column with the scale s costs w * (v * v - 2 * x / s * v) for the value v of the codebook,
// where the weight w is about s * s: an integer, sum of two products of 16-bit integers. If values or scales
// are too far apart for that, it costs (x - v * s)**2, a float. The bits of floats have their order.
struct Trellis {
    const float *codebook, *column_scale;
    size_t dim, nbit, state_bits;
    bool in_floats;
    std::vector<int32_t> levels;         // v and v * v of each window
    std::vector<float> weights, slopes;  // of each column

    Trellis(const float *codebook, const float *column_scale, size_t dim, size_t nbit, size_t state_bits)
        : codebook(codebook),
          column_scale(column_scale),
          dim(dim),
          nbit(nbit),
          state_bits(state_bits),
          levels(size_t{1} << state_bits),
          weights(dim),
          slopes(dim) {
        float unit = 0, scale = 0, least = std::numeric_limits<float>::max();
        double sum = 0;
        for (size_t i = 0; i < levels.size(); ++i) {
            unit = std::max(unit, std::abs(codebook[i]));
            sum += double{codebook[i]} * codebook[i];
        }
        for (size_t j = 0; j < dim; ++j) {
            scale = std::max(scale, std::abs(column_scale[j]));
            least = std::min(least, std::abs(column_scale[j]));
        }
        const double largest = double{unit} * scale, mean = sum / static_cast<double>(levels.size());
        const double even = nbit < 4 ? kEvenness : kEvenness / 4;
        in_floats = !(largest > 0 && largest * largest <= even * mean * (double{least} * least));
        if (in_floats) return;
        for (size_t j = 0; j < dim; ++j) {
            weights[j] = column_scale[j] / scale * (column_scale[j] / scale);
            slopes[j] = -2.0f / unit / column_scale[j];
        }
        const auto factor = static_cast<float>(1 << history()), steps = 32768 / factor - 1;
        for (size_t i = 0; i < levels.size(); ++i) {
            const float level = std::nearbyint(codebook[i] / unit * steps), square = level / steps;
            levels[i] = pair(static_cast<int32_t>(level * factor),
                             static_cast<int32_t>(std::nearbyint(square * square * (steps * factor))));
        }
    }

    size_t paths() const { return size_t{1} << (state_bits - nbit); }
    size_t stride() const { return (dim * nbit + 7) / 8; }
    size_t reach() const { return (kReach * state_bits + nbit - 1) / nbit; }
    size_t segments() const { return (dim + kSegment - 1) / kSegment; }
    size_t border(size_t segment) const { return dim * segment / segments(); }
    size_t borders() const {
        const size_t bits = dim * nbit;
        return bits < kFewWindows * state_bits ? std::min(paths(), kBorders * state_bits / bits) : 1;
    }
    size_t words() const { return paths() / kInWord; }
    // Values between two stores of their codes.
    size_t cycle() const { return in_floats ? 1 : kHistory / nbit; }
    size_t history() const { return kHistory / nbit * nbit; }
    // The bits of their codes in a cost.
    int32_t codes() const { return (1 << cycle() * nbit) - 1; }
    // Values between any two paths.
    size_t distance() const { return (state_bits - 1) / nbit; }
    // The most that a weight is, so that no cost overflows: those of a value differ by up to 5 * 2**15 times
    // it, and those of all paths by up to that times the distance, doubled at a start.
    int32_t limit() const {
        return static_cast<int32_t>((1 << 16) / (5 * (2 * distance() + kHistory / nbit + 1)) >> history());
    }
    int32_t penalty() const {
        if (in_floats) return kInfinity;
        return static_cast<int32_t>(distance() * 5 * limit() + 1) << (history() + 15);
    }
};

// Allocates at multiples of the size of a cache line, which no vector of lanes crosses then.
template <class T>
struct Aligned {
    using value_type = T;
    static constexpr std::align_val_t kAlignment{64};

    Aligned() = default;
    template <class Other>
    Aligned(const Aligned<Other> &) {}
    T *allocate(size_t count) { return static_cast<T *>(::operator new(count * sizeof(T), kAlignment)); }
    void deallocate(T *values, size_t) { ::operator delete(values, kAlignment); }
    bool operator==(const Aligned &) const { return true; }
    bool operator!=(const Aligned &) const { return false; }
};

template <class T>
using AlignedVector = std::vector<T, Aligned<T>>;

// The buffers of a thread. All hold the values of a row in every `lanes`-th element.
struct Buffers {
    AlignedVector<float> values, scaled;
    AlignedVector<int32_t> terms, costs, next_costs;
    AlignedVector<uint32_t> steps, packed;
    AlignedVector<uint32_t> borders, order;

    Buffers(const Trellis &trellis, size_t lanes)
        : values(trellis.dim * lanes),
          scaled(size_t{1} << trellis.state_bits),
          terms(values.size()),
          costs(trellis.paths() * lanes),
          next_costs(costs.size()),
          steps((std::max(std::min(trellis.dim, kSegment), trellis.reach()) / trellis.cycle() + 1) *
                trellis.words() * lanes),
          packed((trellis.stride() + 3) / 4 * lanes),
          borders((trellis.segments() + 1) * lanes),
          order(trellis.paths() * lanes) {}
};
