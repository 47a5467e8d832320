#include "packed_table.hpp"

#include <cmath>
#include <utility>

namespace {

constexpr size_t kBatch = 64;        // rows whose places are computed at a time
constexpr size_t kScaled = 8;        // rows decoded before they are scaled, in the L1 cache
constexpr size_t kScalesAhead = 24;  // row scales are prefetched this many rows ahead

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

}  // namespace

PackedTable::PackedTable(const PackedArrays &arrays, RowLayout layout, Simd level)
    : arrays_(arrays),
      layout_(std::move(layout)),
      records_(layout_.stride, arrays.is_paged),
      decode_rows_(pick_decode_rows(layout_, level)),
      scale_row_(pick_scale_row(level)),
      is_scaled_(arrays.is_paged || arrays.row_scale || arrays.mean) {
    layout_.record = records_.record();
    layout_.distant = arrays.rows > kCachedBytes / layout_.record;
    const size_t record = records_.record(), copies = std::min(rows(), kRowPadding / record + 1);
    first_copied_ = rows() - copies;
    copied_.resize((copies + 1) * record + kRowPadding);
    for (size_t i = 0; i < copies; ++i)
        std::memcpy(copied_.data() + i * record, arrays_.codes + records_.offset(first_copied_ + i), record);
}

bool PackedTable::is_zero(int64_t id) const {
    const uint32_t *begin = arrays_.zero_rows, *end = begin + arrays_.zero_row_count;
    return begin != end && std::binary_search(begin, end, id);
}

// Applies scale, mean and zeros to a row of the table.
void PackedTable::finish_row(int64_t id, const uint8_t *source, float *row) const {
    uint16_t scale = 0x3c00;  // 1.0
    if (arrays_.is_paged)
        std::memcpy(&scale, source + layout_.stride, sizeof scale);
    else if (arrays_.row_scale)
        scale = arrays_.row_scale[id];
    if (arrays_.is_paged ? !(scale & 0x7fff) : is_zero(id))
        std::fill_n(row, layout_.dim, 0.0f);
    else if (is_scaled_)
        scale_row_(half_to_float(scale), arrays_.mean, layout_.dim, row);
}

void PackedTable::decode_row(int64_t id, Sources sources, float *out) const {
    decode_rows_(layout_, sources, 1, out);
    if (static_cast<size_t>(id) < rows()) finish_row(id, sources[0], out);
}

void PackedTable::decode(const Ids &ids, size_t begin, size_t end, const float *fill, float *out) const {
    int64_t rows[kBatch + kScalesAhead];
    const uint8_t *sources[kBatch + kRowsAhead];
    static_assert(kScalesAhead >= kRowsAhead);
    const bool finish = fill || is_scaled_ || arrays_.zero_row_count;
    const size_t step = is_scaled_ ? kScaled : kBatch;
    for (size_t at = begin; at < end; at += kBatch) {
        const size_t n = std::min(kBatch, end - at);
        for (size_t i = 0; i < n + kScalesAhead; ++i) rows[i] = at + i < end ? ids[at + i] : -1;
        for (size_t i = 0; i < n + kRowsAhead; ++i) sources[i] = row(rows[i]);
        for (size_t i = 0; i < n; ++i, out += layout_.dim) {
            prefetch_scale(rows[i + kScalesAhead]);
            if (i % step == 0) decode_rows_(layout_, sources + i, std::min(step, n - i), out);
            if (!finish) continue;
            if (static_cast<size_t>(rows[i]) < arrays_.rows)
                finish_row(rows[i], sources[i], out);
            else if (fill)
                std::copy_n(fill, layout_.dim, out);
        }
    }
}
