// Splits texts into tokens, from tables in a file.
#include "tokenizer.hpp"

#include <nanobind/stl/optional.h>

#include <string>

#include "bindings.hpp"
#include "bpe.hpp"
#include "errors.hpp"
#include "gil.hpp"
#include "packed.hpp"
#include "strings.hpp"
#include "trie_builder.hpp"
#include "unigram.hpp"
#include "utf8.hpp"
#include "wordpiece.hpp"

namespace nb = nanobind;

namespace {

// See docs/reference/format.md for the layout. Raises InputError for keys that a trie cannot hold.
nb::ndarray<nb::numpy, uint32_t> build_trie(nb::handle buf, nb::handle offsets, nb::handle values) {
    const PackedTokens keys(buf, offsets);
    const View of_keys(values, "values", "I");
    expect_size("size of values", of_keys.size() * of_keys.itemsize(), keys.count() * sizeof(uint32_t));
    std::vector<TrieKey> to_build(keys.count());
    for (size_t i = 0; i < keys.count(); ++i) {
        const TrieKey key{keys.begin(i), keys.length(i), of_keys.data<const uint32_t>()[i]};
        const std::string name = "key " + std::to_string(i);
        if (key.size == 0) raise_error("InputError", name + " is empty: a trie cannot hold it");
        if (key.size > kMaxKey)
            raise_error("InputError", name + " has " + std::to_string(key.size) +
                                          " bytes, expected at most " + std::to_string(kMaxKey));
        if (std::memchr(key.data, 0, key.size))
            raise_error("InputError", name + " holds a NUL character: a trie cannot hold it");
        if (key.value >> 31)
            raise_error("InputError", "the value of " + name + " is " + std::to_string(key.value) +
                                          ", expected less than 2147483648");
        to_build[i] = key;
    }
    TrieBuilder builder(std::move(to_build));
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

[[noreturn]] void raise_settings(const std::string &reason) {
    raise_error("TokenizerError",
                "the settings of the tokenizer " + reason + "; please compress the model again");
}

nb::object get(nb::dict settings, const char *key) {
    if (!settings.contains(key)) raise_settings("have no key '" + std::string(key) + "'");
    return settings[key];
}

template <class T>
T get_as(nb::dict settings, const char *key) {
    T value{};
    if (!nb::try_cast<T>(get(settings, key), value))
        raise_settings("have an invalid value of '" + std::string(key) + "'");
    return value;
}

std::string get_text(nb::dict settings, const char *key) {
    const nb::object text = get(settings, key);
    Buffer<uint8_t> bytes;
    if (!PyUnicode_Check(text.ptr()) || !append_utf8(text.ptr(), bytes))
        raise_settings("have an invalid value of '" + std::string(key) + "'");
    return {reinterpret_cast<const char *>(bytes.data()), bytes.size()};
}

// A text that is searched for, for which the length of the search is bounded.
std::string get_pattern(nb::dict settings, const char *key) {
    std::string text = get_text(settings, key);
    if (text.empty() || text.size() > kMaxKey)
        raise_settings("have an invalid value of '" + std::string(key) + "'");
    return text;
}

template <class Use>
void each_step(nb::dict settings, const char *key, const Use &use) {
    for (nb::handle step : get_as<nb::list>(settings, key)) {
        if (!nb::isinstance<nb::dict>(step))
            raise_settings("have an invalid value of '" + std::string(key) + "'");
        use(nb::cast<nb::dict>(step));
    }
}

[[noreturn]] void raise_unknown(const char *what, const std::string &type) {
    raise_settings("name the " + std::string(what) + " '" + type + "', which is not known");
}

NormalizerStep read_normalizer_step(nb::dict step) {
    using Step = NormalizerStep;
    const std::string type = get_text(step, "type");
    Step read{};
    if (type == "characters") {
        read.kind = Step::kCharacters;
    } else if (type == "charsmap") {
        read.kind = Step::kCharsmap;
    } else if (type == "prepend") {
        read.kind = Step::kPrepend;
        read.content = get_text(step, "content");
    } else if (type == "replace" || type == "replace_runs") {
        read.kind = type == "replace" ? Step::kReplace : Step::kReplaceRuns;
        read.pattern = get_pattern(step, "pattern");
        read.content = get_text(step, "content");
        if (read.kind == Step::kReplaceRuns) read.least = get_as<size_t>(step, "least");
    } else if (type == "strip") {
        read.kind = Step::kStrip;
        read.left = get_as<bool>(step, "left");
        read.right = get_as<bool>(step, "right");
    } else {
        raise_unknown("normalizer", type);
    }
    return read;
}

PreTokenizerStep read_pre_tokenizer_step(nb::dict step) {
    using Step = PreTokenizerStep;
    const std::string type = get_text(step, "type");
    Step read{};
    if (type == "bert") {
        read.kind = Step::kBert;
    } else if (type == "whitespace_split") {
        read.kind = Step::kWhitespaceSplit;
    } else if (type == "whitespace") {
        read.kind = Step::kWhitespace;
    } else if (type == "punctuation") {
        read.kind = Step::kPunctuation;
    } else if (type == "metaspace") {
        read.kind = Step::kMetaspace;
        read.replacement = get_pattern(step, "replacement");
        read.split = get_as<bool>(step, "split");
        const std::string prepend = get_text(step, "prepend");
        if (prepend != "always" && prepend != "first" && prepend != "never")
            raise_settings("have an invalid value of 'prepend'");
        read.prepend = prepend == "always" ? Step::kAlways : prepend == "first" ? Step::kFirst : Step::kNever;
    } else if (type == "byte_level") {
        read.kind = Step::kByteLevel;
        read.prefix_space = get_as<bool>(step, "prefix_space");
        if (!get(step, "pattern").is_none())
            read.pattern = get_text(step, "pattern") == "gpt2" ? ByteLevel::kGpt2 : ByteLevel::kLlama3;
    } else {
        raise_unknown("pre-tokenizer", type);
    }
    return read;
}

std::vector<NormalizerStep> read_normalizer(nb::dict settings) {
    std::vector<NormalizerStep> steps;
    each_step(settings, "normalizer", [&](nb::dict step) { steps.push_back(read_normalizer_step(step)); });
    return steps;
}

std::vector<PreTokenizerStep> read_pre_tokenizer(nb::dict settings) {
    std::vector<PreTokenizerStep> steps;
    each_step(settings, "pre_tokenizer",
              [&](nb::dict step) { steps.push_back(read_pre_tokenizer_step(step)); });
    return steps;
}

std::vector<ListedToken> read_added(nb::dict settings) {
    std::vector<ListedToken> tokens;
    each_step(settings, "added", [&](nb::dict token) {
        tokens.push_back(
            {{get_as<uint32_t>(token, "id"), get_text(token, "content"), get_as<bool>(token, "single_word"),
              get_as<bool>(token, "lstrip"), get_as<bool>(token, "rstrip")},
             get_as<bool>(token, "normalized")});
    });
    return tokens;
}

}  // namespace

Texts::Texts(nb::handle sequence, std::optional<size_t> max_characters) {
    const Strings items(sequence, "texts must be a sequence of str");
    offsets.resize(items.size() + 1);
    offsets[0] = 0;
    for (size_t i = 0; i < items.size(); ++i) {
        items.expect_string(i, "texts");
        if (!append_utf8(items[i], bytes, max_characters.value_or(SIZE_MAX)))
            raise_error("InputError",
                        "texts[" + std::to_string(i) +
                            "] has a lone surrogate, which UTF-8 cannot encode; please remove it");
        offsets[i + 1] = bytes.size();
    }
}

Tokenizer::Tokenizer(nb::dict settings, nb::dict tensors) {
    raising_faults([&] {
        pipeline_ = std::make_unique<Pipeline>(read_characters(tensors), read_charsmap(settings, tensors),
                                               read_normalizer(settings), read_pre_tokenizer(settings),
                                               read_model(settings, tensors), read_added(settings));
    });
}

// A view of a tensor, kept with the tokenizer.
const View &Tokenizer::view(nb::dict tensors, const char *name, const char *formats) {
    if (!tensors.contains(name))
        raise_error("TokenizerError",
                    "the tokenizer needs the tensor '" + std::string(name) + "', which is missing");
    views_.push_back(std::make_unique<View>(tensors[name], name, formats));
    return *views_.back();
}

Span Tokenizer::bytes(nb::dict tensors, const char *name) {
    const View &found = view(tensors, name, "B");
    return {found.data<const uint8_t>(), found.size()};
}

Trie Tokenizer::trie(nb::dict tensors, const char *name) {
    const View &found = view(tensors, name, "I");
    return {found.data<const uint32_t>(), found.size()};
}

Characters Tokenizer::read_characters(nb::dict tensors) {
    const View &blocks = view(tensors, "character_blocks", "H");
    const View &entries = view(tensors, "characters", "I");
    return {blocks.data<const uint16_t>(), blocks.size(), entries.data<const uint32_t>(), entries.size(),
            bytes(tensors, "character_text")};
}

Charsmap Tokenizer::read_charsmap(nb::dict settings, nb::dict tensors) {
    for (const NormalizerStep &step : read_normalizer(settings))
        if (step.kind == NormalizerStep::kCharsmap)
            return {trie(tensors, "charsmap"), bytes(tensors, "charsmap_text")};
    return {};
}

std::unique_ptr<Segmenter> Tokenizer::read_model(nb::dict settings, nb::dict tensors) {
    const auto model = get_as<nb::dict>(settings, "model");
    const std::string type = get_text(model, "type");
    std::optional<uint32_t> unknown;
    if (!get(model, "unknown").is_none()) unknown = get_as<uint32_t>(model, "unknown");
    if (type == "wordpiece") {
        if (!unknown) raise_settings("have no unknown token, which WordPiece needs");
        const std::string prefix = get_text(model, "prefix");
        return std::make_unique<WordPiece>(
            trie(tensors, "token_trie"), *unknown,
            Span{reinterpret_cast<const uint8_t *>(prefix.data()), prefix.size()},
            get_as<size_t>(model, "max_characters"));
    }
    if (type == "unigram") {
        const View &scores = view(tensors, "token_scores", "d");
        return std::make_unique<Unigram>(trie(tensors, "token_trie"), scores.data<const double>(),
                                         scores.size(), unknown, get_as<bool>(model, "byte_fallback"));
    }
    if (type == "bpe") {
        const View &merges = view(tensors, "token_merges", "I"), &index = view(tensors, "merge_index", "I");
        if (merges.size() % 3 != 0 || index.size() == 0 || (index.size() & (index.size() - 1)) != 0)
            raise_error("TokenizerError", "token_merges has " + std::to_string(merges.size()) +
                                              " values and merge_index " + std::to_string(index.size()) +
                                              " slots, expected three of each merge and a power of two");
        return std::make_unique<Bpe>(trie(tensors, "token_trie"),
                                     MergeIndex(merges.data<const uint32_t>(), merges.size() / 3,
                                                index.data<const uint32_t>(), index.size()),
                                     unknown.value_or(Bpe::kNone), get_as<bool>(model, "fuse_unknown"),
                                     get_as<bool>(model, "byte_fallback"),
                                     get_as<bool>(model, "ignore_merges"));
    }
    raise_unknown("model", type);
}

// (ids int64, offsets int64 [texts + 1])
nb::tuple Tokenizer::tokenize(nb::handle texts, std::optional<size_t> max_characters,
                              std::optional<size_t> max_tokens, std::optional<uint32_t> skip) const {
    const Texts packed(texts, max_characters);
    Buffer<int64_t> all, offsets(packed.count() + 1);
    offsets[0] = 0;
    raising_faults([&] {
        const GilRelease released(packed.bytes.size() * kTextWork);
        Workspace work;
        TokenIds ids;
        for (size_t i = 0; i < packed.count(); ++i) {
            ids.resize(0);
            pipeline_->append_ids(packed[i], max_tokens.value_or(SIZE_MAX), work, ids);
            all.reserve(ids.size());
            for (size_t k = 0; k < ids.size(); ++k)
                if (ids[k] != skip) all.push(ids[k]);
            offsets[i + 1] = static_cast<int64_t>(all.size());
        }
    });
    return nb::make_tuple(to_numpy(std::move(all)), to_numpy(std::move(offsets)));
}

void bind_tokenizer(nb::module_ &m) {
    m.def("build_trie", &build_trie);
    m.def("find_in_trie", &find_in_trie);
    nb::class_<Tokenizer>(m, "Tokenizer")
        .def(nb::init<nb::dict, nb::dict>(), nb::arg("settings"), nb::arg("tensors"))
        .def("tokenize", &Tokenizer::tokenize, nb::arg("texts"),
             nb::arg("max_characters").none() = nb::none(), nb::arg("max_tokens").none() = nb::none(),
             nb::arg("skip").none() = nb::none());
}
