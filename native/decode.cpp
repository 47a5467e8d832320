#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "array.hpp"
#include "bindings.hpp"
#include "buffer.hpp"
#include "decoder.hpp"
#include "errors.hpp"
#include "gil.hpp"
#include "parallel.hpp"

namespace nb = nanobind;

namespace {

constexpr size_t kGrain = 256;  // rows of a unit of work

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

Ids ids_of(const View &view) {
    const bool is_unsigned = view.format() == 'I';
    return Ids(view.data<const void>(), view.itemsize() == 8 ? Ids::Type::int64
                                        : is_unsigned        ? Ids::Type::uint32
                                                             : Ids::Type::int32);
}

Ids::Type id_type(const Array &ids) {
    if (ids.dtype() == nb::dtype<int64_t>()) return Ids::Type::int64;
    if (ids.dtype() != nb::dtype<int32_t>())
        raise_error("InputError", "ids are " + ids.describe() + ", expected int32 or int64");
    return Ids::Type::int32;
}

// Row numbers, or ids that are local to the heads between `offsets`.
Ids local_ids(const Array &ids, const View &offsets) {
    const size_t heads = offsets ? offsets.size() - 1 : 1;
    if (offsets &&
        (offsets.size() < 2 || ids.shape().empty() || ids.shape().back() != static_cast<int64_t>(heads)))
        raise_error("InputError", "ids are " + ids.describe() + ", expected [..., " + std::to_string(heads) +
                                      "]: the last axis of ids is the head");
    return Ids(ids.data(), id_type(ids), offsets.data<const uint64_t>(), heads);
}

Dtype dtype_of(const Array &out) {
    const nb::dlpack::dtype dtype = out.dtype();
    const auto is = [&](nb::dlpack::dtype_code code, int bits) {
        return dtype.code == static_cast<uint8_t>(code) && dtype.bits == bits && dtype.lanes == 1;
    };
    if (is(nb::dlpack::dtype_code::Float, 32)) return Dtype::float32;
    if (is(nb::dlpack::dtype_code::Float, 16)) return Dtype::float16;
    if (!is(nb::dlpack::dtype_code::Bfloat, 16) && !is(nb::dlpack::dtype_code::UInt, 16))
        raise_error("InputError", "out is " + out.describe() +
                                      ", expected float32, float16 or bfloat16 (or its bits, uint16)");
    return Dtype::bfloat16;
}

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
    const Ids values = ids_of(offsets);
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
                 nb::object column_scale, nb::object row_scale, nb::handle zero_rows,
                 std::optional<size_t> paged_rows)
    : codes_(codes, "codes", nbit == 32 ? "f" : "B"),
      codebook_(optional(codebook, "codebook", "f")),
      mean_(optional(mean, "mean", "f")),
      column_scale_(optional(column_scale, "column_scale", "f")),
      row_scale_(optional(row_scale, "row_scale", "e")),
      zero_rows_(zero_rows, "zero_rows", "I"),
      table_(arrays(dim, nbit, paged_rows),
             RowLayout(dim, nbit, codebook_.data<const float>(), codebook_.size(), sized(column_scale_, dim)),
             simd_level()),
      dot_rows_(pick_dot_rows(simd_level())) {}

// The arrays of the views, whose sizes are checked.
PackedArrays Decoder::arrays(size_t dim, int nbit, std::optional<size_t> paged_rows) const {
    expect_size("number of dimensions of codes", codes_.ndim(), 2);
    const size_t stride = (dim * static_cast<size_t>(nbit) + 7) / 8;
    const RecordLayout records(stride, paged_rows.has_value());
    const size_t rows = paged_rows.value_or(codes_.shape(0));
    expect_size("number of blocks of codes", codes_.shape(0), records.blocks(rows));
    expect_size(paged_rows ? "bytes of a block of codes" : "bytes of a row of codes",
                codes_.shape(1) * codes_.itemsize(), records.block());
    if (mean_) expect_size("size of mean", mean_.size(), dim);
    if (row_scale_) expect_size("size of row_scale", row_scale_.size(), paged_rows ? 0 : rows);
    if (paged_rows) expect_size("size of zero_rows of a paged table", zero_rows_.size(), 0);
    return {codes_.data<const uint8_t>(),
            rows,
            paged_rows.has_value(),
            mean_.data<const float>(),
            row_scale_.data<const uint16_t>(),
            zero_rows_.data<const uint32_t>(),
            zero_rows_.size()};
}

void Decoder::check_ids(const Ids &ids, size_t count, std::optional<int64_t> skip) const {
    const int64_t rows = static_cast<int64_t>(table_.rows());
    for (size_t i = 0; i < count; ++i) {
        if ((ids[i] >= 0 && ids[i] < rows) || ids[i] == skip) continue;
        throw nb::index_error(table_.describe_invalid(ids, i).c_str());
    }
}

