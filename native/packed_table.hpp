// A packed table in memory: where its rows are and how they decode. Needs no Python.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "pages.hpp"
#include "rows.hpp"

// Row numbers in the type of the caller; by default all rows in order. With heads they are local: number i is
// of head i % heads, whose rows are offsets[head … head + 1) of the table.
class Ids {
  public:
    enum class Type { int64, int32, uint32 };

    Ids() = default;
    explicit Ids(const void *ids, Type type = Type::int64, const uint64_t *offsets = nullptr,
                 size_t heads = 1)
        : data_(ids), type_(type), offsets_(offsets), heads_(heads) {}

    int64_t operator[](size_t i) const {
        if (!data_) return static_cast<int64_t>(i);
        if (type_ == Type::int64) return static_cast<const int64_t *>(data_)[i];
        if (type_ == Type::int32) return static_cast<const int32_t *>(data_)[i];
        return static_cast<const uint32_t *>(data_)[i];
    }
    bool has_heads() const { return offsets_ != nullptr; }
    size_t head(size_t i) const { return i % heads_; }
    uint64_t head_rows(size_t head) const { return offsets_[head + 1] - offsets_[head]; }
    // Writes the rows of the table that ids [begin, end) stand for; -1 for one outside its head.
    void copy_rows(size_t begin, size_t end, int64_t *rows) const;

  private:
    const void *data_ = nullptr;
    Type type_ = Type::int64;
    const uint64_t *offsets_ = nullptr;
    size_t heads_ = 1;
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

// Rows are prefetched this many ahead.
constexpr size_t kRowsAhead = 16;

class PackedTable {
  public:
    PackedTable(const PackedArrays &arrays, RowLayout layout, Simd level);

    size_t rows() const { return arrays_.rows; }
    size_t dim() const { return layout_.dim; }
    size_t stride() const { return layout_.stride; }
    size_t record() const { return records_.record(); }
    const RecordLayout &records() const { return records_; }

    // The packed bytes of a row, followed by kRowPadding readable bytes; zeros for an id outside the table.
    const uint8_t *row(int64_t id) const {
        const size_t at = std::min(static_cast<size_t>(id), arrays_.rows);
        return at < first_copied_ ? arrays_.codes + records_.offset(at)
                                  : copied_.data() + (at - first_copied_) * records_.record();
    }

    // Whether row `id`, packed at `source`, decodes to zeros; true for ids outside the table.
    bool is_zero(int64_t id, const uint8_t *source) const;
    // Position of the first of `count` ids outside the table, or outside its head; `count` if there is none.
    size_t find_invalid(const Ids &ids, size_t count) const;
    // Names id `position`, which find_invalid returned.
    std::string describe_invalid(const Ids &ids, size_t position) const;
    // Decodes rows ids[begin … end) to the start of `out`; an id outside the table writes zeros. Reads no
    // other ids, and each once. Does not throw.
    void decode(const Ids &ids, size_t begin, size_t end, float *out) const;
    // Decodes rows ids[0 … count) to `out`, rounded to `dtype`; an id outside the table writes `fill`, which
    // needs float32, or zeros.
    void gather(const Ids &ids, size_t count, Dtype dtype, void *out, size_t threads,
                const float *fill = nullptr) const;
    // Starts to read the pages of rows ids[0 … count) that are not in memory, and returns the pages; ids
    // outside the table have none.
    std::vector<PageRange> read_ahead(const Ids &ids, size_t count) const;
    // Copies the records of rows ids[0 … count), which are in the table, to `out`.
    void gather_records(const Ids &ids, size_t count, uint8_t *out, size_t threads) const;
    // Decodes a row; zeros for an id outside the table.
    void decode_row(int64_t id, float *out) const { write_tile(&id, 1, {}, out); }
    // Fetches a row into the cache. Always inlined: compilers omit calls of functions that only prefetch.
    SMALLFRY_INLINE void prefetch(int64_t id) const {
        const uint8_t *record = row(id), *last = record + records_.record() - 1;
        for (const uint8_t *line = record; line < last; line += 64) SMALLFRY_PREFETCH(line);
        SMALLFRY_PREFETCH(last);
        if (arrays_.row_scale) SMALLFRY_PREFETCH(arrays_.row_scale + std::min<size_t>(id, arrays_.rows));
    }

  private:
    static constexpr size_t kTile = 8;  // rows decoded at a time, which stay in the L1 cache

    // How rows become values of a dtype: by `write`, or else decoded, scaled and rounded one after the other.
    struct Kernels {
        WriteRows write;
        RoundValues round;  // null for float32
    };

    // What gather writes, and how.
    struct Target {
        Dtype dtype = Dtype::float32;
        const float *fill = nullptr;
        bool streams = false;
        float *scratch = nullptr;  // kTile rows, where the kernels do not write 16 bits
    };

    float scale(int64_t id, const uint8_t *source) const;
    void write_tile(const int64_t *ids, size_t n, const Target &target, void *out) const;
    void write_rows(const Ids &ids, size_t begin, size_t end, const Target &target, void *out) const;

    PackedArrays arrays_;
    RowLayout layout_;
    RecordLayout records_;
    DecodeRows decode_rows_;
    ScaleRow scale_row_;
    Kernels kernels_[3];           // of each dtype
    bool is_scaled_;               // rows are not what decode_rows_ writes
    size_t first_copied_;          // rows from this one are read from `copied_`, which is padded
    std::vector<uint8_t> copied_;  // the last records, a record of zeros, kRowPadding zeros
};
