// Tokens of a JSON request: the strings of a plain parser, and no read outside the text.
#include "json_tokens.hpp"

#include <cctype>
#include <optional>
#include <string>
#include <vector>

#include "input.hpp"

namespace {

struct Malformed {};

// Reads the same texts character by character into strings.
class Reference {
  public:
    explicit Reference(const std::string &text) : text_(text) {}

    std::vector<std::string> read() {
        take("{"), take("\"tokens\""), take(":"), take("[");
        std::vector<std::string> tokens;
        skip_space();
        for (bool first = true; peek() != ']'; first = false) {
            if (!first) take(",");
            take("\"");
            tokens.push_back(read_string());
            skip_space();
        }
        if (++at_ != text_.size()) throw Malformed();
        return tokens;
    }

  private:
    uint8_t peek() const {
        if (at_ >= text_.size()) throw Malformed();
        return static_cast<uint8_t>(text_[at_]);
    }

    uint8_t next() {
        const uint8_t byte = peek();
        ++at_;
        return byte;
    }

    void skip_space() {
        while (at_ < text_.size() && std::string(" \t\r\n").find(text_[at_]) != std::string::npos) ++at_;
    }

    void take(const std::string &word) {
        skip_space();
        if (text_.compare(at_, word.size(), word) != 0) throw Malformed();
        at_ += word.size();
    }

    std::string read_string() {
        std::string string;
        for (uint8_t byte; (byte = next()) != '"';) {
            if (byte < 0x20) throw Malformed();
            if (byte == '\\')
                append(string, read_escape());
            else
                append(string, byte < 0x80 ? byte : read_character(byte));
        }
        return string;
    }

    uint32_t read_character(uint8_t lead) {
        if (lead < 0xC0 || lead >= 0xF8) throw Malformed();
        const int trailing = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : 1;
        uint32_t code = lead & (0x3F >> trailing);
        for (int i = 0; i < trailing; ++i) {
            const uint8_t byte = next();
            if (byte >> 6 != 2) throw Malformed();
            code = code << 6 | (byte & 0x3F);
        }
        const uint32_t least[] = {0x80, 0x800, 0x10000};
        if (code < least[trailing - 1]) throw Malformed();
        return code;
    }

    uint32_t read_escape() {
        const std::string escapes = "\"\\/bfnrt", characters = "\"\\/\b\f\n\r\t";
        const uint8_t mark = next();
        if (mark != 'u') {
            const size_t i = escapes.find(static_cast<char>(mark));
            if (i == std::string::npos) throw Malformed();
            return static_cast<uint8_t>(characters[i]);
        }
        const uint32_t high = read_hex();
        if (high >> 10 != 0x36) return high;
        if (next() != '\\' || next() != 'u') throw Malformed();
        const uint32_t low = read_hex();
        if (low >> 10 != 0x37) throw Malformed();
        return 0x10000 + (high % 0x400) * 0x400 + low % 0x400;
    }

    uint32_t read_hex() {
        uint32_t value = 0;
        for (int i = 0; i < 4; ++i) {
            const uint8_t digit = next();
            if (!std::isxdigit(digit)) throw Malformed();
            value = value * 16 +
                    static_cast<uint32_t>(std::stoi(std::string(1, static_cast<char>(digit)), nullptr, 16));
        }
        return value;
    }

    static void append(std::string &string, uint32_t code) {
        if (code > 0x10FFFF || code >> 11 == 0x1B) throw Malformed();
        uint8_t bytes[4];
        string.append(bytes, encode_utf8(code, bytes));
    }

    const std::string &text_;
    size_t at_ = 0;
};

std::optional<std::vector<std::string>> reference(const std::string &text, size_t most) {
    try {
        auto tokens = Reference(text).read();
        if (tokens.size() <= most) return tokens;
    } catch (const Malformed &) {
    }
    return std::nullopt;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Input input(data, size);
    const bool whole = input.take<uint8_t>() & 1;
    const size_t most = input.take<uint8_t>();
    const uint64_t seed = input.take<uint8_t>();
    std::string text(input.left(), '\0');
    for (char &byte : text) byte = input.take<char>();
    if (!whole) text = "{\"tokens\":[\"" + text + "\"]";
    const auto copy = std::make_unique<uint8_t[]>(text.size());  // without the zero that ends a string
    std::copy(text.begin(), text.end(), copy.get());

    JsonTokens tokens(copy.get(), text.size(), most);
    const auto expected = reference(text, most);
    expect(tokens.read(seed) == expected.has_value(), "a text is read if a plain parser reads it");
    if (!expected) return 0;
    const Queries queries = tokens.queries();
    expect(queries.count == expected->size(), "a text has as many tokens");
    for (size_t i = 0; i < queries.count; ++i) {
        const std::string &token = (*expected)[i];
        const auto *bytes = reinterpret_cast<const uint8_t *>(token.data());
        expect(queries.length(i) == token.size() &&
                   std::equal(token.begin(), token.end(), queries.bytes + queries.begin[i],
                              [](char a, uint8_t b) { return static_cast<uint8_t>(a) == b; }),
               "a token is the string of a plain parser");
        expect(queries.hash[i] == hash_token(bytes, token.size(), seed), "a token has its hash");
        expect(queries.begin[i] + token.size() + kSlack <= queries.readable,
               "bytes after a token are readable");
    }
    return 0;
}
