// Decodes rows of codes to float32: one function for each width and instruction set, all with the same bits.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "halves.hpp"
#include "simd.hpp"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "codes are little-endian: big-endian machines use the NumPy kernels"
#endif

// A row of codes, its codebook, and what decoders derive from it.
struct RowLayout {
    // The codebook is [2**nbit] or, for windows of 8 to 16 bits, [2**window]; null at 32 bits. column_scale
    // is null or [dim]. Throws std::invalid_argument.
    RowLayout(size_t dim, int nbit, const float *codebook, size_t codebook_size, const float *column_scale);

    size_t dim;
    size_t stride;         // bytes of a row
    int nbit;              // 1, 2, 3, 4, 8, 16 or 32
    int window = 0;        // bits that index a trellis codebook; 0 without one
    bool uniform = false;  // codebook[k] == (k - offset) * step, bit for bit; only of 8 and 16 bits
    float offset = 0, step = 0;
    const float *codebook;
    std::vector<float> column_scale;  // [dim], only of a trellis
    std::vector<float>
        group_values;  // of each pair of a small trellis; of each byte, if decode_rows needs them
    std::vector<uint8_t>
        byte_planes;  // [2, 256], the upper bytes of a trellis codebook of 256 bfloat16 values
};

// A decoder may read this many bytes past the end of a row.
constexpr size_t kRowPadding = 32;

using Sources = const uint8_t *const *;

// Decodes the rows at sources[0 … n) to consecutive rows of `out`.
using DecodeRows = void (*)(const RowLayout &, Sources sources, size_t n, float *out);

// Also adds the values of bytes to the layout, if the function needs them.
DecodeRows pick_decode_rows(RowLayout &layout, Simd level);
DecodeRows pick_trellis_rows(const RowLayout &layout, Simd level);  // of a layout with windows

// As DecodeRows, times the scale of each row, plus the mean if it is not null, rounded to a dtype. Streaming
// stores pass the caches by; they need rows of whole kStreamed bytes, and `out` aligned to kStreamAlign.
using WriteRows = void (*)(const RowLayout &, Sources sources, size_t n, const float *scales,
                           const float *mean, bool streams, void *out);
constexpr size_t kStreamed = 64, kStreamAlign = 16;

// Null without a kernel that is faster than decoding, scaling and rounding.
WriteRows pick_write_rows(const RowLayout &layout, Dtype dtype, bool has_mean, Simd level);
WriteRows pick_trellis_writer(const RowLayout &layout, Dtype dtype, Simd level);
WriteRows pick_level_writer(const RowLayout &layout, Dtype dtype, Simd level);  // without mean

// Multiplies a row by `scale`, and adds the mean if it is not null.
using ScaleRow = void (*)(float scale, const float *mean, size_t dim, float *row);

ScaleRow pick_scale_row(Simd level);
