// Encodes rows with a trellis code: finds the ring of bits whose windows select the nearest values.
#include <nanobind/nanobind.h>

#include <algorithm>
#include <cstring>
#include <limits>
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

// The values of a segment at most, which bounds the memory and the rounding of sums.
constexpr size_t kSegment = 1024;

// The state at a border is found from the values within this many lengths of a window.
constexpr size_t kReach = 6;

// Rings shorter than kFewWindows lengths of a window try this many borders, over their number of windows.
constexpr size_t kBorders = 128;
constexpr size_t kFewWindows = 6;

constexpr size_t kMaxLanes = 16;

// A register of Bytes bytes: one value of each of `size` rows.
template <size_t Bytes>
struct LaneTypes {
    static constexpr size_t size = Bytes / sizeof(float);
    typedef float Floats __attribute__((vector_size(Bytes)));
    typedef int32_t Ints __attribute__((vector_size(Bytes)));
    typedef uint8_t Codes __attribute__((vector_size(Bytes / sizeof(float))));
};

template <size_t Bytes>
struct Lanes : LaneTypes<Bytes> {
    using typename LaneTypes<Bytes>::Floats;
    using typename LaneTypes<Bytes>::Ints;
    using typename LaneTypes<Bytes>::Codes;

    static SMALLFRY_INLINE Floats load(const float *from) {
        Floats values;
        std::memcpy(&values, from, sizeof values);
        return values;
    }
    static SMALLFRY_INLINE void store(float *to, const Floats &values) {
        std::memcpy(to, &values, sizeof values);
    }
    static SMALLFRY_INLINE void store_codes(uint8_t *to, const Ints &values) {
        const Codes codes = __builtin_convertvector(values, Codes);
        std::memcpy(to, &codes, sizeof codes);
    }
};

// Windows of `state_bits` bits, `nbit` bits apart, index the codebook. The paths to a value are the bits that
// its window shares with the one before: 2**(state_bits - nbit).
struct Trellis {
    const float *codebook, *column_scale;
    size_t dim, nbit, state_bits;

    size_t paths() const { return size_t{1} << (state_bits - nbit); }
    size_t stride() const { return (dim * nbit + 7) / 8; }
    size_t reach() const { return (kReach * state_bits + nbit - 1) / nbit; }
    size_t segments() const { return (dim + kSegment - 1) / kSegment; }
    size_t border(size_t segment) const { return dim * segment / segments(); }
    size_t borders() const {
        const size_t bits = dim * nbit;
        return bits < kFewWindows * state_bits ? std::min(paths(), kBorders * state_bits / bits) : 1;
    }
};

// The buffers of a thread. All hold the values of a row in every `lanes`-th element.
struct Buffers {
    std::vector<float> values, scaled, costs, next_costs;
    std::vector<uint8_t> steps;
    std::vector<uint32_t> borders, order;

    Buffers(const Trellis &trellis, size_t lanes)
        : values(trellis.dim * lanes),
          scaled(size_t{1} << trellis.state_bits),
          costs(trellis.paths() * lanes),
          next_costs(costs.size()),
          steps(std::max(std::min(trellis.dim, kSegment), 2 * trellis.reach()) * costs.size()),
          borders((trellis.segments() + 1) * lanes),
          order(trellis.paths() * lanes) {}
};

// Searches the paths of one row in each lane (Viterbi, 1967).
template <size_t nbit, class Lane>
class Search {
    using Floats = typename Lane::Floats;
    using Ints = typename Lane::Ints;
    static constexpr size_t kBranches = size_t{1} << nbit;

  public:
    SMALLFRY_INLINE Search(const Trellis &trellis, Buffers &buffers)
        : trellis_(trellis), buffers_(buffers), paths_(trellis.paths()) {}

    // Writes the codes of `count` rows.
    SMALLFRY_INLINE void encode(const float *x, size_t count, uint8_t *codes) {
        std::fill(buffers_.values.begin(), buffers_.values.end(), 0.0f);
        for (size_t i = 0; i < count; ++i)
            for (size_t j = 0; j < trellis_.dim; ++j)
                buffers_.values[j * Lane::size + i] = x[i * trellis_.dim + j];
        std::memset(codes, 0, count * trellis_.stride());
        const size_t segments = trellis_.segments();
        for (size_t segment = 0; segment < segments; ++segment) find_border(segment);
        if (trellis_.borders() > 1) try_borders();
        std::copy_n(border(0), Lane::size, border(segments));
        for (size_t segment = 0; segment < segments; ++segment) encode_segment(segment, count, codes);
    }

