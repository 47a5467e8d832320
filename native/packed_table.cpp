#include "packed_table.hpp"

#include <cmath>
#include <utility>

#include "parallel.hpp"

namespace {

constexpr size_t kBatch = 64;               // rows whose places are computed at a time
constexpr size_t kMaxGrain = 16 * kBatch;   // rows of a unit of work
constexpr size_t kStreamedBytes = 8 << 20;  // larger outputs leave the caches before they are read
constexpr Dtype kDtypes[] = {Dtype::float32, Dtype::float16, Dtype::bfloat16};

// Rows of a unit of work, of about a megabyte.
size_t grain_of(size_t row_bytes) { return std::clamp(kBytesPerThread / row_bytes, kBatch, kMaxGrain); }

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

template <class Id>
void copy_ids(const void *from, size_t begin, size_t end, int64_t *to) {
    const Id *ids = static_cast<const Id *>(from);
    for (size_t i = begin; i < end; ++i) to[i - begin] = ids[i];
}

}  // namespace

void Ids::copy_rows(size_t begin, size_t end, int64_t *rows) const {
    if (!data_)
        for (size_t i = begin; i < end; ++i) rows[i - begin] = static_cast<int64_t>(i);
    else if (type_ == Type::int64)
        copy_ids<int64_t>(data_, begin, end, rows);
    else if (type_ == Type::int32)
        copy_ids<int32_t>(data_, begin, end, rows);
    else
        copy_ids<uint32_t>(data_, begin, end, rows);
    if (!offsets_) return;
    size_t at = head(begin);
    for (size_t i = 0; i < end - begin; ++i) {
        const bool is_inside = static_cast<uint64_t>(rows[i]) < head_rows(at);
        rows[i] = is_inside ? static_cast<int64_t>(offsets_[at] + static_cast<uint64_t>(rows[i])) : -1;
        if (++at == heads_) at = 0;
    }
}

PackedTable::PackedTable(const PackedArrays &arrays, RowLayout layout, Simd level)
    : arrays_(arrays),
      layout_(std::move(layout)),
      records_(layout_.stride, arrays.is_paged),
      decode_rows_(pick_decode_rows(layout_, level)),
      scale_row_(pick_scale_row(level)),
      is_scaled_(arrays.is_paged || arrays.row_scale || arrays.mean) {
    for (const Dtype dtype : kDtypes)
        kernels_[static_cast<size_t>(dtype)] = {
            pick_write_rows(layout_, dtype, arrays.mean != nullptr, level),
            dtype == Dtype::float32 ? nullptr : pick_round_values(dtype, level)};
    const size_t record = records_.record(), copies = std::min(rows(), kRowPadding / record + 1);
    first_copied_ = rows() - copies;
    copied_.resize((copies + 1) * record + kRowPadding);
    for (size_t i = 0; i < copies; ++i)
        std::memcpy(copied_.data() + i * record, arrays_.codes + records_.offset(first_copied_ + i), record);
}

size_t PackedTable::find_invalid(const Ids &ids, size_t count) const {
    int64_t rows[kBatch];
    for (size_t begin = 0; begin < count; begin += kBatch) {
        const size_t n = std::min(kBatch, count - begin);
        ids.copy_rows(begin, begin + n, rows);
        bool is_invalid = false;
        for (size_t i = 0; i < n; ++i) is_invalid |= static_cast<uint64_t>(rows[i]) >= arrays_.rows;
        if (!is_invalid) continue;
        for (size_t i = 0; i < n; ++i)
            if (static_cast<uint64_t>(rows[i]) >= arrays_.rows) return begin + i;
    }
    return count;
}

std::string PackedTable::describe_invalid(const Ids &ids, size_t position) const {
    std::string message = "row id " + std::to_string(ids[position]) + " is out of range for ";
    if (ids.has_heads()) {
        const size_t head = ids.head(position);
        message += "head " + std::to_string(head) + " of " + std::to_string(ids.head_rows(head)) + " rows";
    } else {
        message += "a table of " + std::to_string(arrays_.rows) + " rows";
    }
    return message + ", at position " + std::to_string(position);
}

float PackedTable::scale(int64_t id, const uint8_t *source) const {
    uint16_t half;
    if (arrays_.is_paged)
        std::memcpy(&half, source + layout_.stride, sizeof half);
    else if (arrays_.row_scale && static_cast<size_t>(id) < arrays_.rows)
        half = arrays_.row_scale[id];
    else
        return 1.0f;
    return half_to_float(half);
}

bool PackedTable::is_zero(int64_t id, const uint8_t *source) const {
    if (static_cast<size_t>(id) >= arrays_.rows) return true;
    if (arrays_.is_paged) return !((source[layout_.stride] | source[layout_.stride + 1] << 8) & 0x7fff);
    const uint32_t *begin = arrays_.zero_rows, *end = begin + arrays_.zero_row_count;
    return begin != end && std::binary_search(begin, end, id);
}

