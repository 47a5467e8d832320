// Scans and encodes matrices, and computes the sums of the clip search.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <mutex>
#include <optional>
#include <vector>

#include "bindings.hpp"
#include "buffer.hpp"
#include "gil.hpp"
#include "grid.hpp"
#include "pack.hpp"
#include "parallel.hpp"
#include "value_set.hpp"
#include "view.hpp"

namespace nb = nanobind;

namespace {

using Access = View::Access;

constexpr uint32_t kInfinity = 0x7f800000;
constexpr int kLowBits = 15;  // of a magnitude, below those that number its bin
constexpr uint32_t kLowMask = (1u << kLowBits) - 1;
constexpr size_t kBins = 1 << 16;          // of the histogram
constexpr size_t kScanStep = 1 << 20;      // values added to a histogram at a time
constexpr size_t kPackedValues = 1 << 24;  // capacity of the packed histogram

// A float32 matrix.
struct Matrix {
    View view;
    size_t rows, dim;

    explicit Matrix(nb::handle x) : view(x, "x", "f") {
        expect_size("number of dimensions of x", view.ndim(), 2);
        rows = view.shape(0);
        dim = view.shape(1);
        if (dim == 0) throw nb::value_error("x has no columns");
    }
    const float *data() const { return view.data<const float>(); }
};

// The flags of the zero rows of a matrix.
View zero_flags(nb::handle zero, const Matrix &x, Access access = Access::read) {
    View flags(zero, "zero", "B", access);
    expect_size("size of zero", flags.size(), x.rows);
    return flags;
}

int checked_nbit(int nbit) {
    if ((nbit < 1 || nbit > 4) && nbit != 8 && nbit != 16)
        throw nb::value_error("nbit is not 1, 2, 3, 4, 8 or 16");
    return nbit;
}

View packed_codes(nb::handle codes, size_t rows, size_t dim, int nbit) {
    if (nbit == 3) throw nb::value_error("nbit is 3, which only trellis codes have");
    View view(codes, "codes", "B", Access::write);
    expect_size("size of codes", view.size(), rows * packed_size(dim, checked_nbit(nbit)));
    return view;
}

// The histogram of all threads.
struct Totals {
    int64_t *counts, *lows;
    std::mutex mutex;
};

// The histogram of one thread: each word packs the count of the values that share the upper bits of their
// magnitude, and the sum of their lower bits.
class Histogram {
  public:
    Histogram() : bins_(kBins) {}

    // Adds n <= kScanStep values and returns the largest magnitude.
    uint32_t add(const float *values, size_t n, Totals &totals) {
        if (held_ + n >= kPackedValues) flush(totals);
        held_ += n;
        uint32_t peak = 0;
        for (size_t i = 0; i < n; ++i) {
            uint32_t magnitude;
            std::memcpy(&magnitude, values + i, sizeof magnitude);
            magnitude &= 0x7fffffffu;
            peak = std::max(peak, magnitude);
            bins_[magnitude >> kLowBits] += (uint64_t{1} << kSumBits) | (magnitude & kLowMask);
        }
        return peak;
    }

    void flush(Totals &totals) {
        const std::lock_guard<std::mutex> lock(totals.mutex);
        for (size_t bin = 0; bin < kBins; ++bin) {
            totals.counts[bin] += static_cast<int64_t>(bins_[bin] >> kSumBits);
            totals.lows[bin] += static_cast<int64_t>(bins_[bin] & ((uint64_t{1} << kSumBits) - 1));
            bins_[bin] = 0;
        }
        held_ = 0;
    }

  private:
    static constexpr int kSumBits = 40;  // holds the lower bits of kPackedValues values

