// What the segmentation models share: a model splits a normalized piece of text into token ids.
#pragma once
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "buffer.hpp"

// The tables of a tokenizer, which come from a file, contradict each other; raised as TokenizerError.
struct TokenizerFault : std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct Span {
    const uint8_t *data;
    size_t size;

    const uint8_t *end() const { return data + size; }
    Span from(size_t begin, size_t to) const { return {data + begin, to - begin}; }
};

// How many of the first `start` bytes of a text are behind `offset`.
inline size_t start_after(size_t start, ptrdiff_t offset) {
    return start > static_cast<size_t>(offset) ? start - static_cast<size_t>(offset) : 0;
}

using TokenIds = Buffer<uint32_t>;

// The best path of Unigram to a position of a piece: its score, and where its last token starts.
struct PathNode {
    double score;
    uint32_t start, id;
};

// A token of byte pair encoding, in the list of those that are left.
struct BpeSymbol {
    static constexpr uint32_t kEnd = 0xffffffffu;

    uint32_t id, previous, next;  // `previous` of the first one and `next` of a removed one are kEnd
};

// Memory of one thread, used again for each text.
struct Workspace {
    Buffer<uint8_t> normalized[2];
    std::vector<Buffer<uint8_t>> pieces;  // two for each step of the pre-tokenizer
    Buffer<PathNode> path;
    Buffer<BpeSymbol> symbols;
    Buffer<uint64_t> queue;  // merges by rank, then by position
};

class Segmenter {
  public:
    virtual ~Segmenter() = default;

    // Appends the ids of a piece that is not empty. Needs no GIL. Throws TokenizerFault.
    virtual void segment(Span piece, Workspace &work, TokenIds &ids) const = 0;
};
