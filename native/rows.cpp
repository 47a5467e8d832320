#include "rows.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "lanes.hpp"

#if SMALLFRY_X86
#include <immintrin.h>
#endif

namespace {

// Larger tables of pairs are slower than single values.
constexpr int kPairBits = 10;

// The values of the groups of `size` codes that each number of bits stands for.
std::vector<float> values_of_groups(const float *codebook, int window, int nbit, size_t size) {
    const size_t mask = (size_t{1} << window) - 1, groups = size_t{1} << (window + (size - 1) * nbit);
    std::vector<float> values(groups * size);
    for (size_t group = 0; group < groups; ++group)
        for (size_t j = 0; j < size; ++j) values[group * size + j] = codebook[group >> j * nbit & mask];
    return values;
}

// The two upper bytes of each value; empty if a value has others.
std::vector<uint8_t> split_bytes(const float *values, size_t count) {
    std::vector<uint8_t> planes(2 * count);
    for (size_t i = 0; i < count; ++i) {
        uint32_t bits;
        std::memcpy(&bits, values + i, sizeof bits);
        if (bits & 0xffff) return {};
        planes[i] = static_cast<uint8_t>(bits >> 16);
        planes[count + i] = static_cast<uint8_t>(bits >> 24);
    }
    return planes;
}

// Whether the codebook is (k - offset) * step in float32, bit for bit.
bool is_grid(const float *codebook, int nbit, float offset, float step) {
    for (uint32_t k = 0; k < 1u << nbit; ++k) {
        const float value = (static_cast<float>(k) - offset) * step;
        if (std::memcmp(&value, codebook + k, sizeof value) != 0) return false;
    }
    return true;
}

// Any codebook at 1, 2 and 4 bits, by the values of each byte.
template <size_t kPerByte>
void bytes_plain(const RowLayout &t, Sources sources, size_t n, float *out) {
    const size_t whole = t.dim / kPerByte, rest = t.dim % kPerByte;
    for (size_t i = 0; i < n; ++i, out += t.dim) {
        const uint8_t *in = sources[i];
        for (size_t j = 0; j < whole; ++j)
            std::memcpy(out + j * kPerByte, t.group_values.data() + in[j] * kPerByte,
                        kPerByte * sizeof(float));
        if (rest)
            std::memcpy(out + whole * kPerByte, t.group_values.data() + in[whole] * kPerByte,
                        rest * sizeof(float));
    }
}

template <size_t kPerByte>
DecodeRows pick_bytes_plain(RowLayout &layout) {
    layout.group_values = values_of_groups(layout.codebook, layout.nbit, layout.nbit, kPerByte);
    return bytes_plain<kPerByte>;
}

template <class Code>
SMALLFRY_INLINE Code load_code(const uint8_t *in, size_t j) {
    Code code;
    std::memcpy(&code, in + j * sizeof(Code), sizeof(Code));
    return code;
}

// Any codebook at 8 and 16 bits.
template <class Code>
void lookup_plain(const RowLayout &t, Sources sources, size_t n, float *out) {
    for (size_t i = 0; i < n; ++i, out += t.dim) {
        for (size_t j = 0; j < t.dim; ++j) out[j] = t.codebook[load_code<Code>(sources[i], j)];
    }
}

// Uniform levels at 8 and 16 bits: arithmetic that compilers vectorize.
template <class Code>
SMALLFRY_INLINE void grid(const RowLayout &t, Sources sources, size_t n, float *out) {
    const float offset = t.offset, step = t.step;
    const size_t dim = t.dim;
    for (size_t i = 0; i < n; ++i, out += dim) {
        const uint8_t *in = sources[i];
        for (size_t j = 0; j < dim; ++j)
            out[j] = (static_cast<float>(static_cast<int32_t>(load_code<Code>(in, j))) - offset) * step;
    }
}

template <size_t kWidth>
SMALLFRY_INLINE void scale_row(float scale, const float *mean, size_t dim, float *row) {
    using Floats = typename VectorTypes<kWidth>::Floats;
    const size_t whole = dim / kWidth * kWidth;
    for (size_t j = 0; j < whole; j += kWidth) {
        Floats value, offset;
        std::memcpy(&value, row + j, sizeof value);
        value *= scale;
        if (mean) {
            std::memcpy(&offset, mean + j, sizeof offset);
            value += offset;
        }
        std::memcpy(row + j, &value, sizeof value);
    }
    for (size_t j = whole; j < dim; ++j) {
        const float value = row[j] * scale;
        row[j] = mean ? value + mean[j] : value;
    }
}

void scale_plain(float scale, const float *mean, size_t dim, float *row) {
    scale_row<4>(scale, mean, dim, row);
}

template <class Code>
void grid_plain(const RowLayout &t, Sources sources, size_t n, float *out) {
    grid<Code>(t, sources, n, out);
}

void float_plain(const RowLayout &t, Sources sources, size_t n, float *out) {
    for (size_t i = 0; i < n; ++i, out += t.dim) {
        std::memcpy(out, sources[i], t.stride);
    }
}

#if SMALLFRY_X86

template <class Code>
SMALLFRY_AVX2 void grid_avx2(const RowLayout &t, Sources sources, size_t n, float *out) {
    grid<Code>(t, sources, n, out);
}

SMALLFRY_AVX2 void scale_avx2(float scale, const float *mean, size_t dim, float *row) {
    scale_row<8>(scale, mean, dim, row);
}

SMALLFRY_AVX512 SMALLFRY_INLINE __m512i widen_codes(const uint8_t *in, __mmask16 mask, uint8_t) {
    return _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask, in));
}

