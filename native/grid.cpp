#include "grid.hpp"

#include "lanes.hpp"
#include "pack.hpp"

namespace {

// Rounds kWidth values at a time to the levels of a grid.
template <size_t kWidth>
struct Rounder {
    using V = Vector<kWidth>;
    using Doubles = typename V::Doubles;
    using Words = typename V::Words;

    Doubles inverse_step, half_step, middle, top, zero;

    explicit SMALLFRY_INLINE Rounder(const Grid &grid)
        : inverse_step(grid.inverse_step - Doubles{}),
          half_step(grid.half_step - Doubles{}),
          middle(grid.top / 2 - Doubles{}),
          top(grid.top - Doubles{}),
          zero{} {}

    SMALLFRY_INLINE Doubles scaled(Doubles values) const {
        return V::clamp(values * inverse_step + middle, zero, top);
    }
    SMALLFRY_INLINE Doubles nearest(Doubles values) const { return scaled(values) + kRounder - kRounder; }

    // `position` is that of the first value in the whole matrix.
    SMALLFRY_INLINE Doubles stochastic(Doubles values, uint64_t seed, uint64_t position) const {
        const Doubles raised = scaled(values) + noise(seed, position);
        const Doubles whole = raised + kRounder - kRounder;
        return V::clamp(whole > raised ? whole - 1 : whole, zero, top);
    }

    SMALLFRY_INLINE Doubles units(Doubles codes) const { return codes + codes - top; }
    SMALLFRY_INLINE Doubles level(Doubles units) const { return V::round_to_float(units * half_step); }

  private:
    static SMALLFRY_INLINE Words mix(Words seed) {
        Words z = seed + 0x9E3779B97F4A7C15u;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
        return z ^ (z >> 31);
    }

    // Numbers in [0, 1) that depend only on the seed and the position of a value (SplitMix64).
    static SMALLFRY_INLINE Doubles noise(uint64_t seed, uint64_t position) {
        const Words words = mix(mix(V::count(seed, 0)) + V::count(position, 1));
        return __builtin_convertvector(words >> 11, Doubles) * 0x1p-53;
    }
};

template <size_t kWidth>
SMALLFRY_INLINE void grid_sums(const float *x, size_t n, const Grid &grid, double *sums) {
    const Rounder<kWidth> rounder(grid);
    LaneSum<kWidth> errors, products, squares;
    float padded[kLanes] = {};
    const size_t whole = n / kLanes * kLanes, rest = n - whole;
    for (size_t at = 0; at < whole; at += kLanes)
        for (size_t part = 0; part < kLanes / kWidth; ++part) {
            const auto values = Vector<kWidth>::load(x + at + part * kWidth);
            const auto units = rounder.units(rounder.nearest(values));
            const auto error = values - rounder.level(units);
            errors.add(part, error * error);
            products.add(part, values * units);
            squares.add(part, units * units);
        }
    std::memcpy(padded, x + whole, rest * sizeof(float));
    for (size_t part = 0; part < kLanes / kWidth; ++part) {
        const auto values = Vector<kWidth>::load(padded + part * kWidth);
        const auto units = rounder.units(rounder.nearest(values));
        const auto error = values - rounder.level(units);
        errors.add_some(part, error * error, rest);
        products.add_some(part, values * units, rest);
        squares.add_some(part, units * units, rest);
    }
    sums[0] = errors.total();
    sums[1] = products.total();
    sums[2] = squares.total();
}

// Encodes rows at kBits.
template <size_t kWidth, int kBits, bool kStochastic>
class RowEncoder {
  public:
    SMALLFRY_INLINE RowEncoder(const Grid &grid, uint64_t seed) : rounder_(grid), seed_(seed) {}

    SMALLFRY_INLINE void encode(const float *x, size_t dim, uint64_t position, uint8_t *out) {
        const size_t whole = dim / kLanes * kLanes, rest = dim - whole;
        for (size_t at = 0; at < whole; at += kLanes, out += kBits) {
            uint64_t packed[2] = {};
            for (size_t part = 0; part < kLanes / kWidth; ++part) {
                const size_t first = at + part * kWidth;
                const auto values = Vector<kWidth>::load(x + first),
                           codes = codes_of(values, position + first);
                const auto error = values - rounder_.level(rounder_.units(codes));
                errors_.add(part, error * error);
                squares_.add(part, values * values);
                pack(codes, part, packed);
            }
            std::memcpy(out, packed, kBits);
        }
        if (rest) encode_rest(x + whole, rest, position + whole, out);
    }

    SMALLFRY_INLINE void totals(double *sums) const {
        sums[0] = errors_.total();
        sums[1] = squares_.total();
    }

  private:
    using Doubles = typename Vector<kWidth>::Doubles;
    using Words = typename Vector<kWidth>::Words;

