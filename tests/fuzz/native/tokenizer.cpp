// Tokenizers: arbitrary tables and settings cause no read or write outside, and every text ends.
#include "bpe.hpp"
#include "input.hpp"
#include "pipeline.hpp"
#include "trie_builder.hpp"
#include "unigram.hpp"
#include "wordpiece.hpp"

namespace {

std::string take_text(Input &input, size_t low, size_t high) {
    std::string text(input.take_size(low, high), '\0');
    for (char &byte : text) byte = input.take<char>();
    return text;
}

Span span_of(const std::string &text) {
    return {reinterpret_cast<const uint8_t *>(text.data()), text.size()};
}

// An array of exactly its size, so that reads outside are detected.
template <class T>
struct Array {
    size_t size;
    std::unique_ptr<T[]> values;

    Array(Input &input, size_t low, size_t high)
        : size(input.take_size(low, high)), values(input.take_array<T>(size)) {}
};

// Units of a trie: arbitrary, or built from keys, so that walks go deep.
struct Units {
    std::unique_ptr<uint32_t[]> values;
    size_t size = 0;

    Units(Input &input, uint32_t tokens) {
        if (input.take<uint8_t>() % 4 == 0) {
            size = input.take_size(0, 600);
            values = input.take_array<uint32_t>(size);
            return;
        }
        std::vector<std::string> keys(input.take_size(0, 12));
        for (std::string &key : keys) {
            key = take_text(input, 1, 5);
            for (char &byte : key) byte = byte ? byte : 'a';
        }
        std::sort(keys.begin(), keys.end());
        keys.erase(std::unique(keys.begin(), keys.end()), keys.end());
        std::vector<TrieKey> to_build;
        for (uint32_t i = 0; i < keys.size(); ++i)
            to_build.push_back({span_of(keys[i]).data, keys[i].size(), i % (tokens + 1)});
        const Buffer<uint32_t> units = TrieBuilder(std::move(to_build)).build();
        size = units.size();
        values.reset(new uint32_t[size]);
        std::copy_n(units.data(), size, values.get());
    }

    Trie trie() const { return {values.get(), size}; }
};

std::vector<NormalizerStep> take_normalizer(Input &input) {
    std::vector<NormalizerStep> steps(input.take_size(0, 3));
    for (NormalizerStep &step : steps) {
        step.kind = static_cast<NormalizerStep::Kind>(input.take<uint8_t>() % 6);
        step.pattern = take_text(input, 1, 3);
        step.content = take_text(input, 0, 4);
        step.least = input.take_size(0, 3);
        step.left = input.take<uint8_t>() & 1;
        step.right = input.take<uint8_t>() & 1;
    }
    return steps;
}

std::vector<PreTokenizerStep> take_pre_tokenizer(Input &input) {
    std::vector<PreTokenizerStep> steps(input.take_size(0, 3));
    for (PreTokenizerStep &step : steps) {
        step.kind = static_cast<PreTokenizerStep::Kind>(input.take<uint8_t>() % 6);
        step.prepend = static_cast<PreTokenizerStep::Prepend>(input.take<uint8_t>() % 3);
        step.replacement = take_text(input, 1, 3);
        step.split = input.take<uint8_t>() & 1;
        step.prefix_space = input.take<uint8_t>() & 1;
        step.pattern = static_cast<ByteLevel::Pattern>(input.take<uint8_t>() % 3);
    }
    return steps;
}

std::vector<ListedToken> take_added(Input &input) {
    std::vector<ListedToken> added(input.take_size(0, 6));
    for (auto &[token, normalized] : added) {
        const auto flags = input.take<uint8_t>();
        token = {input.take<uint8_t>(), take_text(input, 1, 4), (flags & 1) != 0, (flags & 2) != 0,
                 (flags & 4) != 0};
        normalized = (flags & 8) != 0;
    }
    return added;
}

// Merges and their index: arbitrary, or merges of the tokens in an index that leads to each of them.
struct Merges {
    Array<uint32_t> merges;
    size_t slots;
    std::unique_ptr<uint32_t[]> index;

    Merges(Input &input, uint32_t tokens) : merges(input, 0, 30), slots(size_t{1} << input.take_size(0, 6)) {
        if (input.take<uint8_t>() % 4 == 0) {
            index = input.take_array<uint32_t>(slots);
            return;
        }
        index.reset(new uint32_t[slots]());
        for (size_t i = 0; i < merges.size; ++i) merges.values[i] %= tokens + 1;
        for (size_t i = 0; i < slots && merges.size >= 3; ++i)
            index[i] = static_cast<uint32_t>(i % (merges.size / 3)) + 1;
    }

    MergeIndex table() const { return {merges.values.get(), merges.size / 3, index.get(), slots}; }
};

void tokenize(Input &input) {
    const auto kind = input.take<uint8_t>();
    const auto tokens = static_cast<uint32_t>(input.take_size(1, 20));
    const uint32_t unknown = input.take<uint8_t>() % 2 ? Trie::kNone : tokens - 1;
    const bool flags[3] = {(kind & 16) != 0, (kind & 32) != 0, (kind & 64) != 0};

    const Array<uint16_t> blocks(input, 0, 4);
    const Array<uint32_t> entries(input, 0, 300);
    const Array<uint8_t> replacements(input, 0, 40);
    const Characters characters(blocks.values.get(), blocks.size, entries.values.get(), entries.size,
                                {replacements.values.get(), replacements.size});
    const Units map(input, tokens), trie(input, tokens);
    const Array<uint8_t> mapped(input, 0, 30);
    const Charsmap charsmap(map.trie(), {mapped.values.get(), mapped.size});

    const Array<double> scores(input, 0, 20);
    const Merges merges(input, tokens);
    const std::string prefix = take_text(input, 0, 2);
    std::unique_ptr<Segmenter> segmenter;
    if (kind % 3 == 0)
        segmenter =
            std::make_unique<WordPiece>(trie.trie(), tokens - 1, span_of(prefix), input.take_size(1, 20));
    else if (kind % 3 == 1)
        segmenter = std::make_unique<Unigram>(trie.trie(), scores.values.get(), scores.size,
                                              unknown == Trie::kNone ? std::nullopt : std::optional(unknown),
                                              flags[0]);
    else
        segmenter = std::make_unique<Bpe>(trie.trie(), merges.table(), unknown, flags[0], flags[1], flags[2]);
    auto normalizer = take_normalizer(input);
    auto pre_tokenizer = take_pre_tokenizer(input);
    const Pipeline pipeline(characters, charsmap, std::move(normalizer), std::move(pre_tokenizer),
                            std::move(segmenter), take_added(input));

    Workspace work;
    for (int i = 0; i < 3; ++i) {
        const Array<uint8_t> text(input, 0, 100);
        const Span whole{text.values.get(), text.size};
        const size_t most = input.take<uint8_t>() % 8;
        TokenIds ids, first;
        pipeline.append_ids(whole, SIZE_MAX, work, ids);
        pipeline.append_ids(whole, most, work, first);
        expect(first.size() == std::min(most, ids.size()), "a text has as many tokens as are requested");
        expect(std::equal(first.data(), first.data() + first.size(), ids.data()), "the first tokens");
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Input input(data, size);
    try {
        tokenize(input);
    } catch (const TokenizerFault &) {
    }
    return 0;
}
