// Encodes groups of values by the nearest of the 256 rows of a grouped codebook.
#include <nanobind/nanobind.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "bindings.hpp"
#include "gil.hpp"
#include "parallel.hpp"
#include "simd.hpp"
#include "view.hpp"

// Only inlined functions pass vectors wider than the default registers.
#pragma GCC diagnostic ignored "-Wpsabi"

namespace nb = nanobind;

namespace {

constexpr size_t kCentroids = 256;
constexpr size_t kMaxGroup = 8;

// A register of Bytes bytes: one value of each of `size` rows.
template <size_t Bytes>
struct Lanes {
    static constexpr size_t size = Bytes / sizeof(float);
    typedef float Floats __attribute__((vector_size(Bytes)));
    typedef int32_t Ints __attribute__((vector_size(Bytes)));
};

// A codebook [256, group], and half the squared length of each row.
struct Codebook {
    const float *values;
    size_t group;
    float halves[kCentroids];
    float last_halves[kCentroids];  // of the first `last` values: the last group of a row may be shorter
    size_t last;

    Codebook(const float *values, size_t group, size_t dim)
        : values(values), group(group), last(dim % group ? dim % group : group) {
        for (size_t k = 0; k < kCentroids; ++k) {
            halves[k] = half_square(k, group);
            last_halves[k] = half_square(k, last);
        }
    }

  private:
    float half_square(size_t k, size_t count) const {
        float sum = 0;
        for (size_t j = 0; j < count; ++j) sum += values[k * group + j] * values[k * group + j];
        return 0.5f * sum;
    }
};

// Returns for the point in each lane the row with the largest dot product less half its square, which is the
// nearest; ties go to the first row.
template <size_t Group, class Lane>
SMALLFRY_INLINE typename Lane::Ints nearest(const typename Lane::Floats *point, const float *codebook,
                                            const float *halves) {
    using Floats = typename Lane::Floats;
    using Ints = typename Lane::Ints;
    Floats best = Floats{} - std::numeric_limits<float>::infinity();
    Ints found{};
    for (size_t k = 0; k < kCentroids; ++k) {
        const float *centroid = codebook + k * Group;
        Floats score = point[0] * centroid[0];
        for (size_t j = 1; j < Group; ++j) score = score + point[j] * centroid[j];
        score = score - halves[k];
        const Ints better = score > best;
        best = better ? score : best;
        found = better ? Ints{} + static_cast<int32_t>(k) : found;
    }
    return found;
}

template <size_t Group, class Lane>
SMALLFRY_INLINE void encode(const float *x, size_t rows, size_t dim, const Codebook &codebook,
                            uint8_t *codes) {
    const size_t stride = (dim + Group - 1) / Group;
    for (size_t row = 0; row < rows; row += Lane::size) {
        const size_t count = std::min(Lane::size, rows - row);
        for (size_t byte = 0; byte < stride; ++byte) {
            const bool last = byte + 1 == stride;
            const size_t values = last ? codebook.last : Group;
            typename Lane::Floats point[Group] = {};
            for (size_t i = 0; i < count; ++i)
                for (size_t j = 0; j < values; ++j) point[j][i] = x[(row + i) * dim + byte * Group + j];
            const typename Lane::Ints found =
                nearest<Group, Lane>(point, codebook.values, last ? codebook.last_halves : codebook.halves);
            for (size_t i = 0; i < count; ++i)
                codes[(row + i) * stride + byte] = static_cast<uint8_t>(found[i]);
        }
    }
}

using Encode = void (*)(const float *, size_t, size_t, const Codebook &, uint8_t *);

// Instantiates the kernel for an instruction set with registers of `bytes` bytes.
#define SMALLFRY_ENCODE(name, bytes, target)                                                     \
    template <size_t Group>                                                                      \
    target void encode_##name(const float *x, size_t rows, size_t dim, const Codebook &codebook, \
                              uint8_t *codes) {                                                  \
        encode<Group, Lanes<bytes>>(x, rows, dim, codebook, codes);                              \
    }

SMALLFRY_ENCODE(plain, 16, )
#if SMALLFRY_X86
SMALLFRY_ENCODE(avx2, 32, SMALLFRY_AVX2)
SMALLFRY_ENCODE(avx512, 64, SMALLFRY_AVX512)
#endif

template <size_t Group>
Encode pick(Simd level) {
#if SMALLFRY_X86
    if (level == Simd::avx512) return encode_avx512<Group>;
    if (level == Simd::avx2) return encode_avx2<Group>;
#endif
    static_cast<void>(level);
    return encode_plain<Group>;
}

Encode pick_encode(size_t group) {
    const Simd level = simd_level();
    if (group == 2) return pick<2>(level);
    if (group == 4) return pick<4>(level);
    if (group == kMaxGroup) return pick<kMaxGroup>(level);
    throw nb::value_error("the rows of a grouped codebook have 2, 4 or 8 values");
}

void encode_groups(nb::handle x, nb::handle codebook, nb::handle codes, size_t threads) {
    const View values(x, "x", "f"), levels(codebook, "codebook", "f");
    const View packed(codes, "codes", "B", View::Access::write);
    expect_size("number of dimensions of x", values.ndim(), 2);
    expect_size("number of dimensions of codebook", levels.ndim(), 2);
    expect_size("rows of codebook", levels.shape(0), kCentroids);
    const size_t rows = values.shape(0), dim = values.shape(1), group = levels.shape(1);
    const Encode encode_rows = pick_encode(group);
    if (dim == 0) throw nb::value_error("x has no columns");
    const size_t stride = (dim + group - 1) / group;
    expect_size("size of codes", packed.size(), rows * stride);
    const Codebook book(levels.data<const float>(), group, dim);
    const GilRelease released(values.nbytes());
    parallel_for(rows, threads, [&](size_t begin, size_t end) {
        encode_rows(values.data<const float>() + begin * dim, end - begin, dim, book,
                    packed.data<uint8_t>() + begin * stride);
    });
}

}  // namespace

void bind_codebook(nb::module_ &m) { m.def("encode_groups", &encode_groups); }
