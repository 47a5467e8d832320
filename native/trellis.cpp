// Encodes rows with a trellis code: finds the ring of bits whose windows select the nearest values.
#include <nanobind/nanobind.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <new>
#include <numeric>
#include <vector>

#include "bindings.hpp"
#include "gil.hpp"
#include "parallel.hpp"
#include "simd.hpp"
#include "view.hpp"

// Only inlined functions pass vectors wider than the default registers.
#pragma GCC diagnostic ignored "-Wpsabi"

namespace nb = nanobind;

namespace {

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
    static SMALLFRY_INLINE void store(Element *to, const Vector &values) {
        std::memcpy(to, &values, sizeof values);
    }
    // Adds the products of the low and of the high 16 bits. In assembly, because intrinsics are not inlined
    // into functions that are compiled for no instruction set in particular.
    static SMALLFRY_INLINE Ints add_products(const Ints &from, const Ints &a, const int32_t &b) {
        Ints sum = from;
#if SMALLFRY_X86
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
    static SMALLFRY_INLINE Ints minimum(const Ints &a, const Ints &b) { return a < b ? a : b; }
};

constexpr int32_t kInfinity = 0x7F800000;  // the bits of a float

int32_t pair(int32_t low, int32_t high) { return (low & 0xFFFF) | high * (1 << 16); }

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
    AlignedVector<uint32_t> steps;
    AlignedVector<uint32_t> borders, order;

    Buffers(const Trellis &trellis, size_t lanes)
        : values(trellis.dim * lanes),
          scaled(size_t{1} << trellis.state_bits),
          terms(values.size()),
          costs(trellis.paths() * lanes),
          next_costs(costs.size()),
          steps((std::max(std::min(trellis.dim, kSegment), trellis.reach()) / trellis.cycle() + 1) *
                trellis.words() * lanes),
          borders((trellis.segments() + 1) * lanes),
          order(trellis.paths() * lanes) {}
};

// Searches the paths of one row in each lane (Viterbi, 1967).
template <size_t nbit, class Lane, bool kFloats>
class Search {
    using Floats = typename Lane::Floats;
    using Ints = typename Lane::Ints;
    static constexpr size_t kBranches = size_t{1} << nbit;
    static constexpr size_t kFlushed = 6;  // cycles, of up to 24 bits
    static constexpr size_t kCycle = kFloats ? 1 : kHistory / nbit;
    static constexpr int32_t kCodes = (1 << kCycle * nbit) - 1;

  public:
    SMALLFRY_INLINE Search(const Trellis &trellis, Buffers &buffers)
        : trellis_(trellis), buffers_(buffers), paths_(trellis.paths()) {}

    // Writes the codes of `count` rows.
    SMALLFRY_INLINE void encode(const float *x, size_t count, uint8_t *codes) {
        std::fill(buffers_.values.begin(), buffers_.values.end(), 0.0f);
        for (size_t i = 0; i < count; ++i)
            for (size_t j = 0; j < trellis_.dim; ++j)
                buffers_.values[j * Lane::size + i] = x[i * trellis_.dim + j];
        if (!kFloats) round_terms();
        std::memset(codes, 0, count * trellis_.stride());
        const size_t segments = trellis_.segments();
        for (size_t segment = 0; segment < segments; ++segment) find_border(segment);
        if (trellis_.borders() > 1) try_borders();
        std::copy_n(border(0), Lane::size, border(segments));
        for (size_t segment = 0; segment < segments; ++segment) encode_segment(segment, count, codes);
    }

  private:
    uint32_t *border(size_t segment) { return &buffers_.borders[segment * Lane::size]; }

    // Finds the factors of v and of v * v of each value, in the finest units that keep the largest in range.
    SMALLFRY_INLINE void round_terms() {
        const float *values = buffers_.values.data();
        Floats peak = Floats{} + 1.0f;
        for (size_t j = 0; j < trellis_.dim; ++j) {
            const Floats size = Lane::template load<Floats>(values + j * Lane::size) *
                                (trellis_.slopes[j] * trellis_.weights[j] / 2);
            peak = size > peak ? size : peak;
            peak = -size > peak ? -size : peak;
        }
        const auto limit = static_cast<float>(trellis_.limit());
        const float most = 2 * limit * (kCodes + 1);
        const Floats unit = limit / peak;
        for (size_t j = 0; j < trellis_.dim; ++j) {
            Floats weight = rounded(unit * trellis_.weights[j]);
            weight = (weight > 1.0f ? weight : Floats{} + 1.0f) * (kCodes + 1.0f);
            Floats slope = Lane::template load<Floats>(values + j * Lane::size) * trellis_.slopes[j] * weight;
            slope = slope < most ? slope : Floats{} + most;
            slope = slope > -most ? slope : Floats{} - most;
            const Ints low = __builtin_convertvector(rounded(slope), Ints);
            Lane::store(&buffers_.terms[j * Lane::size],
                        (low & 0xFFFF) | __builtin_convertvector(weight, Ints) << 16);
        }
    }