  private:
    uint32_t *border(size_t segment) { return &buffers_.borders[segment * Lane::size]; }

    // Finds the path at the border before a segment, on the best of all around it.
    SMALLFRY_INLINE void find_border(size_t segment) {
        const size_t reach = trellis_.reach(), dim = trellis_.dim;
        const size_t first = (trellis_.border(segment) + reach * (dim - 1)) % dim;
        std::fill(buffers_.costs.begin(), buffers_.costs.end(), 0.0f);
        advance(first, 2 * reach);
        for (size_t i = 0; i < Lane::size; ++i) {
            uint32_t best = 0;
            for (uint32_t path = 1; path < paths_; ++path)
                if (cost(path, i) < cost(best, i)) best = path;
            border(segment)[i] = best;
        }
        for (size_t step = 2 * reach; step-- > reach;)
            for (size_t i = 0; i < Lane::size; ++i) go_back(border(segment)[i], step, i);
    }

    // Replaces the path at the border of a short ring by the one with the best ring, of those that are the
    // cheapest to reach.
    SMALLFRY_INLINE void try_borders() {
        std::fill(buffers_.costs.begin(), buffers_.costs.end(), 0.0f);
        const size_t reach = trellis_.reach(), dim = trellis_.dim, count = trellis_.borders();
        advance(reach * (dim - 1) % dim, reach);
        for (size_t i = 0; i < Lane::size; ++i) {
            uint32_t *order = &buffers_.order[i * paths_];
            std::iota(order, order + paths_, 0);
            std::partial_sort(order, order + count, order + paths_, [&](uint32_t a, uint32_t b) {
                return cost(a, i) != cost(b, i) ? cost(a, i) < cost(b, i) : a < b;
            });
        }
        float best[kMaxLanes];
        std::fill_n(best, Lane::size, std::numeric_limits<float>::infinity());
        uint32_t paths[kMaxLanes];
        std::copy_n(border(0), Lane::size, paths);
        for (size_t candidate = 0; candidate <= count; ++candidate) {
            std::fill(buffers_.costs.begin(), buffers_.costs.end(), std::numeric_limits<float>::infinity());
            for (size_t i = 0; i < Lane::size; ++i) {
                if (candidate) paths[i] = buffers_.order[i * paths_ + candidate - 1];
                cost(paths[i], i) = 0;
            }
            advance(0, dim);
            for (size_t i = 0; i < Lane::size; ++i) {
                if (!(cost(paths[i], i) < best[i])) continue;
                best[i] = cost(paths[i], i);
                border(0)[i] = paths[i];
            }
        }
    }

    // Writes the codes of the best path between the borders of a segment.
    SMALLFRY_INLINE void encode_segment(size_t segment, size_t count, uint8_t *codes) {
        const size_t first = trellis_.border(segment), end = trellis_.border(segment + 1);
        std::fill(buffers_.costs.begin(), buffers_.costs.end(), std::numeric_limits<float>::infinity());
        for (size_t i = 0; i < Lane::size; ++i) cost(border(segment)[i], i) = 0;
        advance(first, end - first);
        uint32_t paths[kMaxLanes];
        std::copy_n(border(segment + 1), Lane::size, paths);
        for (size_t j = end; j-- > first;) {
            uint8_t *byte = codes + j * nbit / 8;
            const size_t shift = j * nbit % 8;
            for (size_t i = 0; i < count; ++i, byte += trellis_.stride()) {
                const size_t code = go_back(paths[i], j - first, i) << shift;
                byte[0] |= static_cast<uint8_t>(code);
                if (shift + nbit > 8) byte[1] |= static_cast<uint8_t>(code >> 8);
            }
        }
    }

    float &cost(size_t path, size_t lane) { return buffers_.costs[path * Lane::size + lane]; }

    // Moves from a path to the best one that leads to it. Returns the code of the value before.
    SMALLFRY_INLINE uint32_t go_back(uint32_t &path, size_t step, size_t lane) {
        const uint32_t code = buffers_.steps[(step * paths_ + path) * Lane::size + lane];
        path = (path << nbit | code) & static_cast<uint32_t>(paths_ - 1);
        return code;
    }

    // Extends all paths by `count` values from `first` on around the ring.
    SMALLFRY_INLINE void advance(size_t first, size_t count) {
        for (size_t step = 0, j = first; step < count; ++step) {
            extend(j, &buffers_.steps[step * paths_ * Lane::size]);
            buffers_.costs.swap(buffers_.next_costs);
            j = j + 1 == trellis_.dim ? 0 : j + 1;
        }
    }

