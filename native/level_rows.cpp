// Rows of 1, 2 and 4 bits to values of 16 bits: the few levels are rounded once for each row.
#include <cstring>

#include "rows.hpp"

#if SMALLFRY_X86
#include <immintrin.h>

namespace {

// Which bytes of 4 * kBits have the code of each of 32 lanes, and at which bit.
template <int kBits>
struct Lanes {
    alignas(64) uint8_t bytes[64];
    alignas(64) uint16_t shifts[32];

    constexpr Lanes() : bytes(), shifts() {
        for (int i = 0; i < 32; ++i) {
            bytes[2 * i] = bytes[2 * i + 1] = static_cast<uint8_t>(i * kBits / 8);
            shifts[i] = static_cast<uint16_t>(i * kBits % 8);
        }
    }
};

template <int kBits>
constexpr Lanes<kBits> kLanes{};

// The codes of 32 values, each in the low bits of a lane.
template <int kBits>
SMALLFRY_AVX512 SMALLFRY_INLINE __m512i load_codes(const uint8_t *from) {
    uint32_t words[kBits] = {};
    std::memcpy(words, from, sizeof words);
    __m128i codes = _mm_set1_epi32(static_cast<int>(words[0]));
    if constexpr (kBits == 2) codes = _mm_insert_epi32(codes, static_cast<int>(words[1]), 1);
    if constexpr (kBits == 4) codes = _mm_loadu_si128(reinterpret_cast<const __m128i *>(from));
    const __m512i bytes =
        _mm512_shuffle_epi8(_mm512_broadcast_i32x4(codes), _mm512_load_si512(kLanes<kBits>.bytes));
    return _mm512_srlv_epi16(bytes, _mm512_load_si512(kLanes<kBits>.shifts));
}

// A lookup uses the low 5 bits of a lane, so the levels are repeated for all values of those above the code.
template <int kBits, Dtype kDtype>
SMALLFRY_AVX512 void write_levels(const RowLayout &t, Sources sources, size_t n, const float *scales,
                                  const float *, bool streams, void *to) {
    alignas(64) float repeated[32];
    for (size_t i = 0; i < 32; ++i) repeated[i] = t.codebook[i % (1 << kBits)];
    const __m512 low = _mm512_load_ps(repeated), high = _mm512_load_ps(repeated + 16);
    const size_t whole = t.dim / 32, rest = t.dim % 32;
    auto *out = static_cast<uint16_t *>(to);
    for (size_t i = 0; i < n; ++i, out += t.dim) {
        const __m512 scale = _mm512_set1_ps(scales[i]);
        const __m512i levels = round_parts<kDtype>(_mm512_mul_ps(low, scale), _mm512_mul_ps(high, scale));
        for (size_t j = 0; j <= whole; ++j) {
            if (j == whole && !rest) break;
            const __m512i values =
                _mm512_permutexvar_epi16(load_codes<kBits>(sources[i] + 4 * kBits * j), levels);
            if (streams)
                stream(out + 32 * j, values);
            else if (j < whole)
                _mm512_storeu_si512(out + 32 * j, values);
            else
                _mm512_mask_storeu_epi16(out + 32 * j, (1u << rest) - 1, values);
        }
    }
}

template <int kBits>
WriteRows pick(Dtype dtype) {
    return dtype == Dtype::bfloat16 ? write_levels<kBits, Dtype::bfloat16>
                                    : write_levels<kBits, Dtype::float16>;
}

}  // namespace
#endif

WriteRows pick_level_writer(const RowLayout &layout, Dtype dtype, Simd level) {
#if SMALLFRY_X86
    if (level == Simd::avx512 && dtype != Dtype::float32) {
        if (layout.nbit == 1) return pick<1>(dtype);
        if (layout.nbit == 2) return pick<2>(dtype);
        if (layout.nbit == 4) return pick<4>(dtype);
    }
#endif
    static_cast<void>(layout), static_cast<void>(dtype), static_cast<void>(level);
    return nullptr;
}