std::vector<PageRange> PackedTable::read_ahead(const Ids &ids, size_t count) const {
    PageSet set;
    int64_t rows[kBatch];
    for (size_t begin = 0; begin < count; begin += kBatch) {
        const size_t n = std::min(kBatch, count - begin);
        ids.copy_rows(begin, begin + n, rows);
        for (size_t i = 0; i < n; ++i) {
            if (static_cast<uint64_t>(rows[i]) >= arrays_.rows) continue;
            set.add(arrays_.codes + records_.offset(rows[i]), records_.record());
            if (arrays_.row_scale) set.add(arrays_.row_scale + rows[i], sizeof(uint16_t));
        }
    }
    std::vector<PageRange> ranges = set.ranges();
    ::read_ahead(ranges);
    return ranges;
}

// Writes rows ids[0 … n), kTile at most.
void PackedTable::write_tile(const int64_t *ids, size_t n, const Target &target, void *out) const {
    const Kernels &kernels = kernels_[static_cast<size_t>(target.dtype)];
    const uint8_t *sources[kTile];
    float scales[kTile];
    for (size_t i = 0; i < n; ++i) {
        sources[i] = row(ids[i]);
        scales[i] = scale(ids[i], sources[i]);
    }
    if (kernels.write) {
        kernels.write(layout_, sources, n, scales, arrays_.mean, target.streams, out);
    } else {
        float *rows = kernels.round ? target.scratch : static_cast<float *>(out);
        decode_rows_(layout_, sources, n, rows);
        for (size_t i = 0; i < n && is_scaled_; ++i)
            scale_row_(scales[i], arrays_.mean, layout_.dim, rows + i * layout_.dim);
        if (kernels.round) kernels.round(rows, n * layout_.dim, static_cast<uint16_t *>(out));
    }
    const size_t nbytes = layout_.dim * itemsize(target.dtype);
    for (size_t i = 0; i < n; ++i) {
        void *row = static_cast<uint8_t *>(out) + i * nbytes;
        if (target.fill && static_cast<size_t>(ids[i]) >= arrays_.rows)
            std::memcpy(row, target.fill, nbytes);
        else if (is_zero(ids[i], sources[i]))
            std::memset(row, 0, nbytes);
    }
}

void PackedTable::write_rows(const Ids &ids, size_t begin, size_t end, const Target &target,
                             void *out) const {
    int64_t rows[kBatch + kRowsAhead];
    const size_t nbytes = layout_.dim * itemsize(target.dtype);
    auto *to = static_cast<uint8_t *>(out);
    for (size_t at = begin; at < end; at += kBatch) {
        const size_t n = std::min(kBatch, end - at), ahead = std::min(n + kRowsAhead, end - at);
        ids.copy_rows(at, at + ahead, rows);
        for (size_t i = at == begin ? 0 : kRowsAhead; i < std::min(kRowsAhead, ahead); ++i) prefetch(rows[i]);
        for (size_t i = 0; i < n; i += kTile) {
            for (size_t k = i + kRowsAhead; k < std::min(i + kRowsAhead + kTile, ahead); ++k)
                prefetch(rows[k]);
            write_tile(rows + i, std::min(kTile, n - i), target, to + (at - begin + i) * nbytes);
        }
    }
}

void PackedTable::decode(const Ids &ids, size_t begin, size_t end, float *out) const {
    write_rows(ids, begin, end, {}, out);
}

void PackedTable::gather_records(const Ids &ids, size_t count, uint8_t *out, size_t threads) const {
    const size_t record = records_.record();
    threads = useful_threads(threads, count * record);
    parallel_grains(count, grain_of(record), threads, [&](size_t, size_t begin, size_t end) {
        int64_t rows[kMaxGrain];
        ids.copy_rows(begin, end, rows);
        for (size_t i = 0; i < end - begin; ++i) {
            if (i + kRowsAhead < end - begin) prefetch(rows[i + kRowsAhead]);
            std::memcpy(out + (begin + i) * record, row(rows[i]), record);
        }
    });
}

void PackedTable::gather(const Ids &ids, size_t count, Dtype dtype, void *out, size_t threads,
                         const float *fill) const {
    const size_t nbytes = layout_.dim * itemsize(dtype);
    const Kernels &kernels = kernels_[static_cast<size_t>(dtype)];
    threads = useful_threads(threads, count * nbytes);
    const size_t tile = kernels.round && !kernels.write ? kTile * layout_.dim : 0;
    const bool streams = count * nbytes >= kStreamedBytes && nbytes % kStreamed == 0 &&
                         reinterpret_cast<uintptr_t>(out) % kStreamAlign == 0;
    std::vector<float> scratch(threads * tile);
    parallel_grains(count, grain_of(nbytes), threads, [&](size_t thread, size_t begin, size_t end) {
        const Target target{dtype, fill, streams, scratch.data() + thread * tile};
        write_rows(ids, begin, end, target, static_cast<uint8_t *>(out) + begin * nbytes);
        if (streams) SMALLFRY_STORE_FENCE();
    });
}