    // Extends the best of the paths that lead to each next path by value `j`; ties go to the first.
    SMALLFRY_INLINE void extend(size_t j, uint8_t *steps) {
        float *scaled = buffers_.scaled.data();
        const float scale = trellis_.column_scale[j];
        for (size_t state = 0; state < paths_ * kBranches; ++state)
            scaled[state] = trellis_.codebook[state] * scale;
        const Floats x = Lane::load(&buffers_.values[j * Lane::size]);
        const float *costs = buffers_.costs.data();
        float *next_costs = buffers_.next_costs.data();
        for (size_t path = 0; path < paths_; ++path) {
            const float *values = scaled + path * kBranches;
            const float *from = costs + (path * kBranches & (paths_ - 1)) * Lane::size;
            Floats best{};
            Ints found{};
            for (size_t code = 0; code < kBranches; ++code) {
                const Floats difference = x - values[code];
                const Floats cost = Lane::load(from + code * Lane::size) + difference * difference;
                if (code == 0) {
                    best = cost;
                    continue;
                }
                const Ints better = cost < best;
                best = better ? cost : best;
                found = better ? Ints{} + static_cast<int32_t>(code) : found;
            }
            Lane::store(next_costs + path * Lane::size, best);
            Lane::store_codes(steps + path * Lane::size, found);
        }
    }

    const Trellis &trellis_;
    Buffers &buffers_;
    const size_t paths_;
};

using Encode = void (*)(const Trellis &, Buffers &, const float *, size_t, uint8_t *);

template <size_t nbit, class Lane>
SMALLFRY_INLINE void encode(const Trellis &trellis, Buffers &buffers, const float *x, size_t rows,
                            uint8_t *codes) {
    Search<nbit, Lane> search(trellis, buffers);
    for (size_t row = 0; row < rows; row += Lane::size)
        search.encode(x + row * trellis.dim, std::min(Lane::size, rows - row),
                      codes + row * trellis.stride());
}

// Instantiates the kernel for an instruction set with registers of `bytes` bytes.
#define SMALLFRY_ENCODE(name, bytes, target)                                                         \
    template <size_t nbit>                                                                           \
    target void encode_##name(const Trellis &trellis, Buffers &buffers, const float *x, size_t rows, \
                              uint8_t *codes) {                                                      \
        encode<nbit, Lanes<bytes>>(trellis, buffers, x, rows, codes);                                \
    }

SMALLFRY_ENCODE(plain, 16, )
#if SMALLFRY_X86
SMALLFRY_ENCODE(avx2, 32, SMALLFRY_AVX2)
SMALLFRY_ENCODE(avx512, 64, SMALLFRY_AVX512)
#endif

struct Kernel {
    Encode encode;
    size_t lanes;
};

template <size_t nbit>
Kernel pick(Simd level) {
#if SMALLFRY_X86
    if (level == Simd::avx512) return {encode_avx512<nbit>, 16};
    if (level == Simd::avx2) return {encode_avx2<nbit>, 8};
#endif
    static_cast<void>(level);
    return {encode_plain<nbit>, 4};
}

Kernel pick_kernel(size_t nbit) {
    const Simd level = simd_level();
    switch (nbit) {
        case 1:
            return pick<1>(level);
        case 2:
            return pick<2>(level);
        case 3:
            return pick<3>(level);
        case 4:
            return pick<4>(level);
        default:
            throw nb::value_error("a trellis code has 1, 2, 3 or 4 bits a value");
    }
}

void encode_trellis(nb::handle x, nb::handle codebook, nb::handle column_scale, size_t nbit, nb::handle codes,
                    size_t threads) {
    const View values(x, "x", "f"), levels(codebook, "codebook", "f"),
        scales(column_scale, "column_scale", "f");
    const View packed(codes, "codes", "B", View::Access::write);
    const Kernel kernel = pick_kernel(nbit);
    expect_size("number of dimensions of x", values.ndim(), 2);
    Trellis trellis{levels.data<const float>(), scales.data<const float>(), values.shape(1), nbit, 8};
    while (trellis.state_bits < 16 && size_t{1} << trellis.state_bits < levels.size()) ++trellis.state_bits;
    expect_size("size of codebook", levels.size(), size_t{1} << trellis.state_bits);
    expect_size("size of column_scale", scales.size(), trellis.dim);
    expect_size("size of codes", packed.size(), values.shape(0) * trellis.stride());
    if (trellis.dim * nbit < trellis.state_bits) throw nb::value_error("a row has fewer bits than a window");
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