SMALLFRY_AVX512 SMALLFRY_INLINE __m512i widen_codes(const uint8_t *in, __mmask16 mask, uint16_t) {
    return _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, in));
}

// The levels of the codes in `mask`.
template <class Code>
SMALLFRY_AVX512 SMALLFRY_INLINE __m512 grid_levels(const uint8_t *in, __mmask16 mask, __m512 offset,
                                                   __m512 step) {
    const __m512 codes = _mm512_cvtepi32_ps(widen_codes(in, mask, Code{}));
    return _mm512_mul_ps(_mm512_sub_ps(codes, offset), step);
}

// Uniform levels at 8 and 16 bits. Explicit, because compilers leave the last dim % 16 values to a scalar
// loop.
template <class Code>
SMALLFRY_AVX512 void grid_avx512(const RowLayout &t, Sources sources, size_t n, float *out) {
    const __m512 offset = _mm512_set1_ps(t.offset), step = _mm512_set1_ps(t.step);
    const size_t whole = t.dim / 16;
    const __mmask16 all = 0xffff, rest = static_cast<__mmask16>((1u << t.dim % 16) - 1);
    for (size_t i = 0; i < n; ++i, out += t.dim) {
        const uint8_t *in = sources[i];
        for (size_t j = 0; j < whole; ++j)
            _mm512_storeu_ps(out + 16 * j, grid_levels<Code>(in + 16 * j * sizeof(Code), all, offset, step));
        if (rest)
            _mm512_mask_storeu_ps(out + 16 * whole, rest,
                                  grid_levels<Code>(in + 16 * whole * sizeof(Code), rest, offset, step));
    }
}