    std::vector<uint64_t> bins_;
    size_t held_ = 0;
};

// Scans rows [begin, end) and returns the largest magnitude.
uint32_t scan_rows(const Matrix &x, size_t begin, size_t end, uint8_t *zero, Histogram &histogram,
                   Totals &totals) {
    uint32_t peak = 0;
    for (size_t row = begin; row < end; ++row) {
        uint32_t row_peak = 0;
        for (size_t at = 0; at < x.dim; at += kScanStep) {
            const size_t n = std::min(kScanStep, x.dim - at);
            row_peak = std::max(row_peak, histogram.add(x.data() + row * x.dim + at, n, totals));
        }
        zero[row] = row_peak == 0;
        peak = std::max(peak, row_peak);
    }
    histogram.flush(totals);
    return peak;
}

nb::tuple scan(nb::handle values, nb::handle zero, nb::handle counts, nb::handle lows, size_t threads) {
    const Matrix x(values);
    const View flags = zero_flags(zero, x, Access::write);
    const View count_view(counts, "counts", "lq", Access::write), low_view(lows, "lows", "lq", Access::write);
    expect_size("size of counts", count_view.size(), kBins);
    expect_size("size of lows", low_view.size(), kBins);
    Totals totals{count_view.data<int64_t>(), low_view.data<int64_t>(), {}};
    threads = useful_threads(threads, x.view.nbytes());
    std::vector<Histogram> histograms(threads);
    std::atomic<size_t> part{0};
    std::atomic<uint32_t> peak{0};
    {
        const GilRelease released(x.view.nbytes());
        parallel_for(x.rows, threads, [&](size_t begin, size_t end) {
            const uint32_t found =
                scan_rows(x, begin, end, flags.data<uint8_t>(), histograms[part++], totals);
            uint32_t known = peak;
            while (known < found && !peak.compare_exchange_weak(known, found)) {
            }
        });
    }
    float largest;
    const uint32_t bits = peak;
    std::memcpy(&largest, &bits, sizeof largest);
    if (bits < kInfinity) return nb::make_tuple(largest, -1);
    const float *end = x.data() + x.rows * x.dim;
    const float *bad = std::find_if(x.data(), end, [](float value) { return !std::isfinite(value); });
    return nb::make_tuple(INFINITY, bad - x.data());
}

void grid_sums(nb::handle values, nb::handle steps, double levels, size_t block_rows, nb::handle sums,
               size_t threads) {
    const Matrix x(values);
    const View step_view(steps, "steps", "f"), to(sums, "sums", "d", Access::write);
    if (block_rows == 0) throw nb::value_error("block_rows is 0");
    const size_t blocks = (x.rows + block_rows - 1) / block_rows, grids = step_view.size();
    expect_size("size of sums", to.size(), blocks * grids * 3);
    const GridSums kernel = pick_grid_kernels(simd_level()).sums;
    const GilRelease released(x.view.nbytes() * grids);
    parallel_for(blocks, threads, [&](size_t begin, size_t end) {
        for (size_t block = begin; block < end; ++block) {
            const size_t row = block * block_rows, rows = std::min(block_rows, x.rows - row);
            for (size_t grid = 0; grid < grids; ++grid)
                kernel(x.data() + row * x.dim, rows * x.dim,
                       Grid(step_view.data<const float>()[grid], levels),
                       to.data<double>() + (block * grids + grid) * 3);
        }
    });
}

void encode_grid(nb::handle values, nb::handle zero, float step, int nbit, size_t block_rows,
                 nb::handle codes, nb::handle sums, std::optional<uint64_t> seed, uint64_t first_row,
                 size_t threads) {
    const Matrix x(values);
    const View flags = zero_flags(zero, x), packed = packed_codes(codes, x.rows, x.dim, nbit);
    const View to(sums, "sums", "d", Access::write);
    if (block_rows == 0) throw nb::value_error("block_rows is 0");
    const size_t blocks = (x.rows + block_rows - 1) / block_rows, stride = packed_size(x.dim, nbit);
    expect_size("size of sums", to.size(), blocks * 2);
    const EncodeGrid kernel = pick_grid_kernels(simd_level()).encode;
    const Grid grid(step, static_cast<double>(1u << nbit));
    const Rounding rounding{seed.has_value(), seed.value_or(0)};
    const GilRelease released(x.view.nbytes());
    parallel_for(blocks, threads, [&](size_t begin, size_t end) {
        for (size_t block = begin; block < end; ++block) {
            const size_t row = block * block_rows;
            kernel({x.data() + row * x.dim, flags.data<const uint8_t>() + row,
                    std::min(block_rows, x.rows - row), x.dim, stride, nbit, (first_row + row) * x.dim,
                    packed.data<uint8_t>() + row * stride, to.data<double>() + block * 2},
                   grid, rounding);
        }
    });
}

bool add_values(ValueSet &set, nb::handle values, nb::handle zero) {
    const Matrix x(values);
    const View flags = zero_flags(zero, x);
    const GilRelease released(x.view.nbytes());
    for (size_t row = 0; row < x.rows; ++row) {
        if (flags.data<const uint8_t>()[row]) continue;
        const float *row_values = x.data() + row * x.dim;
        if (!std::all_of(row_values, row_values + x.dim, [&](float value) { return set.add(value); }))
            return false;
    }
    return true;
}

nb::ndarray<nb::numpy, float> sorted_values(ValueSet &set) {
    set.sort();
    Buffer<float> values;
    values.append(set.values().data(), set.values().size());
    return to_numpy(std::move(values));
}

bool encode_values(const ValueSet &set, nb::handle values, nb::handle zero, int nbit, nb::handle codes,
                   size_t threads) {
    const Matrix x(values);
    const View flags = zero_flags(zero, x), packed = packed_codes(codes, x.rows, x.dim, nbit);
    const size_t stride = packed_size(x.dim, nbit);
    std::atomic<bool> known{true};
    const GilRelease released(x.view.nbytes());
    parallel_for(x.rows, threads, [&](size_t begin, size_t end) {
        for (size_t row = begin; row < end; ++row) {
            uint16_t positions[kPackStep];
            for (size_t at = 0; at < x.dim; at += kPackStep) {
                const size_t n = std::min(kPackStep, x.dim - at);
                for (size_t i = 0; i < n; ++i)
                    if (!set.position(x.data()[row * x.dim + at + i], positions[i])) {
                        positions[i] = 0;
                        if (!flags.data<const uint8_t>()[row]) known = false;
                    }
                pack_codes(positions, n, nbit, packed.data<uint8_t>() + row * stride + at * nbit / 8);
            }
        }
    });
    return known;
}

nb::ndarray<nb::numpy, uint8_t> pack(nb::handle values, int nbit) {
    const View codes(values, "values", "H");
    expect_size("number of dimensions of values", codes.ndim(), 2);
    const size_t rows = codes.shape(0), dim = codes.shape(1), stride = packed_size(dim, checked_nbit(nbit));
    Buffer<uint8_t> packed(rows * stride);
    for (size_t row = 0; row < rows; ++row)
        pack_codes(codes.data<const uint16_t>() + row * dim, dim, nbit, packed.data() + row * stride);
    return to_numpy(std::move(packed), {rows, stride});
}

nb::ndarray<nb::numpy, uint16_t> unpack(nb::handle codes, size_t dim, int nbit, std::optional<int> window) {
    const View packed(codes, "codes", "B");
    expect_size("number of dimensions of codes", packed.ndim(), 2);
    const size_t rows = packed.shape(0), stride = packed_size(dim, checked_nbit(nbit));
    expect_size("bytes of a row of codes", packed.shape(1), stride);
    const int width = window.value_or(nbit);
    if (width < nbit || width > 16 || dim * static_cast<size_t>(nbit) < static_cast<size_t>(width))
        throw nb::value_error("window is out of range");
    Buffer<uint16_t> values(rows * dim);
    std::vector<uint8_t> padded(stride + kWindowPadding);
    for (size_t row = 0; row < rows; ++row) {
        std::memcpy(padded.data(), packed.data<const uint8_t>() + row * stride, stride);
        each_window(padded.data(), dim, nbit, width,
                    [&](size_t j, uint32_t value) { values[row * dim + j] = static_cast<uint16_t>(value); });
    }
    return to_numpy(std::move(values), {rows, dim});
}

}  // namespace

void bind_quantize(nb::module_ &m) {
    m.def("pack", &pack);
    m.def("unpack", &unpack, nb::arg(), nb::arg(), nb::arg(), nb::arg("window").none() = nb::none());
    m.def("scan", &scan);
    m.def("grid_sums", &grid_sums);
    m.def("encode_grid", &encode_grid, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
          nb::arg(), nb::arg().none(), nb::arg(), nb::arg());
    nb::class_<ValueSet>(m, "ValueSet")
        .def(nb::init<size_t>())
        .def("add", &add_values)
        .def("values", &sorted_values)
        .def("encode", &encode_values);
}