void Decoder::decode(nb::object ids, nb::handle out, nb::object fill, size_t threads) const {
    const View id_view = ids.is_none() ? View() : view_ids(ids);
    const View to(out, "out", "f", View::Access::write);
    const View fill_row = optional(fill, "fill", "f");
    const size_t count = id_view ? id_view.size() : table_.rows();
    expect_size("size of out", to.size(), count * table_.dim());
    if (fill_row) expect_size("size of fill", fill_row.size(), table_.dim());
    const Ids rows = id_view ? ids_of(id_view) : Ids();
    if (id_view) check_ids(rows, count, fill_row ? std::optional<int64_t>(-1) : std::nullopt);
    const GilRelease released(to.nbytes());
    table_.gather(rows, count, Dtype::float32, to.data<float>(), threads, fill_row.data<const float>());
}

void Decoder::gather(nb::handle ids, nb::handle out, nb::object head_offsets, size_t threads) const {
    const Array from(ids, "ids", Array::Access::read), to(out, "out", Array::Access::write);
    const Dtype dtype = dtype_of(to);
    gather_rows(from, to, head_offsets, table_.dim(), itemsize(dtype), [&](const Ids &rows, size_t count) {
        table_.gather(rows, count, dtype, to.data(), threads);
    });
}

void Decoder::gather_records(nb::handle ids, nb::handle out, nb::object head_offsets, size_t threads) const {
    const Array from(ids, "ids", Array::Access::read), to(out, "out", Array::Access::write);
    if (to.dtype() != nb::dtype<uint8_t>())
        raise_error("InputError", "out is " + to.describe() + ", expected uint8");
    gather_rows(from, to, head_offsets, table_.record(), 1, [&](const Ids &rows, size_t count) {
        table_.gather_records(rows, count, static_cast<uint8_t *>(to.data()), threads);
    });
}

// Calls `write` without the GIL for the rows that `from` stands for, each of `width` items of `to`.
template <class Write>
void Decoder::gather_rows(const Array &from, const Array &to, nb::object head_offsets, size_t width,
                          size_t itemsize, Write write) const {
    std::vector<int64_t> shape = from.shape();
    shape.push_back(static_cast<int64_t>(width));
    if (to.shape() != shape)
        raise_error("InputError", "out is " + to.describe() + ", expected shape " + describe_shape(shape));
    if (from.overlaps(to)) raise_error("InputError", "ids and out share memory, expected separate arrays");
    const View offsets = optional(head_offsets, "head_offsets", "LQ");
    const Ids rows = local_ids(from, offsets);
    const size_t count = from.size();
    size_t invalid;
    {
        const GilRelease released(count * width * itemsize);
        invalid = table_.find_invalid(rows, count);
        if (invalid == count) write(rows, count);
    }
    if (invalid < count) throw nb::index_error(table_.describe_invalid(rows, invalid).c_str());
}

nb::ndarray<nb::numpy, uint64_t> Decoder::prefetch(nb::handle ids, nb::object head_offsets) const {
    const Array from(ids, "ids", Array::Access::read);
    const View offsets = optional(head_offsets, "head_offsets", "LQ");
    const Ids rows = local_ids(from, offsets);
    const size_t count = from.size();
    size_t invalid;
    Buffer<uint64_t> ranges;
    {
        const nb::gil_scoped_release released;
        invalid = table_.find_invalid(rows, count);
        for (const PageRange &range : table_.read_ahead(rows, invalid == count ? count : 0)) {
            ranges.push(range.begin);
            ranges.push(range.bytes);
        }
    }
    if (invalid < count) throw nb::index_error(table_.describe_invalid(rows, invalid).c_str());
    const size_t size = ranges.size() / 2;
    return to_numpy(std::move(ranges), {size, 2});
}

void Decoder::gather_codes(nb::handle ids, nb::handle out) const {
    const View id_view = view_ids(ids);
    const View to(out, "out", "B", View::Access::write);
    const size_t count = id_view.size(), stride = table_.stride();
    expect_size("size of out", to.size(), count * stride);
    const Ids rows = ids_of(id_view);
    check_ids(rows, count, -1);
    const GilRelease released(to.nbytes());
    copy_codes(rows, count, to.data<uint8_t>());
}

// See smallfry.kernels.numpy.decode.Decoder.gather_known.
nb::object Decoder::gather_known(nb::handle ids) const {
    const View id_view = view_ids(ids);
    const size_t count = id_view.size(), nbytes = count * table_.stride();
    const Ids rows = ids_of(id_view);
    check_ids(rows, count, -1);
    for (size_t i = 0; i < count; ++i)
        if (table_.is_zero(rows[i], table_.row(rows[i]))) return nb::none();
    nb::object bytes = nb::steal(PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(nbytes + count)));
    if (!bytes.is_valid()) throw nb::python_error();
    auto *out = reinterpret_cast<uint8_t *>(PyBytes_AsString(bytes.ptr()));
    const GilRelease released(nbytes);
    copy_codes(rows, count, out);
    std::memset(out + nbytes, 1, count);
    return bytes;
}