// 8 codes of 2 bits index a register of 8 floats, the codebook twice, so the bit above a code does not
// matter.
SMALLFRY_AVX2 void two_bits_avx2(const RowLayout &t, Sources sources, size_t n, float *out) {
    const __m256 levels = _mm256_broadcast_ps(reinterpret_cast<const __m128 *>(t.codebook));
    const __m256i shifts = _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14);
    const size_t whole = t.dim / 8, rest = t.dim % 8;
    for (size_t i = 0; i < n; ++i, out += t.dim) {
        const uint8_t *in = sources[i];
        for (size_t j = 0; j < whole; ++j) {
            const __m256i codes = _mm256_srlv_epi32(_mm256_set1_epi32(load_code<uint16_t>(in, j)), shifts);
            _mm256_storeu_ps(out + 8 * j, _mm256_permutevar8x32_ps(levels, codes));
        }
        for (size_t j = 8 * whole; j < 8 * whole + rest; ++j)
            out[j] = t.codebook[in[j / 4] >> (j % 4 * 2) & 3];
    }
}

// 16 codes of 1 bit select from two registers.
SMALLFRY_AVX512 void one_bit_avx512(const RowLayout &t, Sources sources, size_t n, float *out) {
    const __m512 low = _mm512_set1_ps(t.codebook[0]), high = _mm512_set1_ps(t.codebook[1]);
    const size_t whole = t.dim / 16;
    const __mmask16 rest = static_cast<__mmask16>((1u << t.dim % 16) - 1);
    for (size_t i = 0; i < n; ++i, out += t.dim) {
        const uint8_t *in = sources[i];
        for (size_t j = 0; j < whole; ++j)
            _mm512_storeu_ps(out + 16 * j, _mm512_mask_blend_ps(load_code<uint16_t>(in, j), low, high));
        if (rest)
            _mm512_mask_storeu_ps(out + 16 * whole, rest,
                                  _mm512_mask_blend_ps(load_code<uint16_t>(in, whole), low, high));
    }
}

SMALLFRY_AVX512 SMALLFRY_INLINE __m512 two_bits(const uint8_t *in, size_t j, __m512 levels, __m512i shifts) {
    const __m512i word = _mm512_set1_epi32(static_cast<int>(load_code<uint32_t>(in, j)));
    return _mm512_permutexvar_ps(_mm512_srlv_epi32(word, shifts), levels);
}

// 16 codes of 2 bits index a register of 16 floats, the codebook four times.
SMALLFRY_AVX512 void two_bits_avx512(const RowLayout &t, Sources sources, size_t n, float *out) {
    const __m512 levels = _mm512_broadcast_f32x4(_mm_loadu_ps(t.codebook));
    const __m512i shifts = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const size_t whole = t.dim / 16;
    const __mmask16 rest = static_cast<__mmask16>((1u << t.dim % 16) - 1);
    for (size_t i = 0; i < n; ++i, out += t.dim) {
        const uint8_t *in = sources[i];
        for (size_t j = 0; j < whole; ++j) _mm512_storeu_ps(out + 16 * j, two_bits(in, j, levels, shifts));
        if (rest) _mm512_mask_storeu_ps(out + 16 * whole, rest, two_bits(in, whole, levels, shifts));
    }
}

SMALLFRY_AVX512 SMALLFRY_INLINE __m512 four_bits(const uint8_t *in, size_t j, __m512 levels, __m512i shifts) {
    const __m512i low = _mm512_set1_epi32(static_cast<int>(load_code<uint32_t>(in, 2 * j)));
    const __m512i words =
        _mm512_mask_set1_epi32(low, 0xff00, static_cast<int>(load_code<uint32_t>(in, 2 * j + 1)));
    return _mm512_permutexvar_ps(_mm512_srlv_epi32(words, shifts), levels);
}

// 16 codes of 4 bits index a register of 16 floats, the codebook.
SMALLFRY_AVX512 void four_bits_avx512(const RowLayout &t, Sources sources, size_t n, float *out) {
    const __m512 levels = _mm512_loadu_ps(t.codebook);
    const __m512i shifts = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28);
    const size_t whole = t.dim / 16;
    const __mmask16 rest = static_cast<__mmask16>((1u << t.dim % 16) - 1);
    for (size_t i = 0; i < n; ++i, out += t.dim) {
        const uint8_t *in = sources[i];
        for (size_t j = 0; j < whole; ++j) _mm512_storeu_ps(out + 16 * j, four_bits(in, j, levels, shifts));
        if (rest) _mm512_mask_storeu_ps(out + 16 * whole, rest, four_bits(in, whole, levels, shifts));
    }
}

