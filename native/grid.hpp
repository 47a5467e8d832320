// Uniform levels: the error of a matrix on a grid, and the codes of its values.
#pragma once
#include <cstddef>
#include <cstdint>

#include "simd.hpp"

// `levels` levels, `step` apart, around 0.
struct Grid {
    double inverse_step, half_step, top;  // top = levels - 1

    Grid(float step, double levels)
        : inverse_step(1 / double{step}), half_step(double{step} / 2), top(levels - 1) {}
};

// Rounding to nearest, or stochastic by seed and position.
struct Rounding {
    bool stochastic;
    uint64_t seed;
};

// Writes the sums over x[0 … n) of (x - level)**2, x * c and c**2 to sums[0 … 3); level = c * half_step,
// rounded to float32.
using GridSums = void (*)(const float *x, size_t n, const Grid &grid, double *sums);

// A block of rows to encode. Rows with zero[row] set get zero bytes.
struct EncodeBlock {
    const float *x;
    const uint8_t *zero;
    size_t rows, dim, stride;
    int nbit;           // 1, 2, 4, 8 or 16
    uint64_t position;  // of the first value in the whole matrix, for stochastic rounding
    uint8_t *codes;     // [rows, stride]
    double *sums;       // [2]: of (x - level)**2 and of x**2
};
using EncodeGrid = void (*)(const EncodeBlock &block, const Grid &grid, const Rounding &rounding);

struct GridKernels {
    GridSums sums;
    EncodeGrid encode;
};

GridKernels pick_grid_kernels(Simd level);
