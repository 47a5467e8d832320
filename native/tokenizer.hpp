// A tokenizer over the tables of a file: settings, views of the arrays, and the steps made of them.
#pragma once
#include <nanobind/nanobind.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "errors.hpp"
#include "pipeline.hpp"
#include "view.hpp"

class Tokenizer {
  public:
    // `settings` is the parsed JSON of the tensor `tokenizer`, `tensors` the arrays by name.
    // Raises TokenizerError.
    Tokenizer(nanobind::dict settings, nanobind::dict tensors);

    nanobind::tuple tokenize(nanobind::handle texts, std::optional<size_t> max_characters,
                             std::optional<size_t> max_tokens, std::optional<uint32_t> skip) const;

    // Appends the ids of a text, at most `max_tokens`. Needs no GIL. Throws TokenizerFault.
    void append_ids(Span text, size_t max_tokens, Workspace &work, TokenIds &ids) const {
        pipeline_->append_ids(text, max_tokens, work, ids);
    }

  private:
    const View &view(nanobind::dict tensors, const char *name, const char *formats);
    Span bytes(nanobind::dict tensors, const char *name);
    Trie trie(nanobind::dict tensors, const char *name);
    Characters read_characters(nanobind::dict tensors);
    Charsmap read_charsmap(nanobind::dict settings, nanobind::dict tensors);
    std::unique_ptr<Segmenter> read_model(nanobind::dict settings, nanobind::dict tensors);

    std::vector<std::unique_ptr<View>> views_;
    std::unique_ptr<Pipeline> pipeline_;
};

// Texts as UTF-8: text i is bytes[offsets[i] … offsets[i + 1]).
struct Texts {
    Buffer<uint8_t> bytes;
    Buffer<size_t> offsets;

    // Encodes a sequence of str. Raises TypeError, and InputError for lone surrogates.
    Texts(nanobind::handle sequence, std::optional<size_t> max_characters);

    size_t count() const { return offsets.size() - 1; }
    Span operator[](size_t i) const { return {bytes.data() + offsets[i], offsets[i + 1] - offsets[i]}; }
};

// Runs `work`, and raises what it finds wrong with the tables as TokenizerError.
template <class Work>
auto raising_faults(const Work &work) {
    try {
        return work();
    } catch (const TokenizerFault &fault) {
        raise_error("TokenizerError", fault.what());
    }
}

// Bytes of work of a byte of text, for the release of the GIL.
constexpr size_t kTextWork = 32;
