// The parser of vector text: its rows are complete for any text, and numbers equal those of strtod.
#include "lines.hpp"

#include <algorithm>
#include <cmath>
#include <string>

#include "input.hpp"
#include "valid.hpp"

namespace {

void check_number(const char *begin, const char *limit) {
    double value = 0;
    const char *end = parse_number(begin, limit, value);
    if (end == nullptr) return;
    expect(begin < end && end < limit, "a number ends inside the text");
    const std::string text(begin, end);
    const double expected = std::strtod(text.c_str(), nullptr);
    expect(std::isnan(value) ? std::isnan(expected) : value == expected, "a number is rounded correctly");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Input input(data, size);
    const size_t dim = input.take_size(1, 6), dialect = input.take_size(0, 15);
    const char delimiter = "\0\t,;"[dialect & 3];
    const bool has_tokens = (dialect & 4) == 0, quoted = (dialect & 8) != 0;
    const size_t length = input.left();
    auto text = input.take_array<char>(length + 1);
    text[length] = '\n';
    const char *p = text.get(), *end = p + length + 1;
    check_number(p, end);

    LineParser parser(dim, end, delimiter, has_tokens, quoted);
    while (p < end) {
        const char *next = parser.parse(p);
        expect(p < next && next <= end && next[-1] == '\n', "a line ends with its newline");
        p = next;
    }
    const size_t rows = parser.lines.size();
    expect(parser.vectors.size() == rows * dim, "a row has dim values");
    expect(parser.offsets.size() == rows + 1, "a row has a token");
    expect(parser.problems.size() % 3 == 0, "a problem has three numbers");
    const auto newlines = std::count(parser.tokens.data(), parser.tokens.data() + parser.tokens.size(), '\n');
    expect(static_cast<int64_t>(rows + parser.problems.size() / 3) + parser.empty + newlines ==
               parser.line_count,
           "a line is a row, a problem, empty or a newline of a token");
    for (size_t i = 0; i < rows; ++i) {
        expect(parser.offsets[i] <= parser.offsets[i + 1], "tokens are in order");
        const uint8_t *token = parser.tokens.data() + parser.offsets[i];
        const uint8_t *token_end = parser.tokens.data() + parser.offsets[i + 1];
        expect(!is_ascii(token, token_end) || is_utf8(token, token_end), "ASCII is UTF-8");
    }
    return 0;
}
