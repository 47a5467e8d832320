// Splits texts into tokens, from tables in a file.
#include "bindings.hpp"
#include "trie_builder.hpp"

namespace nb = nanobind;

namespace {

// See docs/format.md for the layout. Raises InputError for keys that a trie cannot hold.
nb::ndarray<nb::numpy, uint32_t> build_trie(nb::handle buf, nb::handle offsets, nb::handle values) {
    const PackedTokens keys(buf, offsets);
    const View of_keys(values, "values", "I");
    expect_size("size of values", of_keys.size() * of_keys.itemsize(), keys.count() * sizeof(uint32_t));
    const Buffer<uint32_t> copied = [&] {
        Buffer<uint32_t> copy;
        copy.append(of_keys.data<const uint32_t>(), keys.count());
        return copy;
    }();
    for (size_t i = 0; i < keys.count(); ++i) {
        const std::string name = "key " + std::to_string(i);
        if (keys.length(i) == 0) raise_error("InputError", name + " is empty: a trie cannot hold it");
        if (keys.length(i) > kMaxKey)
            raise_error("InputError", name + " has " + std::to_string(keys.length(i)) +
                                          " bytes, expected at most " + std::to_string(kMaxKey));
        if (std::memchr(keys.begin(i), 0, keys.length(i)))
            raise_error("InputError", name + " holds a NUL character: a trie cannot hold it");
        if (copied[i] >> 31)
            raise_error("InputError", "the value of " + name + " is " + std::to_string(copied[i]) +
                                          ", expected less than 2147483648");
    }
    TrieBuilder builder(keys, copied.data());
    const auto [first, second] = builder.duplicate();
    if (first != second)
        raise_error("InputError",
                    "keys " + std::to_string(first) + " and " + std::to_string(second) + " are equal");
    try {
        return to_numpy(builder.build());
    } catch (const std::length_error &error) {
        raise_error("InputError", error.what());
    }
}

// The value of each key in a trie, 4294967295 if the trie does not hold it.
nb::ndarray<nb::numpy, uint32_t> find_in_trie(nb::handle units, nb::handle buf, nb::handle offsets) {
    const View view(units, "units", "I");
    const PackedTokens keys(buf, offsets);
    const Trie trie(view.data<const uint32_t>(), view.nbytes() / sizeof(uint32_t));
    Buffer<uint32_t> found(keys.count());
    for (size_t i = 0; i < found.size(); ++i) found[i] = trie.find(keys.begin(i), keys.length(i));
    return to_numpy(std::move(found));
}

}  // namespace

void bind_tokenizer(nb::module_ &m) {
    m.def("build_trie", &build_trie);
    m.def("find_in_trie", &find_in_trie);
}