    SMALLFRY_INLINE void encode_rest(const float *x, size_t rest, uint64_t position, uint8_t *out) {
        float padded[kLanes] = {};
        std::memcpy(padded, x, rest * sizeof(float));
        uint64_t packed[2] = {};
        for (size_t part = 0; part < kLanes / kWidth; ++part) {
            const auto values = Vector<kWidth>::load(padded + part * kWidth);
            auto codes = codes_of(values, position + part * kWidth);
            const auto error = values - rounder_.level(rounder_.units(codes));
            errors_.add_some(part, error * error, rest);
            squares_.add_some(part, values * values, rest);
            for (size_t i = 0; i < kWidth; ++i)
                if (part * kWidth + i >= rest) codes[i] = 0;
            pack(codes, part, packed);
        }
        std::memcpy(out, packed, packed_size(rest, kBits));
    }

    SMALLFRY_INLINE Doubles codes_of(Doubles values, uint64_t position) const {
        return kStochastic ? rounder_.stochastic(values, seed_, position) : rounder_.nearest(values);
    }

    // Joins the codes, each shifted to its bits; the low bits of a double plus kRounder are its integer.
    static SMALLFRY_INLINE void pack(Doubles codes, size_t part, uint64_t *packed) {
        constexpr size_t kPerWord = 64 / (kBits > 8 ? kBits : 8);
        const Doubles raised = codes + kRounder;
        Words words, shifts{};
        std::memcpy(&words, &raised, sizeof words);
        for (size_t i = 0; i < kWidth; ++i) shifts[i] = (part * kWidth + i) % kPerWord * kBits;
        words = (words & ((1u << kBits) - 1)) << shifts;
        for (size_t i = 0; i < kWidth; ++i) packed[(part * kWidth + i) / kPerWord] |= words[i];
    }

    Rounder<kWidth> rounder_;
    uint64_t seed_;
    LaneSum<kWidth> errors_, squares_;
};

template <size_t kWidth, int kBits, bool kStochastic>
SMALLFRY_INLINE void encode_block(const EncodeBlock &block, const Grid &grid, uint64_t seed) {
    RowEncoder<kWidth, kBits, kStochastic> encoder(grid, seed);
    for (size_t row = 0; row < block.rows; ++row) {
        uint8_t *out = block.codes + row * block.stride;
        if (block.zero[row])
            std::memset(out, 0, block.stride);
        else
            encoder.encode(block.x + row * block.dim, block.dim, block.position + row * block.dim, out);
    }
    encoder.totals(block.sums);
}

template <size_t kWidth, bool kStochastic>
SMALLFRY_INLINE void encode_at(const EncodeBlock &block, const Grid &grid, uint64_t seed) {
    switch (block.nbit) {
        case 1:
            return encode_block<kWidth, 1, kStochastic>(block, grid, seed);
        case 2:
            return encode_block<kWidth, 2, kStochastic>(block, grid, seed);
        case 4:
            return encode_block<kWidth, 4, kStochastic>(block, grid, seed);
        case 8:
            return encode_block<kWidth, 8, kStochastic>(block, grid, seed);
        default:
            return encode_block<kWidth, 16, kStochastic>(block, grid, seed);
    }
}

template <size_t kWidth>
SMALLFRY_INLINE void encode_grid(const EncodeBlock &block, const Grid &grid, const Rounding &rounding) {
    if (rounding.stochastic)
        encode_at<kWidth, true>(block, grid, rounding.seed);
    else
        encode_at<kWidth, false>(block, grid, 0);
}

// Instantiates the kernels for an instruction set, in vectors of `width` doubles.
#define SMALLFRY_GRID_KERNELS(name, width, target)                                                         \
    target void grid_sums_##name(const float *x, size_t n, const Grid &grid, double *sums) {               \
        grid_sums<width>(x, n, grid, sums);                                                                \
    }                                                                                                      \
    target void encode_grid_##name(const EncodeBlock &block, const Grid &grid, const Rounding &rounding) { \
        encode_grid<width>(block, grid, rounding);                                                         \
    }

SMALLFRY_GRID_KERNELS(scalar, 2, )
#if SMALLFRY_X86
SMALLFRY_GRID_KERNELS(avx2, 4, SMALLFRY_AVX2)
SMALLFRY_GRID_KERNELS(avx512, 8, SMALLFRY_AVX512)
#endif

}  // namespace

GridKernels pick_grid_kernels(Simd level) {
#if SMALLFRY_X86
    if (level == Simd::avx512) return {grid_sums_avx512, encode_grid_avx512};
    if (level == Simd::avx2) return {grid_sums_avx2, encode_grid_avx2};
#endif
    static_cast<void>(level);
    return {grid_sums_scalar, encode_grid_scalar};
}
