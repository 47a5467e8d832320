// Rounding to uniform levels and packing: all instruction sets give the same bytes and sums, nothing is
// written outside, and packed codes unpack to themselves.
#include "grid.hpp"

#include <cmath>
#include <vector>

#include "input.hpp"
#include "pack.hpp"
#include "value_set.hpp"

namespace {

struct Encoded {
    std::unique_ptr<uint8_t[]> codes;
    double sums[2], grid_sums[3];
};

bool same_sums(const double *a, const double *b, size_t count) {
    for (size_t i = 0; i < count; ++i)
        if (!(a[i] == b[i] || (std::isnan(a[i]) && std::isnan(b[i])))) return false;
    return true;
}

void check_values(const float *x, size_t count, size_t limit) {
    ValueSet set(limit);
    for (size_t i = 0; i < count; ++i)
        if (!set.add(x[i])) return;
    set.sort();
    for (size_t i = 0; i < count; ++i) {
        uint16_t position = 0;
        expect(set.position(x[i], position), "a value that was added is in the set");
        expect(set.values()[position] == x[i], "a value is at its position");
    }
}

void check_packing(const uint16_t *codes, size_t count, int nbit) {
    auto packed = std::unique_ptr<uint8_t[]>(new uint8_t[packed_size(count, nbit) + kWindowPadding]());
    auto unpacked = std::unique_ptr<uint16_t[]>(new uint16_t[count]);
    pack_codes(codes, count, nbit, packed.get());
    each_window(packed.get(), count, nbit, nbit,
                [&](size_t j, uint32_t code) { unpacked[j] = static_cast<uint16_t>(code); });
    expect(std::equal(codes, codes + count, unpacked.get()), "packed codes unpack to themselves");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static constexpr int kBits[] = {1, 2, 3, 4, 8, 16};
    Input input(data, size);
    const int nbit = kBits[input.take<uint8_t>() % 6];
    const Rounding rounding{(input.take<uint8_t>() & 1) != 0, input.take<uint64_t>()};
    const size_t dim = input.take_size(1, 40), rows = input.take_size(1, 6);
    const float step = std::abs(input.take<float>());
    const size_t limit = input.take_size(1, 40);
    auto x = input.take_array<float>(rows * dim);
    // Finite values, as `scan` ensures, and a step that the clip search can return.
    for (size_t i = 0; i < rows * dim; ++i)
        if (!std::isfinite(x[i])) return 0;
    if (!std::isnormal(step)) return 0;
    auto zero = input.take_array<uint8_t>(rows);
    for (size_t i = 0; i < rows; ++i) zero[i] &= 1;

    check_values(x.get(), rows * dim, limit);
    auto codes = std::unique_ptr<uint16_t[]>(new uint16_t[rows * dim]);
    for (size_t i = 0; i < rows * dim; ++i) {
        uint32_t bits;
        std::memcpy(&bits, &x[i], sizeof bits);
        codes[i] = static_cast<uint16_t>(bits & ((1u << nbit) - 1));
    }
    check_packing(codes.get(), rows * dim, nbit);
    if (nbit == 3) return 0;  // not of a grid

    const Grid grid(step, static_cast<double>(1 << nbit));
    const size_t stride = packed_size(dim, nbit);
    std::vector<Encoded> encoded;
    for (Simd level : {Simd::scalar, Simd::avx2, Simd::avx512}) {
        if (level > simd_level()) break;
        const GridKernels kernels = pick_grid_kernels(level);
        Encoded now{std::unique_ptr<uint8_t[]>(new uint8_t[rows * stride]), {}, {}};
        kernels.encode({x.get(), zero.get(), rows, dim, stride, nbit, 0, now.codes.get(), now.sums}, grid,
                       rounding);
        kernels.sums(x.get(), rows * dim, grid, now.grid_sums);
        encoded.push_back(std::move(now));
    }
    for (const Encoded &other : encoded) {
        expect(std::equal(other.codes.get(), other.codes.get() + rows * stride, encoded[0].codes.get()),
               "equal codes");
        expect(same_sums(other.sums, encoded[0].sums, 2), "equal sums");
        expect(same_sums(other.grid_sums, encoded[0].grid_sums, 3), "equal sums over the grid");
    }
    return 0;
}
