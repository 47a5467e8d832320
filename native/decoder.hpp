// One packed matrix: the arrays it holds and what is derived from them.
#pragma once
#include <nanobind/nanobind.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "dots.hpp"
#include "rows.hpp"
#include "view.hpp"

// Row numbers in the type of the caller: int32, int64 or uint32; by default all rows in order.
class Ids {
  public:
    Ids() = default;
    explicit Ids(const int64_t *ids) : data_(ids) {}
    explicit Ids(const View &view)
        : data_(view.data<const void>()),
          wide_(view.itemsize() == 8),
          is_signed_(view.format() != 'I' && view.format() != 'L') {}

    int64_t operator[](size_t i) const {
        if (!data_) return static_cast<int64_t>(i);
        if (wide_) return static_cast<const int64_t *>(data_)[i];
        if (is_signed_) return static_cast<const int32_t *>(data_)[i];
        return static_cast<const uint32_t *>(data_)[i];
    }

  private:
    const void *data_ = nullptr;
    bool wide_ = true, is_signed_ = true;
};

class Decoder {
  public:
    Decoder(nanobind::handle codes, size_t dim, int nbit, nanobind::object codebook, nanobind::object mean,
            nanobind::object column_scale, nanobind::object row_scale, nanobind::handle zero_rows,
            nanobind::object paged_rows);

    void decode(nanobind::object ids, nanobind::handle out, nanobind::object fill, size_t threads) const;
    void gather_codes(nanobind::handle ids, nanobind::handle out) const;
    void bag(nanobind::handle ids, nanobind::object offsets, nanobind::object weights,
             const std::string &mode, std::optional<int64_t> skip, nanobind::handle out,
             size_t threads) const;
    void multiply(nanobind::handle inputs, nanobind::handle out, size_t threads) const;

    size_t rows() const { return rows_; }
    size_t dim() const { return layout_.dim; }
    // Decodes rows [begin, end) of the table to `out`. Needs no GIL and does not throw.
    void decode_range(size_t begin, size_t end, float *out) const {
        decode_part(Ids(), begin, end, nullptr, out);
    }
    // Decodes rows ids[begin … end), which are in the table, to `out`. Reads no other ids. Needs no GIL and
    // does not throw.
    void decode_rows(const int64_t *ids, size_t begin, size_t end, float *out) const {
        decode_part(Ids(ids), begin, end, nullptr, out);
    }

  private:
    enum class Pool { sum, mean, max };

    // Bag b pools rows ids[offsets[b] … offsets[b + 1]).
    struct Bags {
        Ids ids;
        std::optional<int64_t> skip;  // id that is left out
        std::vector<size_t> offsets;
        const float *weights;  // one for each id, or null
        Pool pool;
    };

    void check_ids(const Ids &ids, size_t count, std::optional<int64_t> skip) const;
    const uint8_t *row(int64_t id) const;
    bool is_zero(int64_t id) const;
    void decode_part(const Ids &ids, size_t begin, size_t end, const float *fill, float *out) const;
    void prefetch_scale(const Ids &ids, size_t i, size_t end) const;
    bool finish_row(int64_t id, float *row) const;
    void multiply_part(size_t begin, size_t end, const float *inputs, size_t count, float *scratch,
                       float *out) const;
    void pool_bag(const Bags &bags, size_t bag, float *scratch, float *out) const;

    View codes_, codebook_, mean_, column_scale_, row_scale_, zero_rows_;
    RowLayout layout_;
    DecodeRows decode_rows_ = nullptr;
    ScaleRow scale_row_ = nullptr;
    DotRows dot_rows_ = nullptr;
    size_t rows_ = 0;
    size_t first_copied_ = 0;      // rows from this one are read from `copied_`, which is padded
    std::vector<uint8_t> copied_;  // the last rows, a row of zeros, kRowPadding zeros
};
