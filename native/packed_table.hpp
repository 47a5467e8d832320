// A packed table in memory: where its rows are and how they decode. Needs no Python.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "rows.hpp"

// Row numbers in the type of the caller; by default all rows in order.
class Ids {
  public:
    enum class Type { int64, int32, uint32 };

    Ids() = default;
    explicit Ids(const void *ids, Type type = Type::int64) : data_(ids), type_(type) {}

    int64_t operator[](size_t i) const {
        if (!data_) return static_cast<int64_t>(i);
        if (type_ == Type::int64) return static_cast<const int64_t *>(data_)[i];
        if (type_ == Type::int32) return static_cast<const int32_t *>(data_)[i];
        return static_cast<const uint32_t *>(data_)[i];
    }

  private:
    const void *data_ = nullptr;
    Type type_ = Type::int64;
};

// Where the records of a table begin. In a paged table a record is a row of codes and its scale, and no
// record crosses a block; otherwise records are rows of codes without gaps.
class RecordLayout {
  public:
    RecordLayout(size_t stride, bool is_paged)
        : record_(is_paged ? stride + 2 : stride),
          per_block_(is_paged ? std::max<size_t>(1, kPage / record_) : 1),
          block_(is_paged ? std::max(kPage, record_) : record_),
          // With one record in each block, a block is the step from record to record.
          step_(per_block_ == 1 ? block_ : record_),
          gap_(block_ - per_block_ * step_),
          reciprocal_(UINT64_MAX / per_block_ + 1) {}

    size_t record() const { return record_; }        // bytes
    size_t per_block() const { return per_block_; }  // records
    size_t block() const { return block_; }          // bytes
    size_t blocks(uint64_t rows) const { return rows / per_block_ + (rows % per_block_ != 0); }
    // The first byte of a row, of 2**50 rows at most: a product with the reciprocal, which exceeds
    // 2**64 / per_block by less than 1, is exact for them.
    uint64_t offset(uint64_t row) const {
        if (!gap_) return row * step_;
        const auto in_block = static_cast<uint64_t>(static_cast<unsigned __int128>(row) * reciprocal_ >> 64);
        return row * step_ + in_block * gap_;
    }

  private:
    static constexpr size_t kPage = 4096;

    size_t record_, per_block_, block_, step_, gap_;
    uint64_t reciprocal_;
};

// The arrays of a table, which outlive it. An absent one is null.
struct PackedArrays {
    const uint8_t *codes;
    size_t rows;
    bool is_paged;
    const float *mean = nullptr;          // [dim]
    const uint16_t *row_scale = nullptr;  // [rows] float16, of tables without pages
    const uint32_t *zero_rows = nullptr;  // strictly increasing
    size_t zero_row_count = 0;
};

class PackedTable {
  public:
    PackedTable(const PackedArrays &arrays, RowLayout layout, Simd level);

    size_t rows() const { return arrays_.rows; }
    size_t dim() const { return layout_.dim; }
    size_t stride() const { return layout_.stride; }
    const RecordLayout &records() const { return records_; }

    // The packed bytes of a row, followed by kRowPadding readable bytes; zeros for an id outside the table.
    const uint8_t *row(int64_t id) const {
        const size_t at = std::min(static_cast<size_t>(id), arrays_.rows);
        return at < first_copied_ ? arrays_.codes + records_.offset(at)
                                  : copied_.data() + (at - first_copied_) * records_.record();
    }
    // Decodes rows ids[begin … end) to the start of `out`; an id outside the table writes `fill`, or without
    // it arbitrary values. Reads no other ids, and each once. Does not throw.
    void decode(const Ids &ids, size_t begin, size_t end, const float *fill, float *out) const;
    // Decodes row `id`, which is at sources[0]; see DecodeRows.
    void decode_row(int64_t id, Sources sources, float *out) const;
    // Always inlined: compilers omit calls of functions that only prefetch.
    SMALLFRY_INLINE void prefetch_scale(int64_t id) const {
        if (arrays_.row_scale) SMALLFRY_PREFETCH(arrays_.row_scale + std::min<size_t>(id, arrays_.rows));
    }

  private:
    bool is_zero(int64_t id) const;
    void finish_row(int64_t id, const uint8_t *source, float *row) const;

    PackedArrays arrays_;
    RowLayout layout_;
    RecordLayout records_;
    DecodeRows decode_rows_;
    ScaleRow scale_row_;
    bool is_scaled_;               // rows are not what decode_rows_ writes
    size_t first_copied_;          // rows from this one are read from `copied_`, which is padded
    std::vector<uint8_t> copied_;  // the last records, a record of zeros, kRowPadding zeros
};
