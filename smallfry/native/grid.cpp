#include "grid.hpp"

#include "lanes.hpp"
#include "pack.hpp"

namespace {

SMALLFRY_INLINE Lanes position(Lanes values, const Grid &grid) {
    return clamp_lanes(values * grid.inverse_step + grid.top / 2, 0, grid.top);
}

SMALLFRY_INLINE Lanes nearest(Lanes position) { return position + kRounder - kRounder; }

SMALLFRY_INLINE Lanes level_of(Lanes units, const Grid &grid) {
    return round_to_float(units * grid.half_step);
}

struct SumTerms {
    Lanes error, product, square;
};

SMALLFRY_INLINE SumTerms sum_terms(Lanes values, const Grid &grid) {
    const Lanes units = 2 * nearest(position(values, grid)) - grid.top;
    const Lanes error = values - level_of(units, grid);
    return {error * error, values * units, units * units};
}

SMALLFRY_INLINE void grid_sums(const float *x, size_t n, const Grid &grid, double *sums) {
    Lanes error{}, product{}, square{};
    const size_t whole = n / kLanes * kLanes;
    for (size_t at = 0; at < whole; at += kLanes) {
        const SumTerms terms = sum_terms(load_lanes(x + at), grid);
        error += terms.error;
        product += terms.product;
        square += terms.square;
    }
    const SumTerms rest = sum_terms(load_some_lanes(x + whole, n - whole), grid);
    for (size_t lane = 0; lane < n - whole; ++lane) {
        error[lane] += rest.error[lane];
        product[lane] += rest.product[lane];
        square[lane] += rest.square[lane];
    }
    sums[0] = sum_lanes(error);
    sums[1] = sum_lanes(product);
    sums[2] = sum_lanes(square);
}

SMALLFRY_INLINE WordLanes mix(WordLanes z) {
    z += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

// Numbers in [0, 1), each from the seed and the value's place alone (SplitMix64).
SMALLFRY_INLINE Lanes noise(uint64_t seed, uint64_t place) {
    const WordLanes first = {0, 1, 2, 3, 4, 5, 6, 7};
    const WordLanes seeds = seed + WordLanes{};
    return __builtin_convertvector(mix(mix(seeds) + first + place) >> 11, Lanes) * 0x1p-53;
}

SMALLFRY_INLINE Lanes rounded(Lanes values, const Grid &grid, const Rounding &rounding, uint64_t place) {
    if (!rounding.stochastic) return nearest(position(values, grid));
    const Lanes raised = position(values, grid) + noise(rounding.seed, place);
    const Lanes whole = nearest(raised);
    return clamp_lanes(whole > raised ? whole - 1 : whole, 0, grid.top);
}

// Writes the `bytes` bytes of eight packed codes.
SMALLFRY_INLINE void store_codes(Lanes codes, int nbit, size_t bytes, uint8_t *out) {
    WordLanes words;
    const Lanes shifted = codes + kRounder;  // the code is in the low bits
    std::memcpy(&words, &shifted, sizeof words);
    if (nbit == 16) {
        const ShortLanes shorts = __builtin_convertvector(words, ShortLanes);
        std::memcpy(out, &shorts, bytes);
        return;
    }
    const ByteLanes narrow = __builtin_convertvector(words, ByteLanes);
    uint64_t packed;
    std::memcpy(&packed, &narrow, sizeof packed);
    packed = pack_eight(packed, nbit);
    std::memcpy(out, &packed, bytes);
}

template <int kBits>
SMALLFRY_INLINE void encode_rows(const EncodeBlock &block, const Grid &grid, const Rounding &rounding) {
    Lanes error_sum{}, square_sum{};
    const size_t dim = block.dim, whole = dim / kLanes * kLanes, rest = dim - whole;
    for (size_t row = 0; row < block.rows; ++row) {
        const float *x = block.x + row * dim;
        uint8_t *out = block.codes + row * block.stride;
        const uint64_t place = block.place + row * dim;
        if (block.zero[row]) {
            std::memset(out, 0, block.stride);
            continue;
        }
        for (size_t at = 0; at < whole; at += kLanes, out += kBits) {
            const Lanes values = load_lanes(x + at), codes = rounded(values, grid, rounding, place + at);
            const Lanes error = values - level_of(2 * codes - grid.top, grid);
            error_sum += error * error;
            square_sum += values * values;
            store_codes(codes, kBits, kBits, out);
        }
        if (rest == 0) continue;
        const Lanes values = load_some_lanes(x + whole, rest);
        Lanes codes = rounded(values, grid, rounding, place + whole);
        const Lanes error = values - level_of(2 * codes - grid.top, grid);
        for (size_t lane = 0; lane < rest; ++lane) {
            error_sum[lane] += error[lane] * error[lane];
            square_sum[lane] += values[lane] * values[lane];
        }
        for (size_t lane = rest; lane < kLanes; ++lane) codes[lane] = 0;
        store_codes(codes, kBits, packed_size(rest, kBits), out);
    }
    block.sums[0] = sum_lanes(error_sum);
    block.sums[1] = sum_lanes(square_sum);
}

SMALLFRY_INLINE void encode_grid(const EncodeBlock &block, const Grid &grid, const Rounding &rounding) {
    switch (block.nbit) {
        case 1:
            return encode_rows<1>(block, grid, rounding);
        case 2:
            return encode_rows<2>(block, grid, rounding);
        case 4:
            return encode_rows<4>(block, grid, rounding);
        case 8:
            return encode_rows<8>(block, grid, rounding);
        default:
            return encode_rows<16>(block, grid, rounding);
    }
}

// The same code for each instruction set.
#define SMALLFRY_GRID_KERNELS(name, target)                                                                \
    target void grid_sums_##name(const float *x, size_t n, const Grid &grid, double *sums) {               \
        grid_sums(x, n, grid, sums);                                                                       \
    }                                                                                                      \
    target void encode_grid_##name(const EncodeBlock &block, const Grid &grid, const Rounding &rounding) { \
        encode_grid(block, grid, rounding);                                                                \
    }

SMALLFRY_GRID_KERNELS(scalar, )
#if SMALLFRY_X86
SMALLFRY_GRID_KERNELS(avx2, SMALLFRY_AVX2)
SMALLFRY_GRID_KERNELS(avx512, SMALLFRY_AVX512)
#endif

}  // namespace

GridKernels pick_grid_kernels(Simd level) {
#if SMALLFRY_X86
    if (level == Simd::avx512) return {grid_sums_avx512, encode_grid_avx512};
    if (level == Simd::avx2) return {grid_sums_avx2, encode_grid_avx2};
#endif
    return {grid_sums_scalar, encode_grid_scalar};
}
