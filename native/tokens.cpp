// Tokens to rows: packing Python strings, building the index, looking tokens up.
#include <algorithm>
#include <string>
#include <utility>

#include "bindings.hpp"
#include "gil.hpp"
#include "packed.hpp"
#include "token_index.hpp"
#include "token_set.hpp"
#include "utf8.hpp"

namespace nb = nanobind;

namespace {

using SlotArray = nb::ndarray<const uint32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using AnyOffsets = nb::ndarray<nb::ro, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// The strings of a Python sequence as packed UTF-8, each handed to `use(index, encodable)` once it is
// appended.
template <typename Use>
void pack_each(nb::handle sequence, Buffer<uint8_t> &bytes, Buffer<uint64_t> &offsets, Use use) {
    nb::object items = nb::steal(PySequence_Fast(sequence.ptr(), "tokens must be a sequence of str"));
    if (!items.is_valid()) throw nb::python_error();
    auto count = static_cast<size_t>(PySequence_Fast_GET_SIZE(items.ptr()));
    PyObject *const *item = PySequence_Fast_ITEMS(items.ptr());
    constexpr size_t kAhead = 12;
    bytes.reserve(count * 12);
    offsets.resize(count + 1);
    offsets[0] = 0;
    for (size_t i = 0; i < count; ++i) {
        if (i + kAhead < count) {
            __builtin_prefetch(item[i + kAhead]);
            __builtin_prefetch(reinterpret_cast<const char *>(item[i + kAhead]) + 48);
        }
        if (!PyUnicode_Check(item[i]))
            throw nb::type_error(("tokens[" + std::to_string(i) + "] is " + Py_TYPE(item[i])->tp_name +
                                  ", expected str: tokens are strings, row numbers go to the lookup by id")
                                     .c_str());
        bool encodable = append_utf8(item[i], bytes);
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

// (slots, duplicate): slots uint32 [slot_count], or None where a token found no place within the probe limit;
// duplicate: None, or the two rows of a token that occurs twice.
nb::tuple place_tokens(const ByteArray &tokens, const OffsetArray &offsets, uint64_t slot_count,
                       uint64_t seed) {
    Buffer<uint64_t> checked = checked_offsets(offsets, tokens.shape(0));
    uint64_t rows = checked.size() - 1;
    if (rows >= TokenSet::kMaxSize || slot_count < kProbeLimit || slot_count - kProbeLimit > UINT32_MAX)
        raise_error("InputError", std::to_string(rows) + " tokens in " + std::to_string(slot_count) +
                                      " slots are outside what an index of 32-bit slots can hold");
    Buffer<uint32_t> slots(slot_count);
    TokenPlacement placement(tokens.data(), checked.data(), rows);
    TokenPlacement::Outcome outcome;
    {
        GilRelease release(tokens.shape(0));
        outcome = placement.place(seed, slots.data(), slot_count);
    }
    if (outcome == TokenPlacement::kCrowded) return nb::make_tuple(nb::none(), nb::none());
    if (outcome == TokenPlacement::kDuplicate)
        return nb::make_tuple(nb::none(), nb::make_tuple(placement.first_row, placement.second_row));
    return nb::make_tuple(to_numpy(std::move(slots)), nb::none());
}

class TokenIndex {
  public:
    TokenIndex(ByteArray tokens, AnyOffsets offsets, SlotArray slots, uint64_t seed)
        : tokens_(std::move(tokens)), offsets_(std::move(offsets)), slots_(std::move(slots)), seed_(seed) {
        bool wide = offsets_.dtype() == nb::dtype<uint64_t>();
        if (!wide && offsets_.dtype() != nb::dtype<uint32_t>())
            throw nb::type_error("offsets must be uint32 or uint64");
        if (offsets_.shape(0) == 0 || offsets_.shape(0) > TokenSet::kMaxSize ||
            slots_.shape(0) < kProbeLimit || slots_.shape(0) - kProbeLimit > UINT32_MAX)
            throw nb::value_error("offsets or slots have a size that no index has");
    }

    nb::ndarray<nb::numpy, int64_t> find(nb::handle sequence) const {
        Buffer<uint8_t> bytes;
        Buffer<uint64_t> offsets, hashes;
        Buffer<size_t> surrogates;
        pack_each(sequence, bytes, offsets, [&](size_t i, bool encodable) {
            if (!encodable) surrogates.push(i);
            hashes.push(hash_padded(bytes.data() + offsets[i], offsets[i + 1] - offsets[i], seed_));
        });
        Buffer<int64_t> rows =
            probe({bytes.data(), offsets.data(), hashes.data(), hashes.size(), bytes.size() + kSlack});
        for (size_t i = 0; i < surrogates.size(); ++i) rows[surrogates[i]] = -1;
        return to_numpy(std::move(rows));
    }

    nb::ndarray<nb::numpy, int64_t> find_utf8(const ByteArray &bytes, const OffsetArray &offsets) const {
        Buffer<uint64_t> checked = checked_offsets(offsets, bytes.shape(0));
        Buffer<uint64_t> hashes(checked.size() - 1);
        {
            GilRelease release(bytes.shape(0));
            for (size_t i = 0; i < hashes.size(); ++i)
                hashes[i] = hash_token(bytes.data() + checked[i], checked[i + 1] - checked[i], seed_);
        }
        return to_numpy(probe({bytes.data(), checked.data(), hashes.data(), hashes.size(), bytes.shape(0)}));
    }

    int64_t find_one(nb::str token) const {
        Buffer<uint8_t> bytes;
        if (!append_utf8(token.ptr(), bytes)) return -1;
        uint64_t offsets[2] = {0, bytes.size()};
        uint64_t hash = hash_token(bytes.data(), bytes.size(), seed_);
        return probe({bytes.data(), offsets, &hash, 1, bytes.size()})[0];
    }

  private:
    // Raises TokenTableError. Needs the GIL, and lets it go while it works.
    Buffer<int64_t> probe(const Queries &queries) const {
        Buffer<int64_t> rows(queries.count);
        IndexFault fault;
        {
            GilRelease release(queries.count * kBytesRead);
            fault = probe_into(queries, rows.data());
        }
        if (fault.kind == IndexFault::kRow)
            raise_error("TokenTableError", "the token index names row " + std::to_string(fault.row) +
                                               ", but there are " + std::to_string(offsets_.shape(0) - 1) +
                                               " rows");
        if (fault.kind == IndexFault::kOffsets)
            raise_error("TokenTableError", "the token of row " + std::to_string(fault.row) +
                                               " runs from byte " + std::to_string(fault.begin) + " to " +
                                               std::to_string(fault.end) + ", but there are " +
                                               std::to_string(tokens_.shape(0)) + " bytes of tokens");
        return rows;
    }

    IndexFault probe_into(const Queries &queries, int64_t *rows) const {
        if (offsets_.dtype() == nb::dtype<uint32_t>()) return probe_with<uint32_t>().find(queries, rows);
        return probe_with<uint64_t>().find(queries, rows);
    }

    template <typename Offset>
    TokenProbe<Offset> probe_with() const {
        return TokenProbe<Offset>(tokens_.data(), tokens_.shape(0),
                                  static_cast<const Offset *>(offsets_.data()), offsets_.shape(0) - 1,
                                  slots_.data(), slots_.shape(0));
    }

    static constexpr size_t kBytesRead =
        3 * 64;  // a query's slot, offsets and token lie in cache lines of their own

    ByteArray tokens_;
    AnyOffsets offsets_;
    SlotArray slots_;
    uint64_t seed_;
};

nb::ndarray<nb::numpy, bool> add_tokens(TokenSet &set, const ByteArray &bytes, const OffsetArray &offsets) {
    Buffer<uint64_t> checked = checked_offsets(offsets, bytes.shape(0));
    size_t count = checked.size() - 1;
    if (set.size() + count > TokenSet::kMaxSize) raise_error("InputError", "more than 4,294,967,294 tokens");
    Buffer<bool> first(count);
    for (size_t i = 0; i < count; ++i)
        first[i] = set.add(bytes.data() + checked[i], checked[i + 1] - checked[i]);
    return to_numpy(std::move(first));
}

}  // namespace

void bind_tokens(nb::module_ &m) {
    m.def("pack_tokens", &pack_tokens, nb::arg("tokens"));
    m.def("place_tokens", &place_tokens, nb::arg("tokens").noconvert(), nb::arg("offsets").noconvert(),
          nb::arg("slot_count"), nb::arg("seed"));
    nb::class_<TokenIndex>(m, "TokenIndex")
        .def(nb::init<ByteArray, AnyOffsets, SlotArray, uint64_t>(), nb::arg("tokens").noconvert(),
             nb::arg("offsets").noconvert(), nb::arg("slots").noconvert(), nb::arg("seed"))
        .def("find", &TokenIndex::find, nb::arg("tokens"))
        .def("find_utf8", &TokenIndex::find_utf8, nb::arg("buf").noconvert(), nb::arg("offsets").noconvert())
        .def("find_one", &TokenIndex::find_one, nb::arg("token"));
    nb::class_<TokenSet>(m, "TokenSet")
        .def(nb::init<>())
        .def("add", &add_tokens, nb::arg("buf").noconvert(), nb::arg("offsets").noconvert())
        .def("__len__", &TokenSet::size);
}
