// Unpacking rows of codes to float32: one function for each width and instruction set, all with the same
// bits.
#pragma once
#include <cstddef>
#include <cstdint>

#include "simd.hpp"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "codes are little-endian: machines of the other order take the NumPy path"
#endif

// How one row of codes becomes values.
struct RowLayout {
    size_t dim;
    size_t stride;  // bytes of a row
    int nbit;       // 1, 2, 4, 8, 16 or 32
    bool grouped;   // the codebook is not used, byte_values is any table
    bool uniform;   // codebook[k] == (k - offset) * step, bit for bit
    bool distant;   // the table is larger than caches are, so that rows come from memory
    float offset, step;
    const float *codebook;     // [2**nbit]; null when grouped and at 32 bits
    const float *byte_values;  // [256, 8 / nbit], the values of each byte; null at 8 bits and more
};

// Rows are fetched this many ahead of their use.
constexpr size_t kRowsAhead = 12;
// A table of more bytes than this is taken for one that caches do not hold.
constexpr size_t kCachedBytes = 8 << 20;
// A decoder may read this many bytes past the end of a row.
constexpr size_t kRowPadding = 8;

// Decodes the rows at sources[0 … n) to consecutive rows of `out`. sources[n … n + kRowsAhead) are
// prefetched, never read.
using DecodeRows = void (*)(const RowLayout &, const uint8_t *const *sources, size_t n, float *out);

DecodeRows pick_decode_rows(const RowLayout &layout, Simd level);