    // Rounds numbers below 2**22 to integers, half to even.
    static SMALLFRY_INLINE Floats rounded(const Floats &values) { return values + 0x1.8p23f - 0x1.8p23f; }

    // Finds the path at the border before a segment, on the best of all around it.
    SMALLFRY_INLINE void find_border(size_t segment) {
        const size_t reach = trellis_.reach(), dim = trellis_.dim, at = trellis_.border(segment);
        std::fill(buffers_.costs.begin(), buffers_.costs.end(), 0);
        advance<false>((at + reach * (dim - 1)) % dim, reach);
        advance<true>(at, reach);
        Ints least = load_costs(0), best{};
        for (size_t path = 1; path < paths_; ++path) {
            const Ints costs = load_costs(path);
            best = costs < least ? Ints{} + static_cast<int32_t>(path) : best;
            least = Lane::minimum(least, costs);
        }
        Lane::store(border(segment), best);
        for (size_t cycle = cycles(reach); cycle-- > 0;) {
            const size_t width = cycle_width(cycle, reach);
            for (size_t i = 0; i < Lane::size; ++i) go_back(border(segment)[i], cycle, i, width);
        }
    }

    // Replaces the path at the border of a short ring by the one with the best ring, of those that are the
    // cheapest to reach.
    SMALLFRY_INLINE void try_borders() {
        std::fill(buffers_.costs.begin(), buffers_.costs.end(), 0);
        const size_t reach = trellis_.reach(), dim = trellis_.dim, count = trellis_.borders();
        advance<false>(reach * (dim - 1) % dim, reach);
        for (size_t i = 0; i < Lane::size; ++i) {
            uint32_t *order = &buffers_.order[i * paths_];
            std::iota(order, order + paths_, 0);
            std::partial_sort(order, order + count, order + paths_, [&](uint32_t a, uint32_t b) {
                const int32_t cost_a = cost(a, i) & ~kCodes, cost_b = cost(b, i) & ~kCodes;
                return cost_a != cost_b ? cost_a < cost_b : a < b;
            });
        }
        int64_t best[kMaxLanes];
        std::fill_n(best, Lane::size, std::numeric_limits<int64_t>::max());
        uint32_t paths[kMaxLanes];
        std::copy_n(border(0), Lane::size, paths);
        for (size_t candidate = 0; candidate <= count; ++candidate) {
            for (size_t i = 0; candidate && i < Lane::size; ++i)
                paths[i] = buffers_.order[i * paths_ + candidate - 1];
            start(paths);
            int64_t total[kMaxLanes] = {};
            advance<false>(0, dim, total);
            for (size_t i = 0; i < Lane::size; ++i) {
                total[i] += cost(paths[i], i) & ~kCodes;
                if (!(total[i] < best[i])) continue;
                best[i] = total[i];
                border(0)[i] = paths[i];
            }
        }
    }

    // Writes the codes of the best path between the borders of a segment.
    SMALLFRY_INLINE void encode_segment(size_t segment, size_t count, uint8_t *codes) {
        const size_t first = trellis_.border(segment), length = trellis_.border(segment + 1) - first;
        start(border(segment));
        advance<true>(first, length);
        uint32_t paths[kMaxLanes];
        std::copy_n(border(segment + 1), Lane::size, paths);
        uint32_t bits[kMaxLanes] = {};
        for (size_t cycle = cycles(length); cycle-- > 0;) {
            const size_t width = cycle_width(cycle, length);
            for (size_t i = 0; i < Lane::size; ++i)
                bits[i] = bits[i] << kCycle * nbit | go_back(paths[i], cycle, i, width);
            if (cycle % kFlushed) continue;
            const size_t bit = (first + cycle * kCycle) * nbit;
            for (size_t i = 0; i < count; ++i) {
                uint8_t *byte = codes + i * trellis_.stride() + bit / 8;
                for (bits[i] <<= bit % 8; bits[i]; bits[i] >>= 8) *byte++ |= static_cast<uint8_t>(bits[i]);
            }
        }
    }

    int32_t &cost(size_t path, size_t lane) { return buffers_.costs[path * Lane::size + lane]; }

    SMALLFRY_INLINE Ints load_costs(size_t path) {
        return Lane::template load<Ints>(&cost(path, 0)) & ~kCodes;
    }

