#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "bindings.hpp"
#include "decoder.hpp"
#include "errors.hpp"
#include "gil.hpp"
#include "parallel.hpp"

namespace nb = nanobind;

namespace {

constexpr size_t kBatch = 64;                // rows decoded at a time, which stay in the cache
constexpr size_t kGrain = 4 * kBatch;        // rows of a unit of work
constexpr size_t kScaled = 8;                // rows decoded before they are scaled, in the L1 cache
constexpr size_t kScalesAhead = 24;          // row scales are prefetched this many rows ahead
constexpr size_t kBytesPerThread = 1 << 20;  // of output; smaller work does not pay for a thread

float half_to_float(uint16_t half) {
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
    const uint32_t exponent = half >> 10 & 0x1fu, mantissa = half & 0x3ffu;
    if (exponent == 0) {
        const float value = std::ldexp(static_cast<float>(mantissa), -24);
        return sign ? -value : value;
    }
    const uint32_t bits = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | mantissa << 13;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

View optional(const nb::object &object, const char *name, const char *formats) {
    return object.is_none() ? View() : View(object, name, formats);
}

const float *sized(const View &column_scale, size_t dim) {
    if (column_scale) expect_size("size of column_scale", column_scale.size(), dim);
    return column_scale.data<const float>();
}

// Number of DotLanes that hold a row.
size_t lanes_of(size_t dim) { return (dim + kDotLanes - 1) / kDotLanes; }

View view_ids(nb::handle ids) { return View(ids, "ids", "ilqI"); }

// Where each bag begins and the last one ends, copied so that no other thread can change them. Without
// offsets the bags have equal sizes; without its last offset the last bag ends with the ids.
std::vector<size_t> bag_bounds(const View &offsets, size_t bags, size_t ids) {
    std::vector<size_t> bounds(bags + 1, ids);
    if (!offsets) {
        expect_size("number of ids", ids, bags ? ids / bags * bags : 0);
        for (size_t bag = 0; bag < bags; ++bag) bounds[bag] = ids / bags * bag;
        return bounds;
    }
    if (offsets.size() != bags) expect_size("number of offsets", offsets.size(), bags + 1);
    const Ids values(offsets);
    int64_t previous = 0;
    for (size_t i = 0; i < offsets.size(); ++i) {
        const int64_t offset = values[i];
        if (offset < previous || static_cast<size_t>(offset) > (i ? ids : 0))
            raise_error("InputError", "offsets[" + std::to_string(i) + "] is " + std::to_string(offset) +
                                          ", but offsets must start at 0 and not decrease or exceed the " +
                                          std::to_string(ids) + " ids");
        bounds[i] = static_cast<size_t>(offset);
        previous = offset;
    }
    return bounds;
}

}  // namespace

Decoder::Decoder(nb::handle codes, size_t dim, int nbit, nb::object codebook, nb::object mean,
                 nb::object column_scale, nb::object row_scale, nb::handle zero_rows, nb::object paged_rows)
    : codes_(codes, "codes", nbit == 32 ? "f" : "B"),
      codebook_(optional(codebook, "codebook", "f")),
      mean_(optional(mean, "mean", "f")),
      column_scale_(optional(column_scale, "column_scale", "f")),
      row_scale_(optional(row_scale, "row_scale", "e")),
      zero_rows_(zero_rows, "zero_rows", "I"),
      layout_(dim, nbit, codebook_.data<const float>(), codebook_.size(), sized(column_scale_, dim)) {
    if (!paged_rows.is_none()) throw nb::value_error("paged tables are not decoded yet");
    expect_size("number of dimensions of codes", codes_.ndim(), 2);
    rows_ = codes_.shape(0);
    layout_.distant = rows_ > kCachedBytes / layout_.stride;
    expect_size("bytes of a row of codes", codes_.shape(1) * codes_.itemsize(), layout_.stride);
    if (mean_) expect_size("size of mean", mean_.size(), dim);
    if (row_scale_) expect_size("size of row_scale", row_scale_.size(), rows_);
    decode_rows_ = pick_decode_rows(layout_, simd_level());
    scale_row_ = pick_scale_row(simd_level());
    dot_rows_ = pick_dot_rows(simd_level());

    const size_t copies = std::min(rows_, kRowPadding / layout_.stride + 1);
    first_copied_ = rows_ - copies;
    copied_.resize((copies + 1) * layout_.stride + kRowPadding);
    if (copies)
        std::memcpy(copied_.data(), codes_.data<const uint8_t>() + first_copied_ * layout_.stride,
                    copies * layout_.stride);
}

// The packed bytes of a row, followed by kRowPadding readable bytes; zeros for an id outside the table.
const uint8_t *Decoder::row(int64_t id) const {
    const size_t at = std::min(static_cast<size_t>(id), rows_);
    return at < first_copied_ ? codes_.data<const uint8_t>() + at * layout_.stride
                              : copied_.data() + (at - first_copied_) * layout_.stride;
}

bool Decoder::is_zero(int64_t id) const {
    const uint32_t *begin = zero_rows_.data<const uint32_t>(), *end = begin + zero_rows_.size();
    return begin != end && std::binary_search(begin, end, id);
}

void Decoder::check_ids(const Ids &ids, size_t count, std::optional<int64_t> skip) const {
    const int64_t rows = static_cast<int64_t>(rows_);
    for (size_t i = 0; i < count; ++i) {
        if ((ids[i] >= 0 && ids[i] < rows) || ids[i] == skip) continue;
        std::string message = "row id " + std::to_string(ids[i]) + " is out of range for a table of " +
                              std::to_string(rows_) + " rows";
        throw nb::index_error(message.c_str());
    }
}

// Always inlined: compilers omit calls of functions that only prefetch.
SMALLFRY_INLINE void Decoder::prefetch_scale(const Ids &ids, size_t i, size_t end) const {
    if (row_scale_ && i < end) SMALLFRY_PREFETCH(row_scale_.data<const uint16_t>() + ids[i]);
}

// Applies scale, mean and zeros. Returns false for an id outside the table: ids are checked beforehand, but
// another thread may write to their array.
bool Decoder::finish_row(int64_t id, float *row) const {
    if (id < 0 || static_cast<size_t>(id) >= rows_) return false;
    if (is_zero(id))
        std::fill_n(row, layout_.dim, 0.0f);
    else if (row_scale_ || mean_)
        scale_row_(row_scale_ ? half_to_float(row_scale_.data<const uint16_t>()[id]) : 1.0f,
                   mean_.data<const float>(), layout_.dim, row);
    return true;
}

// Writes row ids[begin] to the start of `out`.
void Decoder::decode_part(const Ids &ids, size_t begin, size_t end, const float *fill, float *out) const {
    const uint8_t *sources[kBatch + kRowsAhead];
    const bool finish = fill || row_scale_ || mean_ || zero_rows_.size();
    const size_t step = row_scale_ || mean_ ? kScaled : kBatch;
    for (size_t at = begin; at < end; at += kBatch) {
        const size_t n = std::min(kBatch, end - at);
        for (size_t i = 0; i < n + kRowsAhead; ++i) sources[i] = row(at + i < end ? ids[at + i] : -1);
        float *to = out + (at - begin) * layout_.dim;
        for (size_t i = 0; i < n; ++i, to += layout_.dim) {
            prefetch_scale(ids, at + i + kScalesAhead, end);
            if (i % step == 0) decode_rows_(layout_, sources + i, std::min(step, n - i), to);
            if (finish && !finish_row(ids[at + i], to) && fill) std::copy_n(fill, layout_.dim, to);
        }
    }
}

void Decoder::decode(nb::object ids, nb::handle out, nb::object fill, size_t threads) const {
    const View id_view = ids.is_none() ? View() : view_ids(ids);
    const View to(out, "out", "f", View::Access::write);
    const View fill_row = optional(fill, "fill", "f");
    const size_t count = id_view ? id_view.size() : rows_;
    expect_size("size of out", to.size(), count * layout_.dim);
    if (fill_row) expect_size("size of fill", fill_row.size(), layout_.dim);
    const Ids rows = id_view ? Ids(id_view) : Ids();
    if (id_view) check_ids(rows, count, fill_row ? std::optional<int64_t>(-1) : std::nullopt);
    const GilRelease released(to.nbytes());
    threads = std::min(threads, to.nbytes() / kBytesPerThread);
    parallel_grains(count, kGrain, threads, [&](size_t begin, size_t end) {
        decode_part(rows, begin, end, fill_row.data<const float>(), to.data<float>() + begin * layout_.dim);
    });
}

void Decoder::gather_codes(nb::handle ids, nb::handle out) const {
    const View id_view = view_ids(ids);
    const View to(out, "out", "B", View::Access::write);
    const size_t count = id_view.size(), stride = layout_.stride;
    expect_size("size of out", to.size(), count * stride);
    const Ids rows(id_view);
    check_ids(rows, count, -1);
    const GilRelease released(to.nbytes());
    for (size_t i = 0; i < count; ++i) {
        if (i + kRowsAhead < count) SMALLFRY_PREFETCH(row(rows[i + kRowsAhead]));
        std::memcpy(to.data<uint8_t>() + i * stride, row(rows[i]), stride);
    }
}

void Decoder::pool_bag(const Bags &bags, size_t bag, float *scratch, float *out) const {
    const size_t dim = layout_.dim, begin = bags.offsets[bag], end = bags.offsets[bag + 1];
    std::fill_n(out, dim, 0.0f);
    size_t kept = 0;
    const uint8_t *sources[kBatch + kRowsAhead];
    for (size_t i = begin; i < end; ++i) {
        const size_t at = (i - begin) % kBatch;
        if (at == 0)  // also prefetches rows of the next bags
            for (size_t k = 0; k < std::min(kBatch, end - i) + kRowsAhead; ++k)
                sources[k] = row(i + k < bags.offsets.back() ? bags.ids[i + k] : -1);
        prefetch_scale(bags.ids, i + kScalesAhead, bags.offsets.back());
        const int64_t id = bags.ids[i];
        if (id == bags.skip) continue;
        decode_rows_(layout_, sources + at, 1, scratch);
        finish_row(id, scratch);
        if (bags.pool == Pool::max && kept)
            for (size_t j = 0; j < dim; ++j) out[j] = out[j] < scratch[j] ? scratch[j] : out[j];
        else if (bags.pool == Pool::max)
            std::copy_n(scratch, dim, out);
        else if (bags.weights)
            for (size_t j = 0; j < dim; ++j) out[j] += scratch[j] * bags.weights[i];
        else
            for (size_t j = 0; j < dim; ++j) out[j] += scratch[j];
        ++kept;
    }
    if (bags.pool == Pool::mean && kept)
        for (size_t j = 0; j < dim; ++j) out[j] /= static_cast<float>(kept);
}

void Decoder::bag(nb::handle ids, nb::object offsets, nb::object weights, const std::string &mode,
                  std::optional<int64_t> skip, nb::handle out, size_t threads) const {
    const View id_view = view_ids(ids), starts = optional(offsets, "offsets", "ilq");
    const View factors = optional(weights, "weights", "f"), to(out, "out", "f", View::Access::write);
    const size_t dim = layout_.dim, count = to.size() / dim;
    expect_size("size of out", to.size(), count * dim);
    const Bags bags{Ids(id_view), skip, bag_bounds(starts, count, id_view.size()),
                    factors.data<const float>(),
                    mode == "max"    ? Pool::max
                    : mode == "mean" ? Pool::mean
                                     : Pool::sum};
    if (factors) expect_size("size of weights", factors.size(), id_view.size());
    check_ids(bags.ids, bags.offsets.back(), skip);

    const size_t decoded = bags.offsets.back() * dim * sizeof(float);
    threads = std::max<size_t>(1, std::min(threads, decoded / kBytesPerThread));
    std::vector<float> scratch(threads * dim);
    std::atomic<size_t> part{0};
    const GilRelease released(decoded);
    parallel_for(count, threads, [&](size_t begin, size_t end) {
        float *row = scratch.data() + part++ * dim;
        for (size_t bag = begin; bag < end; ++bag) pool_bag(bags, bag, row, to.data<float>() + bag * dim);
    });
}

// Multiplies rows [begin, end) by the padded inputs; `scratch` holds kDotRows padded rows.
void Decoder::multiply_part(size_t begin, size_t end, const float *inputs, size_t count, float *scratch,
                            float *out) const {
    const size_t padded = lanes_of(layout_.dim) * kDotLanes;
    const uint8_t *sources[kDotRows + kRowsAhead];
    for (size_t at = begin; at < end; at += kDotRows) {
        for (size_t i = 0; i < kDotRows + kRowsAhead; ++i) sources[i] = row(static_cast<int64_t>(at + i));
        for (size_t i = 0; i < kDotRows; ++i) {
            decode_rows_(layout_, sources + i, 1, scratch + i * padded);
            finish_row(static_cast<int64_t>(at + i), scratch + i * padded);
        }
        dot_rows_(scratch, std::min(kDotRows, end - at), inputs, count, padded, out + at, rows_);
    }
}

void Decoder::multiply(nb::handle inputs, nb::handle out, size_t threads) const {
    const View from(inputs, "inputs", "f"), to(out, "out", "f", View::Access::write);
    const size_t dim = layout_.dim, lanes = lanes_of(dim), count = from.size() / dim;
    expect_size("size of inputs", from.size(), count * dim);
    expect_size("size of out", to.size(), count * rows_);
    if (count == 0) return;
    const size_t decoded = rows_ * dim * sizeof(float);
    threads = std::max<size_t>(1, std::min({threads, decoded / kBytesPerThread, rows_ / kGrain}));
    std::vector<DotLanes> factors(count * lanes), scratch(threads * kDotRows * lanes);
    for (size_t i = 0; i < count; ++i)
        std::copy_n(from.data<float>() + i * dim, dim, factors[i * lanes].values);
    std::atomic<size_t> next{0};
    const GilRelease released(decoded);
    parallel_for(threads, threads, [&](size_t thread, size_t) {
        for (size_t begin; (begin = next.fetch_add(kGrain, std::memory_order_relaxed)) < rows_;)
            multiply_part(begin, std::min(begin + kGrain, rows_), factors.data()->values, count,
                          scratch[thread * kDotRows * lanes].values, to.data<float>());
    });
}

void bind_decode(nb::module_ &m) {
    nb::class_<Decoder>(m, "Decoder")
        .def(nb::init<nb::handle, size_t, int, nb::object, nb::object, nb::object, nb::object, nb::handle,
                      nb::object>(),
             nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg().none(), nb::arg().none(),
             nb::arg().none(), nb::arg(), nb::arg().none())
        .def_prop_ro("rows", &Decoder::rows)
        .def("decode", &Decoder::decode, nb::arg().none(), nb::arg(), nb::arg().none(), nb::arg())
        .def("gather_codes", &Decoder::gather_codes)
        .def("bag", &Decoder::bag, nb::arg(), nb::arg().none(), nb::arg().none(), nb::arg(), nb::arg().none(),
             nb::arg(), nb::arg())
        .def("multiply", &Decoder::multiply);
    m.def("simd", [] { return simd_name(simd_level()); });
}
