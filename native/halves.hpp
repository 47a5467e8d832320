// Rounds float32 to 16 bits, to nearest even: the same bits with each instruction set. NaN may get any bits.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "simd.hpp"

#if SMALLFRY_X86
#include <immintrin.h>
#endif

enum class Dtype { float32, float16, bfloat16 };

constexpr size_t itemsize(Dtype dtype) { return dtype == Dtype::float32 ? 4 : 2; }

SMALLFRY_INLINE uint16_t to_bfloat16(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// Values beyond float16 become infinite.
SMALLFRY_INLINE uint16_t to_float16(float value) {
    constexpr uint32_t kMinNormal = 0x38800000, kHalf = 0x3f000000,
                       kBeyond = 0x47800000;  // 2**-14, 0.5, 2**16
    uint32_t bits, small;
    std::memcpy(&bits, &value, sizeof bits);
    const uint32_t sign = bits >> 16 & 0x8000;
    bits &= 0x7fffffff;
    // The sum with 0.5 has its last bit where that of a subnormal float16 is.
    std::memcpy(&value, &bits, sizeof bits);
    value += 0.5f;
    std::memcpy(&small, &value, sizeof small);
    const uint32_t normal = (bits - (112u << 23) + 0xfff + (bits >> 13 & 1)) >> 13;
    const uint32_t rounded = bits < kMinNormal ? small - kHalf : bits < kBeyond ? normal : 0x7c00;
    return static_cast<uint16_t>(rounded | sign);
}

#if SMALLFRY_X86
// The low half of each lane of 32 bits, whose high half has a rounded bfloat16, is arbitrary.
SMALLFRY_AVX512 SMALLFRY_INLINE __m512i round_bfloat16(__m512 values) {
    const __m512i bits = _mm512_castps_si512(values);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    return _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
}

// Stores past the caches. NumPy aligns its arrays to 16 bytes only.
SMALLFRY_AVX512 SMALLFRY_INLINE void stream(void *to, __m512i values) {
    if (reinterpret_cast<uintptr_t>(to) % sizeof values == 0)
        return _mm512_stream_si512(static_cast<__m512i *>(to), values);
    auto *out = static_cast<__m128i *>(to);
    _mm_stream_si128(out, _mm512_castsi512_si128(values));
    _mm_stream_si128(out + 1, _mm512_extracti32x4_epi32(values, 1));
    _mm_stream_si128(out + 2, _mm512_extracti32x4_epi32(values, 2));
    _mm_stream_si128(out + 3, _mm512_extracti32x4_epi32(values, 3));
}

// Where the high halves of 32 lanes of 32 bits are.
struct HighHalves {
    alignas(64) uint16_t places[32];

    constexpr HighHalves() : places() {
        for (uint16_t i = 0; i < 32; ++i) places[i] = static_cast<uint16_t>(2 * i + 1);
    }
};

// Rounds 32 values.
template <Dtype kDtype>
SMALLFRY_AVX512 SMALLFRY_INLINE __m512i round_parts(__m512 first, __m512 second) {
    if constexpr (kDtype == Dtype::float16) {
        constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        return _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtps_ph(first, kNearest)),
                                  _mm512_cvtps_ph(second, kNearest), 1);
    }
    static constexpr HighHalves kHighHalves;
    return _mm512_permutex2var_epi16(round_bfloat16(first), _mm512_load_si512(kHighHalves.places),
                                     round_bfloat16(second));
}
#endif

// Rounds `count` values to `out`.
using RoundValues = void (*)(const float *values, size_t count, uint16_t *out);

RoundValues pick_round_values(Dtype dtype, Simd level);  // of 16 bits
