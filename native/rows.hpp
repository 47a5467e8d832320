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
    int nbit;       // 1, 2, 4, 8, 16 or 32
    bool grouped;   // only byte_values is used, with arbitrary values
    bool uniform;   // codebook[k] == (k - offset) * step, bit for bit
    bool distant;   // the table exceeds the caches, so rows come from memory
    float offset, step;
    const float *codebook;     // [2**nbit]; null when grouped and at 32 bits
    const float *byte_values;  // [256, 8 / nbit], the values of each byte; null at 8 bits and more
};

// Rows are prefetched this many ahead.
constexpr size_t kRowsAhead = 12;
// Tables of more bytes than this are treated as larger than the caches.
constexpr size_t kCachedBytes = 8 << 20;
// A decoder may read this many bytes past the end of a row.
constexpr size_t kRowPadding = 8;

// Decodes the rows at sources[0 … n) to consecutive rows of `out`. sources[n … n + kRowsAhead) are
// prefetched, never read.
using DecodeRows = void (*)(const RowLayout &, const uint8_t *const *sources, size_t n, float *out);

DecodeRows pick_decode_rows(const RowLayout &layout, Simd level);