    SMALLFRY_INLINE void start(const uint32_t *paths) {
        std::fill(buffers_.costs.begin(), buffers_.costs.end(), trellis_.penalty());
        for (size_t i = 0; i < Lane::size; ++i) cost(paths[i], i) = 0;
    }

    static size_t cycles(size_t count) { return (count + kCycle - 1) / kCycle; }

    // Bits of the codes of a cycle of `count` values.
    static size_t cycle_width(size_t cycle, size_t count) {
        return std::min(kCycle, count - cycle * kCycle) * nbit;
    }

    // Moves from a path to the best one that leads to it, `width` bits before. Returns these bits.
    SMALLFRY_INLINE uint32_t go_back(uint32_t &path, size_t cycle, size_t lane, size_t width) {
        const size_t group_bits = trellis_.state_bits - 2 * nbit;
        const size_t group = path & ((size_t{1} << group_bits) - 1),
                     kept = group << nbit | path >> group_bits;
        const size_t word = cycle * trellis_.words() + kept / kInWord;
        const uint32_t codes =
            buffers_.steps[word * Lane::size + lane] >> (~kept % kInWord * kHistory) & kCodes;
        path = (path << width | codes) & static_cast<uint32_t>(paths_ - 1);
        return codes;
    }

    // Extends all paths by `count` values from `first` on around the ring. What is subtracted from all costs
    // of a row is added to `total`.
    template <bool kStored>
    SMALLFRY_INLINE void advance(size_t first, size_t count, int64_t *total = nullptr) {
        for (size_t step = 0, j = first; step < count; ++step) {
            const size_t position = step % kCycle;
            uint32_t *steps = &buffers_.steps[kStored ? step / kCycle * trellis_.words() * Lane::size : 0];
            const bool last = kStored && (position + 1 == kCycle || step + 1 == count);
            if (!kFloats && position == 0 && total)
                for (size_t i = 0; i < Lane::size; ++i) total[i] += cost(0, i) & ~kCodes;
            if (position == 0)
                last ? extend<true, true>(j, 0, steps) : extend<true, false>(j, 0, steps);
            else
                last ? extend<false, true>(j, position, steps) : extend<false, false>(j, position, steps);
            buffers_.costs.swap(buffers_.next_costs);
            j = j + 1 == trellis_.dim ? 0 : j + 1;
        }
    }

    // Extends the best of the paths that lead to each next path by value `j`; ties go to the first. The first
    // step of a cycle clears the codes, the last one stores them.
    template <bool kFirst, bool kLast>
    SMALLFRY_INLINE void extend(size_t j, size_t position, uint32_t *steps) {
        const Floats x = Lane::template load<Floats>(&buffers_.values[j * Lane::size]);
        const Ints terms = Lane::template load<Ints>(&buffers_.terms[j * Lane::size]);
        float *scaled = buffers_.scaled.data();
        for (size_t state = 0; kFloats && state < paths_ * kBranches; ++state)
            scaled[state] = trellis_.codebook[state] * trellis_.column_scale[j];
        const int32_t *costs = buffers_.costs.data(), *levels = trellis_.levels.data();
        int32_t *next_costs = buffers_.next_costs.data();
        const Ints base = Lane::template load<Ints>(costs) & ~kCodes;
        const size_t groups = paths_ / kBranches;
        Ints kept{};
        for (size_t group = 0; group < groups; ++group) {
            Ints from[kBranches];
            for (size_t code = 0; code < kBranches; ++code) {
                from[code] = Lane::template load<Ints>(costs + (group * kBranches + code) * Lane::size);
                if (kFirst) from[code] = (kFloats ? from[code] : from[code] - base) & ~kCodes;
                if (!kFloats) from[code] |= static_cast<int32_t>(code << position * nbit);
            }
            for (size_t branch = 0; branch < kBranches; ++branch) {
                const size_t path = branch * groups + group;
                Ints best{};
                for (size_t code = 0; code < kBranches; ++code) {
                    const size_t state = path * kBranches + code;
                    Ints reached;
                    if (kFloats) {
                        const Floats difference = x - scaled[state];
                        reached = (Ints)((Floats)from[code] + difference * difference);
                        reached = (reached & ~kCodes) | static_cast<int32_t>(code);
                    } else {
                        reached = Lane::add_products(from[code], terms, levels[state]);
                    }
                    best = code == 0 ? reached : Lane::minimum(best, reached);
                }
                Lane::store(next_costs + path * Lane::size, best);
                if (!kLast) continue;
                kept = kept << kHistory | (best & kCodes);
                const size_t stored = group * kBranches + branch;
                if (stored % kInWord == kInWord - 1) Lane::store(steps + stored / kInWord * Lane::size, kept);
            }
        }
    }

