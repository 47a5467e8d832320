// The lengths of rows, and rows divided by them.
#include <nanobind/nanobind.h>

#include <algorithm>
#include <cstring>

#include "bindings.hpp"
#include "gil.hpp"
#include "lanes.hpp"
#include "parallel.hpp"
#include "simd.hpp"
#include "view.hpp"

namespace nb = nanobind;

namespace {

using Access = View::Access;

// The sum of the squares of x[0 … n), or of x - y, which is rounded to float32.
template <size_t kWidth, bool kDifference>
SMALLFRY_INLINE double squared_norm(const float *x, const float *y, size_t n) {
    using Floats = typename Vector<kWidth>::Floats;
    using Doubles = typename Vector<kWidth>::Doubles;
    LaneSum<kWidth> sum;
    const auto add = [&](const float *a, const float *b, size_t part) {
        Floats values, others;
        std::memcpy(&values, a + part * kWidth, sizeof values);
        if (kDifference) {
            std::memcpy(&others, b + part * kWidth, sizeof others);
            values -= others;
        }
        const Doubles wide = __builtin_convertvector(values, Doubles);
        sum.add(part, wide * wide);
    };
    const size_t whole = n / kLanes * kLanes, rest = n - whole;
    for (size_t at = 0; at < whole; at += kLanes)
        for (size_t part = 0; part < kLanes / kWidth; ++part) add(x + at, kDifference ? y + at : y, part);
    if (rest) {
        float padded[2][kLanes] = {};
        std::memcpy(padded[0], x + whole, rest * sizeof(float));
        if (kDifference) std::memcpy(padded[1], y + whole, rest * sizeof(float));
        for (size_t part = 0; part < kLanes / kWidth; ++part) add(padded[0], padded[1], part);
    }
    return sum.total();
}

template <size_t kWidth>
SMALLFRY_INLINE void squared_norm_rows(const float *x, const float *y, size_t rows, size_t dim, double *out) {
    for (size_t row = 0; row < rows; ++row)
        out[row] = y ? squared_norm<kWidth, true>(x + row * dim, y + row * dim, dim)
                     : squared_norm<kWidth, false>(x + row * dim, nullptr, dim);
}

// Divides in double, and rounds to float32.
SMALLFRY_INLINE void divide(const float *x, const double *divisors, size_t rows, size_t dim, float *out) {
    for (size_t row = 0; row < rows; ++row) {
        const double divisor = divisors[row];
        for (size_t i = 0; i < dim; ++i)
            out[row * dim + i] = static_cast<float>(static_cast<double>(x[row * dim + i]) / divisor);
    }
}

// Instantiates the kernels for an instruction set, in vectors of `width` doubles.
#define SMALLFRY_NORM_KERNELS(name, width, target)                                                           \
    target void squared_norms_##name(const float *x, const float *y, size_t rows, size_t dim, double *out) { \
        squared_norm_rows<width>(x, y, rows, dim, out);                                                      \
    }                                                                                                        \
    target void divide_##name(const float *x, const double *divisors, size_t rows, size_t dim, float *out) { \
        divide(x, divisors, rows, dim, out);                                                                 \
    }

SMALLFRY_NORM_KERNELS(scalar, 2, )
#if SMALLFRY_X86
SMALLFRY_NORM_KERNELS(avx2, 4, SMALLFRY_AVX2)
SMALLFRY_NORM_KERNELS(avx512, 8, SMALLFRY_AVX512)
#endif

struct NormKernels {
    decltype(&squared_norms_scalar) squared_norms;
    decltype(&divide_scalar) divide;
};

NormKernels pick_kernels(Simd level) {
#if SMALLFRY_X86
    if (level == Simd::avx512) return {squared_norms_avx512, divide_avx512};
    if (level == Simd::avx2) return {squared_norms_avx2, divide_avx2};
#endif
    static_cast<void>(level);
    return {squared_norms_scalar, divide_scalar};
}

void squared_norms(nb::handle values, nb::handle others, nb::handle norms, size_t threads) {
    const View x(values, "x", "f"), out(norms, "out", "d", Access::write);
    const View y = others.is_none() ? View() : View(others, "other", "f");
    expect_size("number of dimensions of x", x.ndim(), 2);
    const size_t rows = x.shape(0), dim = x.shape(1);
    if (y) expect_size("size of other", y.size(), x.size());
    expect_size("size of out", out.size(), rows);
    const auto kernel = pick_kernels(simd_level()).squared_norms;
    const GilRelease released(x.nbytes());
    parallel_for(rows, useful_threads(threads, x.nbytes()), [&](size_t begin, size_t end) {
        kernel(x.data<const float>() + begin * dim, y ? y.data<const float>() + begin * dim : nullptr,
               end - begin, dim, out.data<double>() + begin);
    });
}

void divide_rows(nb::handle values, nb::handle divisors, nb::handle quotients, size_t threads) {
    const View x(values, "x", "f"), by(divisors, "divisors", "d"), out(quotients, "out", "f", Access::write);
    expect_size("number of dimensions of x", x.ndim(), 2);
    const size_t rows = x.shape(0), dim = x.shape(1);
    expect_size("size of divisors", by.size(), rows);
    expect_size("size of out", out.size(), x.size());
    const auto kernel = pick_kernels(simd_level()).divide;
    const GilRelease released(x.nbytes());
    parallel_for(rows, useful_threads(threads, x.nbytes()), [&](size_t begin, size_t end) {
        kernel(x.data<const float>() + begin * dim, by.data<const double>() + begin, end - begin, dim,
               out.data<float>() + begin * dim);
    });
}

}  // namespace

void bind_norms(nb::module_ &m) {
    m.def("squared_norms", &squared_norms, nb::arg(), nb::arg().none(), nb::arg(), nb::arg());
    m.def("divide_rows", &divide_rows);
}
