// The Python class of a packed table.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "array.hpp"
#include "dots.hpp"
#include "packed_table.hpp"
#include "view.hpp"

class Decoder {
  public:
    Decoder(nanobind::handle codes, size_t dim, int nbit, nanobind::object codebook, nanobind::object mean,
            nanobind::object column_scale, nanobind::object row_scale, nanobind::handle zero_rows,
            std::optional<size_t> paged_rows);

    void decode(nanobind::object ids, nanobind::handle out, nanobind::object fill, size_t threads) const;
    void gather(nanobind::handle ids, nanobind::handle out, nanobind::object head_offsets,
                size_t threads) const;
    nanobind::ndarray<nanobind::numpy, uint64_t> prefetch(nanobind::handle ids,
                                                          nanobind::object head_offsets) const;
    void gather_records(nanobind::handle ids, nanobind::handle out, nanobind::object head_offsets,
                        size_t threads) const;
    void gather_codes(nanobind::handle ids, nanobind::handle out) const;
    nanobind::object gather_known(nanobind::handle ids) const;
    void bag(nanobind::handle ids, nanobind::object offsets, nanobind::object weights,
             const std::string &mode, std::optional<int64_t> skip, nanobind::handle out,
             size_t threads) const;
    void multiply(nanobind::handle inputs, nanobind::handle out, size_t threads) const;

    const PackedTable &table() const { return table_; }

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

    PackedArrays arrays(size_t dim, int nbit, std::optional<size_t> paged_rows) const;
    template <class Write>
    void gather_rows(const Array &from, const Array &to, nanobind::object head_offsets, size_t width,
                     size_t itemsize, Write write) const;
    void copy_codes(const Ids &rows, size_t count, uint8_t *out) const;
    void check_ids(const Ids &ids, size_t count, std::optional<int64_t> skip) const;
    void multiply_part(size_t begin, size_t end, const float *inputs, size_t count, float *scratch,
                       float *out) const;
    void pool_bag(const Bags &bags, size_t bag, float *scratch, float *out) const;

    View codes_, codebook_, mean_, column_scale_, row_scale_, zero_rows_;
    PackedTable table_;
    DotRows dot_rows_;
};
