// Packs Python strings, builds the token index and looks up tokens.
#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include "bindings.hpp"
#include "gil.hpp"
#include "index_builder.hpp"
#include "json_tokens.hpp"
#include "packed.hpp"
#include "strings.hpp"
#include "token_index.hpp"
#include "token_set.hpp"
#include "utf8.hpp"

namespace nb = nanobind;

namespace {

// Packs the strings of a Python sequence as UTF-8 and calls `use(index, encodable)` after each.
template <typename Use>
void pack_each(nb::handle sequence, Buffer<uint8_t> &bytes, Buffer<uint64_t> &offsets, Use use) {
    const Strings items(sequence, "tokens must be a sequence of str");
    const size_t count = items.size();
    constexpr size_t kAhead = 12;
    bytes.reserve(count * 12);
    offsets.resize(count + 1);
    offsets[0] = 0;
    for (size_t i = 0; i < count; ++i) {
        if (i + kAhead < count) {
            __builtin_prefetch(items[i + kAhead]);
            __builtin_prefetch(reinterpret_cast<const char *>(items[i + kAhead]) + 48);
        }
        items.expect_string(i, "tokens", ": tokens are strings; look up row numbers by id");
        bool encodable = append_utf8(items[i], bytes);
        offsets[i + 1] = bytes.size();
        use(i, encodable);
    }
}

// (bytes uint8, offsets int64 [n + 1], position of the first token with a lone surrogate or -1).
nb::tuple pack_tokens(nb::handle sequence) {
    Buffer<uint8_t> bytes;
    Buffer<uint64_t> offsets;
    int64_t surrogate = -1;
    pack_each(sequence, bytes, offsets, [&](size_t i, bool encodable) {
        if (!encodable && surrogate < 0) surrogate = static_cast<int64_t>(i);
    });
    Buffer<int64_t> signed_offsets(offsets.size());
    std::copy(offsets.data(), offsets.data() + offsets.size(), signed_offsets.data());
    return nb::make_tuple(to_numpy(std::move(bytes)), to_numpy(std::move(signed_offsets)), surrogate);
}

// The row as a Python int; None for UINT64_MAX, which means no row.
nb::object row_or_none(uint64_t row) { return row == UINT64_MAX ? nb::none() : nb::object(nb::int_(row)); }

template <typename Offset>
nb::tuple build_index_with(const View &buf, const View &offsets, uint64_t slot_count, uint64_t seed) {
    using Builder = IndexBuilder<Offset>;
    const auto *data = offsets.data<const Offset>();
    Builder builder(buf.data<const uint8_t>(), buf.size(), data, offsets.size() - 1);
    typename Builder::Outcome outcome;
    SlotTable table;
    {
        GilRelease release(buf.nbytes());
        table = SlotTable(offsets.size() - 1, slot_count);
        outcome = builder.build(seed, table);
    }
    if (outcome == Builder::kBadOffset) {
        const uint64_t at = builder.bad_offset;
        raise_bad_offset(at, static_cast<int64_t>(data[at]), at == 0 ? 0 : data[at - 1], buf.size());
    }
    if (outcome == Builder::kCrowded) return nb::make_tuple(nb::none(), nb::none(), nb::none());
    nb::object duplicate = nb::none();
    if (builder.second_row != Builder::kNone)
        duplicate = nb::make_tuple(builder.first_row, builder.second_row);
    return nb::make_tuple(to_numpy(table.take_slots()), duplicate, row_or_none(builder.invalid_row));
}

// See smallfry.kernels.numpy.tokens.build_index.
nb::tuple build_index(nb::handle buf, nb::handle offsets, uint64_t slot_count, uint64_t seed) {
    const View bytes(buf, "buf", "B"), bounds(offsets, "offsets", "ILQlq");
    if (bounds.size() == 0) raise_no_offsets();
    if (bounds.size() > TokenSet::kMaxSize || slot_count < kProbeLimit ||
        slot_count - kProbeLimit > UINT32_MAX)
        raise_error("InputError", std::to_string(bounds.size() - 1) + " tokens in " +
                                      std::to_string(slot_count) +
                                      " slots exceed the limits of an index of 32-bit slots");
    if (bounds.itemsize() == sizeof(uint32_t))
        return build_index_with<uint32_t>(bytes, bounds, slot_count, seed);
    return build_index_with<uint64_t>(bytes, bounds, slot_count, seed);
}

// The rows of a lookup in a new NumPy array.
class Rows {
  public:
    // Calls numpy.empty(count, dtype), which takes a third of the time of an array over other memory.
    Rows(const nb::object &empty, const nb::object &dtype, size_t count) : array_(empty(count, dtype)) {
        Py_buffer view;
        if (PyObject_GetBuffer(array_.ptr(), &view, PyBUF_WRITABLE) != 0) throw nb::python_error();
        data_ = static_cast<int64_t *>(view.buf);
        PyBuffer_Release(&view);
    }

    int64_t *data() { return data_; }
    const nb::object &array() const { return array_; }

  private:
    nb::object array_;
    int64_t *data_;
};

class TokenIndex {
  public:
    TokenIndex(nb::handle tokens, nb::handle offsets, nb::handle slots, uint64_t seed)
        : tokens_(tokens, "tokens", "B"),
          offsets_(offsets, "offsets", "ILQ"),
          slots_(slots, "slots", "I"),
          seed_(seed) {
        const nb::object numpy = nb::module_::import_("numpy");
        empty_ = numpy.attr("empty");
        int64_ = numpy.attr("dtype")("int64");
        if (offsets_.size() == 0 || offsets_.size() > TokenSet::kMaxSize || slots_.size() < kProbeLimit ||
            slots_.size() - kProbeLimit > UINT32_MAX)
            throw nb::value_error("offsets or slots have an invalid size for an index");
    }