    const Trellis &trellis_;
    Buffers &buffers_;
    const size_t paths_;
};

using Encode = void (*)(const Trellis &, Buffers &, const float *, size_t, uint8_t *);

template <size_t nbit, class Lane, bool kFloats>
SMALLFRY_INLINE void encode(const Trellis &trellis, Buffers &buffers, const float *x, size_t rows,
                            uint8_t *codes) {
    Search<nbit, Lane, kFloats> search(trellis, buffers);
    for (size_t row = 0; row < rows; row += Lane::size)
        search.encode(x + row * trellis.dim, std::min(Lane::size, rows - row),
                      codes + row * trellis.stride());
}

// Instantiates the kernel for an instruction set with registers of `bytes` bytes.
#define SMALLFRY_ENCODE(name, bytes, target)                                                         \
    template <size_t nbit, bool kFloats>                                                             \
    target void encode_##name(const Trellis &trellis, Buffers &buffers, const float *x, size_t rows, \
                              uint8_t *codes) {                                                      \
        encode<nbit, Lanes<bytes>, kFloats>(trellis, buffers, x, rows, codes);                       \
    }

SMALLFRY_ENCODE(plain, 16, )
#if SMALLFRY_X86
SMALLFRY_ENCODE(avx2, 32, SMALLFRY_AVX2)
SMALLFRY_ENCODE(vnni, 64, SMALLFRY_VNNI)
#endif

struct Kernel {
    Encode encode;
    size_t lanes;
};

template <size_t nbit, bool kFloats>
Kernel pick(Simd level) {
#if SMALLFRY_X86
    if (level == Simd::avx512 && __builtin_cpu_supports("avx512vnni"))
        return {encode_vnni<nbit, kFloats>, 16};
    if (level != Simd::scalar) return {encode_avx2<nbit, kFloats>, 8};
#endif
    static_cast<void>(level);
    return {encode_plain<nbit, kFloats>, 4};
}

template <size_t nbit>
Kernel pick(bool in_floats) {
    return in_floats ? pick<nbit, true>(simd_level()) : pick<nbit, false>(simd_level());
}

Kernel pick_kernel(size_t nbit, bool in_floats) {
    switch (nbit) {
        case 1:
            return pick<1>(in_floats);
        case 2:
            return pick<2>(in_floats);
        case 3:
            return pick<3>(in_floats);
        default:
            return pick<4>(in_floats);
    }
}

void encode_trellis(nb::handle x, nb::handle codebook, nb::handle column_scale, size_t nbit, nb::handle codes,
                    size_t threads) {
    const View values(x, "x", "f"), levels(codebook, "codebook", "f"),
        scales(column_scale, "column_scale", "f");
    const View packed(codes, "codes", "B", View::Access::write);
    if (nbit < 1 || nbit > 4) throw nb::value_error("a trellis code has 1, 2, 3 or 4 bits a value");
    expect_size("number of dimensions of x", values.ndim(), 2);
    size_t state_bits = 8;
    while (state_bits < 16 && size_t{1} << state_bits < levels.size()) ++state_bits;
    expect_size("size of codebook", levels.size(), size_t{1} << state_bits);
    const size_t dim = values.shape(1);
    expect_size("size of column_scale", scales.size(), dim);
    expect_size("size of codes", packed.size(), values.shape(0) * ((dim * nbit + 7) / 8));
    if (dim * nbit < state_bits) throw nb::value_error("a row has fewer bits than a window");
    const Trellis trellis(levels.data<const float>(), scales.data<const float>(), dim, nbit, state_bits);
    const Kernel kernel = pick_kernel(nbit, trellis.in_floats);
    const size_t groups = (values.shape(0) + kernel.lanes - 1) / kernel.lanes;
    threads = std::max<size_t>(1, std::min(threads, groups));
    std::vector<Buffers> buffers(threads, Buffers(trellis, kernel.lanes));
    const GilRelease released(values.nbytes() * (levels.size() / 256));
    parallel_for(threads, threads, [&](size_t begin, size_t end) {
        for (size_t part = begin; part < end; ++part) {
            const size_t first = std::min(values.shape(0), groups * part / threads * kernel.lanes);
            const size_t last = std::min(values.shape(0), groups * (part + 1) / threads * kernel.lanes);
            kernel.encode(trellis, buffers[part], values.data<const float>() + first * trellis.dim,
                          last - first, packed.data<uint8_t>() + first * trellis.stride());
        }
    });
}

}  // namespace

void bind_trellis(nb::module_ &m) { m.def("encode_trellis", &encode_trellis); }
