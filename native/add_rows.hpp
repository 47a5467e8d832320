// Adds weighted rows to a sum: the same bits with each instruction set.
#pragma once
#include <algorithm>
#include <cstddef>

#include "simd.hpp"

// Adds rows[i] * weights[i] for i below `count` in order; a null `weights` stands for ones.
using AddRows = void (*)(const float *rows, const float *weights, size_t count, size_t dim, float *sum);

// Sums of kTile columns stay in registers.
template <bool is_weighted>
SMALLFRY_INLINE void add_tiles(const float *rows, const float *weights, size_t count, size_t dim,
                               float *sum) {
    constexpr size_t kTile = 64;
    size_t at = 0;
    for (; at + kTile <= dim; at += kTile) {
        float tile[kTile];
        std::copy_n(sum + at, kTile, tile);
        for (size_t i = 0; i < count; ++i) {
            const float *row = rows + i * dim + at;
            for (size_t j = 0; j < kTile; ++j) tile[j] += is_weighted ? row[j] * weights[i] : row[j];
        }
        std::copy_n(tile, kTile, sum + at);
    }
    for (size_t i = 0; i < count; ++i)
        for (size_t j = at; j < dim; ++j)
            sum[j] += is_weighted ? rows[i * dim + j] * weights[i] : rows[i * dim + j];
}

inline void add_rows_plain(const float *rows, const float *weights, size_t count, size_t dim, float *sum) {
    if (weights) return add_tiles<true>(rows, weights, count, dim, sum);
    add_tiles<false>(rows, weights, count, dim, sum);
}

#if SMALLFRY_X86
SMALLFRY_AVX2 inline void add_rows_avx2(const float *rows, const float *weights, size_t count, size_t dim,
                                        float *sum) {
    if (weights) return add_tiles<true>(rows, weights, count, dim, sum);
    add_tiles<false>(rows, weights, count, dim, sum);
}
#endif

inline AddRows pick_add_rows(Simd level) {
#if SMALLFRY_X86
    if (level != Simd::scalar) return add_rows_avx2;
#endif
    static_cast<void>(level);
    return add_rows_plain;
}
