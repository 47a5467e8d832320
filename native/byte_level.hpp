// The pre-tokenizer of byte-level models: splits a text by the rule of GPT-2 or of Llama 3, and writes each
// byte of a piece as a printable character.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "buffer.hpp"
#include "characters.hpp"

class ByteLevel {
  public:
    enum Pattern { kWhole, kGpt2, kLlama3 };

    explicit ByteLevel(const Characters &characters) : characters_(characters) {
        uint32_t next = 256;
        for (uint32_t byte = 0; byte < 256; ++byte) {
            const bool printable = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte != 0xad);
            const uint32_t code = printable ? byte : next++;
            if (code < 0x80)
                mapped_[byte] = {{static_cast<uint8_t>(code), 0}, 1};
            else
                mapped_[byte] = {
                    {static_cast<uint8_t>(0xc0 | code >> 6), static_cast<uint8_t>(0x80 | (code & 0x3f))}, 2};
        }
    }

    // Appends the characters that stand for the bytes of a piece.
    void map(Span piece, Buffer<uint8_t> &out) const {
        out.reserve(2 * piece.size);
        for (size_t i = 0; i < piece.size; ++i) {
            const Mapped &to = mapped_[piece.data[i]];
            out.append(to.bytes, to.size);
        }
    }

    // Calls use(piece) for each piece in turn, until it returns false; returns whether it never did.
    template <class Use>
    bool split(Span text, Pattern pattern, const Use &use) const {
        if (pattern == kWhole) return use(text);
        for (const uint8_t *at = text.data, *const end = text.end(); at < end;) {
            const uint8_t *next = pattern == kGpt2 ? after_gpt2(at, end) : after_llama3(at, end);
            if (!use({at, static_cast<size_t>(next - at)})) return false;
            at = next;
        }
        return true;
    }

  private:
    static constexpr uint32_t kLetter = Characters::kLetter, kNumber = Characters::kNumber,
                              kSpace = Characters::kSpace, kAny = kLetter | kNumber | kSpace;

    struct Mapped {
        uint8_t bytes[2];
        size_t size;
    };

    // The end of the run of characters whose classes among letter, number and space are `kind`, 0 for none.
    const uint8_t *run(const uint8_t *at, const uint8_t *end, uint32_t kind, size_t most = SIZE_MAX) const {
        for (size_t size; at < end && most > 0; at += size, --most)
            if (!is(characters_.classes(at, end, size), kind)) return at;
        return at;
    }

    static bool is(uint32_t classes, uint32_t kind) {
        return kind ? (classes & kind) != 0 : (classes & kAny) == 0;
    }

    bool is_at(const uint8_t *at, const uint8_t *end, uint32_t kind) const {
        size_t size;
        return at < end && is(characters_.classes(at, end, size), kind);
    }

    // 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
    const uint8_t *after_gpt2(const uint8_t *at, const uint8_t *end) const {
        if (const uint8_t *after = contraction(at, end, false)) return after;
        const uint8_t *const first = at + (*at == ' ');
        for (const uint32_t kind : {kLetter, kNumber, 0u})
            if (is_at(first, end, kind)) return run(first, end, kind);
        return after_space(at, end);
    }

    // (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+
    // |\s+(?!\S)|\s+
    const uint8_t *after_llama3(const uint8_t *at, const uint8_t *end) const {
        if (const uint8_t *after = contraction(at, end, true)) return after;
        size_t size;
        const uint32_t classes = characters_.classes(at, end, size);
        if (classes & kLetter) return run(at, end, kLetter);
        if (!(classes & kNumber) && *at != '\r' && *at != '\n' && is_at(at + size, end, kLetter))
            return run(at + size, end, kLetter);
        if (classes & kNumber) return run(at, end, kNumber, 3);
        const uint8_t *const first = at + (*at == ' ');
        if (is_at(first, end, 0)) {
            const uint8_t *after = run(first, end, 0);
            while (after < end && (*after == '\r' || *after == '\n')) ++after;
            return after;
        }
        const uint8_t *const after = run(at, end, kSpace);
        for (const uint8_t *line = after; line > at; --line)
            if (line[-1] == '\r' || line[-1] == '\n') return line;
        return after_space(at, end);
    }

    // A run of white space, without its last character if that leaves any and more text follows.
    const uint8_t *after_space(const uint8_t *at, const uint8_t *end) const {
        const uint8_t *const after = run(at, end, kSpace);
        if (after == at) return at + read_character(at, end).size;  // only with tables of a damaged file
        const uint8_t *const last = previous_character(at, after);
        return after == end || last == at ? after : last;
    }

    static const uint8_t *contraction(const uint8_t *at, const uint8_t *end, bool any_case) {
        if (*at != '\'') return nullptr;
        const auto left = static_cast<size_t>(end - at);
        const auto letter = [&](size_t i) -> int {
            if (i >= left) return 0;
            return any_case && at[i] >= 'A' && at[i] <= 'Z' ? at[i] + 32 : at[i];
        };
        const int first = letter(1), second = letter(2);
        if (first && std::strchr("stmd", first)) return at + 2;
        if (((first == 'r' || first == 'v') && second == 'e') || (first == 'l' && second == 'l'))
            return at + 3;
        if (any_case && first == 0xc5 && second == 0xbf) return at + 3;  // a long s
        return nullptr;
    }

    const Characters &characters_;
    Mapped mapped_[256];
};
