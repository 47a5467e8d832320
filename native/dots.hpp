// Dot products of float32 rows, with the same bits on every instruction set.
#pragma once
#include <cstddef>

#include "simd.hpp"

// Term i of a product is added to lane i modulo kDotLanes; the lanes are added up as a tree.
constexpr size_t kDotLanes = 16;
// Vectors of these begin at cache lines.
struct alignas(kDotLanes * sizeof(float)) DotLanes {
    float values[kDotLanes];
};
// Rows multiplied at a time.
constexpr size_t kDotRows = 4;

// Writes the product of input i and row j to out[i * stride + j], for i < inputs and j < rows <= kDotRows.
// There are kDotRows readable rows. Rows and inputs have `dim` values, a multiple of kDotLanes.
using DotRows = void (*)(const float *rows, size_t row_count, const float *inputs, size_t input_count,
                         size_t dim, float *out, size_t stride);

DotRows pick_dot_rows(Simd level);