void Decoder::copy_codes(const Ids &rows, size_t count, uint8_t *out) const {
    const size_t stride = table_.stride();
    for (size_t i = 0; i < count; ++i) {
        if (i + kRowsAhead < count) table_.prefetch(rows[i + kRowsAhead]);
        std::memcpy(out + i * stride, table_.row(rows[i]), stride);
    }
}

void Decoder::pool_bag(const Bags &bags, size_t bag, float *scratch, float *out) const {
    const size_t dim = table_.dim(), begin = bags.offsets[bag], end = bags.offsets[bag + 1];
    std::fill_n(out, dim, 0.0f);
    size_t kept = 0;
    for (size_t i = begin; i < end; ++i) {
        if (i + kRowsAhead < bags.offsets.back()) table_.prefetch(bags.ids[i + kRowsAhead]);
        const int64_t id = bags.ids[i];
        if (id == bags.skip) continue;
        table_.decode_row(id, scratch);
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
    const size_t dim = table_.dim(), count = to.size() / dim;
    expect_size("size of out", to.size(), count * dim);
    const Bags bags{ids_of(id_view), skip, bag_bounds(starts, count, id_view.size()),
                    factors.data<const float>(),
                    mode == "max"    ? Pool::max
                    : mode == "mean" ? Pool::mean
                                     : Pool::sum};
    if (factors) expect_size("size of weights", factors.size(), id_view.size());
    check_ids(bags.ids, bags.offsets.back(), skip);

    const size_t decoded = bags.offsets.back() * dim * sizeof(float);
    threads = useful_threads(threads, decoded);
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
    const size_t padded = lanes_of(table_.dim()) * kDotLanes;
    for (size_t at = begin; at < end; at += kDotRows) {
        for (size_t i = 0; i < kDotRows; ++i)
            table_.decode_row(static_cast<int64_t>(at + i), scratch + i * padded);
        dot_rows_(scratch, std::min(kDotRows, end - at), inputs, count, padded, out + at, table_.rows());
    }
}

void Decoder::multiply(nb::handle inputs, nb::handle out, size_t threads) const {
    const View from(inputs, "inputs", "f"), to(out, "out", "f", View::Access::write);
    const size_t dim = table_.dim(), rows = table_.rows(), lanes = lanes_of(dim), count = from.size() / dim;
    expect_size("size of inputs", from.size(), count * dim);
    expect_size("size of out", to.size(), count * rows);
    if (count == 0) return;
    const size_t decoded = rows * dim * sizeof(float);
    threads = useful_threads(threads, decoded);
    std::vector<DotLanes> factors(count * lanes), scratch(threads * kDotRows * lanes);
    for (size_t i = 0; i < count; ++i)
        std::copy_n(from.data<float>() + i * dim, dim, factors[i * lanes].values);
    const GilRelease released(decoded);
    parallel_grains(rows, kGrain, threads, [&](size_t thread, size_t begin, size_t end) {
        multiply_part(begin, end, factors.data()->values, count, scratch[thread * kDotRows * lanes].values,
                      to.data<float>());
    });
}

void bind_decode(nb::module_ &m) {
    nb::class_<Decoder>(m, "Decoder")
        .def(nb::init<nb::handle, size_t, int, nb::object, nb::object, nb::object, nb::object, nb::handle,
                      std::optional<size_t>>(),
             nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg().none(), nb::arg().none(),
             nb::arg().none(), nb::arg(), nb::arg().none())
        .def_prop_ro("rows", [](const Decoder &decoder) { return decoder.table().rows(); })
        .def("decode", &Decoder::decode, nb::arg().none(), nb::arg(), nb::arg().none(), nb::arg())
        .def("gather", &Decoder::gather, nb::arg(), nb::arg(), nb::arg().none(), nb::arg())
        .def("prefetch", &Decoder::prefetch, nb::arg(), nb::arg().none())
        .def("gather_records", &Decoder::gather_records, nb::arg(), nb::arg(), nb::arg().none(), nb::arg())
        .def("gather_codes", &Decoder::gather_codes)
        .def("gather_known", &Decoder::gather_known)
        .def("bag", &Decoder::bag, nb::arg(), nb::arg().none(), nb::arg().none(), nb::arg(), nb::arg().none(),
             nb::arg(), nb::arg())
        .def("multiply", &Decoder::multiply);
    m.def("simd", [] { return simd_name(simd_level()); });
}
