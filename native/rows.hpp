// Decodes rows of codes to float32: one function for each width and instruction set, all with the same bits.
#pragma once
#include <cstddef>
#include <cstdint>

#include "simd.hpp"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "codes are little-endian: big-endian machines use the NumPy kernels"
#endif

// The layout of a row of codes and its codebook.
struct RowLayout {
    size_t dim;
    size_t stride;  // bytes of a row
    int nbit;       // 1, 2, 3, 4, 8, 16 or 32
    int window;     // bits that index a trellis codebook; 0 without one
    bool uniform;   // codebook[k] == (k - offset) * step, bit for bit
    bool distant;   // the table exceeds the caches, so rows come from memory
    float offset, step;
    const float *codebook;      // [2**nbit], trellis: [2**window]; null at 32 bits
    const float *byte_values;   // [256, 8 / nbit], the values of each byte; null at 8 bits and more
    const float *column_scale;  // [dim], only of a trellis
};

// Rows are prefetched this many ahead.
constexpr size_t kRowsAhead = 12;
// Tables of more bytes than this are treated as larger than the caches.
constexpr size_t kCachedBytes = 8 << 20;
// A decoder may read this many bytes past the end of a row.
constexpr size_t kRowPadding = 8;

using Sources = const uint8_t *const *;

// Rows from memory are prefetched to L2: L1 has too few line fill buffers.
SMALLFRY_INLINE void prefetch_row(const RowLayout &t, const uint8_t *row) {
    if (t.distant) {
        for (size_t at = 0; at < t.stride; at += 64) SMALLFRY_PREFETCH_L2(row + at);
        SMALLFRY_PREFETCH_L2(row + t.stride - 1);
    } else {
        for (size_t at = 0; at < t.stride; at += 64) SMALLFRY_PREFETCH(row + at);
        SMALLFRY_PREFETCH(row + t.stride - 1);
    }
}

// Decodes the rows at sources[0 … n) to consecutive rows of `out`. sources[n … n + kRowsAhead) are
// prefetched, never read.
using DecodeRows = void (*)(const RowLayout &, Sources sources, size_t n, float *out);

DecodeRows pick_trellis_rows(const RowLayout &layout, Simd level);
DecodeRows pick_decode_rows(const RowLayout &layout, Simd level);
