#include "dots.hpp"

#include "lanes.hpp"

namespace {

// Multiplies kInputs inputs by the rows.
template <size_t kWidth, size_t kInputs>
SMALLFRY_INLINE void dot_block(const float *rows, size_t row_count, const float *inputs, size_t dim,
                               float *out, size_t stride) {
    using Floats = typename VectorTypes<kWidth>::Floats;
    constexpr size_t kParts = kDotLanes / kWidth;
    Floats sums[kInputs][kDotRows][kParts] = {};
    for (size_t at = 0; at < dim; at += kDotLanes)
        for (size_t part = 0; part < kParts; ++part) {
            Floats values[kDotRows], factors;
            for (size_t j = 0; j < kDotRows; ++j)
                std::memcpy(&values[j], rows + j * dim + at + part * kWidth, sizeof(Floats));
            for (size_t i = 0; i < kInputs; ++i) {
                std::memcpy(&factors, inputs + i * dim + at + part * kWidth, sizeof(Floats));
                for (size_t j = 0; j < kDotRows; ++j) sums[i][j][part] += values[j] * factors;
            }
        }
    for (size_t i = 0; i < kInputs; ++i)
        for (size_t j = 0; j < row_count; ++j) {
            float lanes[kDotLanes];
            std::memcpy(lanes, sums[i][j], sizeof lanes);
            for (size_t half = kDotLanes / 2; half; half /= 2)
                for (size_t lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
            out[i * stride + j] = lanes[0];
        }
}

// Multiplies kInputs inputs at a time, whose sums fit in the registers.
template <size_t kWidth, size_t kInputs>
SMALLFRY_INLINE void dot_rows(const float *rows, size_t row_count, const float *inputs, size_t input_count,
                              size_t dim, float *out, size_t stride) {
    size_t i = 0;
    for (; i + kInputs <= input_count; i += kInputs)
        dot_block<kWidth, kInputs>(rows, row_count, inputs + i * dim, dim, out + i * stride, stride);
    for (; i < input_count; ++i)
        dot_block<kWidth, 1>(rows, row_count, inputs + i * dim, dim, out + i * stride, stride);
}

void dot_rows_plain(const float *rows, size_t row_count, const float *inputs, size_t input_count, size_t dim,
                    float *out, size_t stride) {
    dot_rows<4, 1>(rows, row_count, inputs, input_count, dim, out, stride);
}

#if SMALLFRY_X86

SMALLFRY_AVX2 void dot_rows_avx2(const float *rows, size_t row_count, const float *inputs, size_t input_count,
                                 size_t dim, float *out, size_t stride) {
    dot_rows<8, 1>(rows, row_count, inputs, input_count, dim, out, stride);
}

SMALLFRY_AVX512 void dot_rows_avx512(const float *rows, size_t row_count, const float *inputs,
                                     size_t input_count, size_t dim, float *out, size_t stride) {
    dot_rows<16, 4>(rows, row_count, inputs, input_count, dim, out, stride);
}

#endif

}  // namespace

DotRows pick_dot_rows(Simd level) {
#if SMALLFRY_X86
    if (level == Simd::avx512) return dot_rows_avx512;
    if (level == Simd::avx2) return dot_rows_avx2;
#endif
    static_cast<void>(level);
    return dot_rows_plain;
}
