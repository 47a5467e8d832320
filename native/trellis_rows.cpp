// Rows of trellis codes: value j is codebook[window j] * column_scale[j].
#include "pack.hpp"
#include "rows.hpp"

namespace {

void windows_plain(const RowLayout &t, Sources sources, size_t n, float *out) {
    for (size_t i = 0; i < n; ++i, out += t.dim) {
        prefetch_row(t, sources[i + kRowsAhead]);
        each_window(sources[i], t.dim, t.nbit, t.window,
                    [&](size_t j, uint32_t window) { out[j] = t.codebook[window] * t.column_scale[j]; });
    }
}

}  // namespace

DecodeRows pick_trellis_rows(const RowLayout &, Simd) { return windows_plain; }