    nb::object find(nb::handle sequence) const {
        Buffer<uint8_t> bytes;
        Buffer<uint64_t> offsets, hashes;
        Buffer<size_t> surrogates;
        pack_each(sequence, bytes, offsets, [&](size_t i, bool encodable) {
            if (!encodable) surrogates.push(i);
            hashes.push(hash_padded(bytes.data() + offsets[i], offsets[i + 1] - offsets[i], seed_));
        });
        Rows rows = probe({bytes.data(), offsets.data(), offsets.data() + 1, hashes.data(), hashes.size(),
                           bytes.size() + kSlack});
        for (size_t i = 0; i < surrogates.size(); ++i) rows.data()[surrogates[i]] = -1;
        return rows.array();
    }

    nb::object find_utf8(nb::handle buf, nb::handle offsets) const {
        const PackedTokens tokens(buf, offsets);
        Buffer<uint64_t> hashes(tokens.count());
        {
            GilRelease release(tokens.nbytes());
            for (size_t i = 0; i < hashes.size(); ++i)
                hashes[i] = hash_token(tokens.begin(i), tokens.length(i), seed_);
        }
        return probe({tokens.bytes(), tokens.offsets(), tokens.offsets() + 1, hashes.data(), hashes.size(),
                      tokens.nbytes()})
            .array();
    }

    int64_t find_one(nb::str token) const {
        Buffer<uint8_t> bytes;
        if (!append_utf8(token.ptr(), bytes)) return -1;
        uint64_t begin = 0, end = bytes.size();
        uint64_t hash = hash_token(bytes.data(), bytes.size(), seed_);
        int64_t row;
        probe({bytes.data(), &begin, &end, &hash, 1, bytes.size()}, &row);
        return row;
    }

    // See smallfry.kernels.numpy.tokens.TokenIndex.find_json.
    nb::object find_json(nb::bytes text, size_t most) const {
        JsonTokens tokens(reinterpret_cast<const uint8_t *>(text.c_str()), text.size(), most);
        bool valid;
        {
            GilRelease release(text.size());
            valid = tokens.read(seed_);
        }
        if (!valid) return nb::none();
        return probe(tokens.queries()).array();
    }

  private:
    Rows probe(const Queries &queries) const {
        Rows rows(empty_, int64_, queries.count);
        probe(queries, rows.data());
        return rows;
    }

    // Raises TokenTableError. Needs the GIL, and releases it during the probe.
    void probe(const Queries &queries, int64_t *rows) const {
        IndexFault fault;
        {
            GilRelease release(queries.count * kBytesRead);
            fault = probe_into(queries, rows);
        }
        if (fault.kind == IndexFault::kRow)
            raise_error("TokenTableError", "the token index names row " + std::to_string(fault.row) +
                                               ", but there are " + std::to_string(offsets_.size() - 1) +
                                               " rows");
        if (fault.kind == IndexFault::kOffsets)
            raise_error("TokenTableError", "the token of row " + std::to_string(fault.row) +
                                               " runs from byte " + std::to_string(fault.begin) + " to " +
                                               std::to_string(fault.end) + ", but there are " +
                                               std::to_string(tokens_.size()) + " bytes of tokens");
    }

    IndexFault probe_into(const Queries &queries, int64_t *rows) const {
        if (offsets_.itemsize() == sizeof(uint32_t)) return probe_with<uint32_t>().find(queries, rows);
        return probe_with<uint64_t>().find(queries, rows);
    }

    template <typename Offset>
    TokenProbe<Offset> probe_with() const {
        return TokenProbe<Offset>(tokens_.data<const uint8_t>(), tokens_.size(),
                                  offsets_.data<const Offset>(), offsets_.size() - 1,
                                  slots_.data<const uint32_t>(), slots_.size());
    }

    static constexpr size_t kBytesRead =
        3 * 64;  // a query reads one cache line each of slots, offsets, tokens

    View tokens_, offsets_, slots_;
    uint64_t seed_;
    nb::object empty_, int64_;  // numpy.empty and its dtype
};

nb::ndarray<nb::numpy, bool> add_tokens(TokenSet &set, nb::handle buf, nb::handle offsets) {
    const PackedTokens tokens(buf, offsets);
    size_t count = tokens.count();
    if (set.size() + count > TokenSet::kMaxSize) raise_error("InputError", "more than 4,294,967,294 tokens");
    Buffer<bool> first(count);
    for (size_t start = 0; start < count; start += kInsertGroup) {
        const size_t end = std::min(start + kInsertGroup, count);
        uint64_t hashes[kInsertGroup];
        for (size_t i = start; i < end; ++i) {
            hashes[i - start] = set.hash(tokens.begin(i), tokens.length(i));
            set.prefetch(hashes[i - start]);
        }
        try {
            for (size_t i = start; i < end; ++i)
                first[i] = set.add(tokens.begin(i), tokens.length(i), hashes[i - start]);
        } catch (const std::length_error &error) {
            raise_error("InputError", error.what());
        }
    }
    return to_numpy(std::move(first));
}

}  // namespace

void bind_tokens(nb::module_ &m) {
    m.def("pack_tokens", &pack_tokens);
    m.def("build_index", &build_index);
    nb::class_<TokenIndex>(m, "TokenIndex")
        .def(nb::init<nb::handle, nb::handle, nb::handle, uint64_t>())
        .def("find", &TokenIndex::find)
        .def("find_utf8", &TokenIndex::find_utf8)
        .def("find_one", &TokenIndex::find_one)
        .def("find_json", &TokenIndex::find_json);
    nb::class_<TokenSet>(m, "TokenSet")
        .def(nb::init<>())
        .def("add", &add_tokens)
        .def("__len__", &TokenSet::size);
}