#endif

}  // namespace

RowLayout::RowLayout(size_t dim_, int nbit_, const float *codebook_, size_t codebook_size, const float *scale)
    : dim(dim_), stride((dim_ * static_cast<size_t>(nbit_) + 7) / 8), nbit(nbit_), codebook(codebook_) {
    if ((nbit < 1 || nbit > 4) && nbit != 8 && nbit != 16 && nbit != 32)
        throw std::invalid_argument("nbit is not 1, 2, 3, 4, 8, 16 or 32");
    if (dim == 0 || dim > (SIZE_MAX >> 6)) throw std::invalid_argument("dim is out of range");
    const auto size = [](int bits) { return size_t{1} << bits; };
    for (int bits = 8; nbit <= 4 && bits <= 16; ++bits)
        if (codebook_size == size(bits) && dim * static_cast<size_t>(nbit) >= static_cast<size_t>(bits))
            window = bits;
    if (window) {
        column_scale = scale ? std::vector<float>(scale, scale + dim) : std::vector<float>(dim, 1.0f);
        if (window + nbit <= kPairBits) group_values = values_of_groups(codebook, window, nbit, 2);
        if (window == 8) byte_planes = split_bytes(codebook, codebook_size);
        return;
    }
    if (scale) throw std::invalid_argument("column_scale needs a trellis codebook");
    if (nbit == 32) return;
    if (nbit == 3 || codebook_size != size(nbit))
        throw std::invalid_argument("codebook has " + std::to_string(codebook_size) + " values, expected " +
                                    (nbit == 3 ? "a trellis codebook" : std::to_string(size(nbit))));
    if (nbit <= 4) return;
    offset = static_cast<float>(size(nbit) - 1) / 2;
    step = codebook[size(nbit - 1)] * 2;
    uniform = is_grid(codebook, nbit, offset, step);
}

ScaleRow pick_scale_row(Simd level) {
#if SMALLFRY_X86
    if (level != Simd::scalar) return scale_avx2;
#endif
    static_cast<void>(level);
    return scale_plain;
}

DecodeRows pick_decode_rows(RowLayout &layout, Simd level) {
    if (layout.window) return pick_trellis_rows(layout, level);
#if SMALLFRY_X86
    if (level == Simd::avx512) {
        if (layout.nbit == 1) return one_bit_avx512;
        if (layout.nbit == 2) return two_bits_avx512;
        if (layout.nbit == 4) return four_bits_avx512;
        if (layout.nbit == 8 && layout.uniform) return grid_avx512<uint8_t>;
        if (layout.nbit == 16 && layout.uniform) return grid_avx512<uint16_t>;
    }
    if (level == Simd::avx2) {
        if (layout.nbit == 2) return two_bits_avx2;
        if (layout.nbit == 8 && layout.uniform) return grid_avx2<uint8_t>;
        if (layout.nbit == 16 && layout.uniform) return grid_avx2<uint16_t>;
    }
#endif
    switch (layout.nbit) {
        case 1:
            return pick_bytes_plain<8>(layout);
        case 2:
            return pick_bytes_plain<4>(layout);
        case 4:
            return pick_bytes_plain<2>(layout);
        case 8:
            return layout.uniform ? grid_plain<uint8_t> : lookup_plain<uint8_t>;
        case 16:
            return layout.uniform ? grid_plain<uint16_t> : lookup_plain<uint16_t>;
        default:
            return float_plain;
    }
}

WriteRows pick_write_rows(const RowLayout &layout, Dtype dtype, bool has_mean, Simd level) {
    if (layout.window) return pick_trellis_writer(layout, dtype, level);
    return has_mean ? nullptr : pick_level_writer(layout, dtype, level);
}
