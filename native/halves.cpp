#include "halves.hpp"

namespace {

template <Dtype kDtype>
SMALLFRY_INLINE void round_values(const float *values, size_t count, uint16_t *out) {
    for (size_t i = 0; i < count; ++i)
        out[i] = kDtype == Dtype::bfloat16 ? to_bfloat16(values[i]) : to_float16(values[i]);
}

template <Dtype kDtype>
void round_plain(const float *values, size_t count, uint16_t *out) {
    round_values<kDtype>(values, count, out);
}

#if SMALLFRY_X86
template <Dtype kDtype>
SMALLFRY_AVX2 void round_avx2(const float *values, size_t count, uint16_t *out) {
    round_values<kDtype>(values, count, out);
}

template <Dtype kDtype>
SMALLFRY_AVX512 void round_avx512(const float *values, size_t count, uint16_t *out) {
    for (size_t i = 0; i < count; i += 32) {
        const size_t left = count - i;
        const auto kept = static_cast<__mmask32>(left >= 32 ? 0xffffffff : (1u << left) - 1);
        const __m512 first = _mm512_maskz_loadu_ps(static_cast<__mmask16>(kept), values + i);
        const __m512 second = _mm512_maskz_loadu_ps(static_cast<__mmask16>(kept >> 16), values + i + 16);
        _mm512_mask_storeu_epi16(out + i, kept, round_parts<kDtype>(first, second));
    }
}
#endif

template <Dtype kDtype>
RoundValues pick(Simd level) {
#if SMALLFRY_X86
    if (level == Simd::avx512) return round_avx512<kDtype>;
    if (level == Simd::avx2) return round_avx2<kDtype>;
#endif
    static_cast<void>(level);
    return round_plain<kDtype>;
}

}  // namespace

RoundValues pick_round_values(Dtype dtype, Simd level) {
    return dtype == Dtype::bfloat16 ? pick<Dtype::bfloat16>(level) : pick<Dtype::float16>(level);
}
