// Parses text to vectors and tokens, formats vectors as text, and validates UTF-8.
#include <array>
#include <cstdint>
#include <cstring>
#include <utility>

#include "bindings.hpp"
#include "digits.hpp"
#include "gil.hpp"
#include "json.hpp"
#include "lines.hpp"
#include "packed.hpp"
#include "valid.hpp"

namespace nb = nanobind;

namespace {

// Two characters of base64 for each 12 bits.
const auto kBase64 = [] {
    const char *digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::array<std::array<uint8_t, 2>, 4096> table;
    for (size_t i = 0; i < table.size(); ++i)
        table[i] = {static_cast<uint8_t>(digits[i >> 6]), static_cast<uint8_t>(digits[i & 63])};
    return table;
}();

// See smallfry.kernels.numpy.text.parse_lines.
nb::tuple parse_lines(nb::handle text, size_t dim, uint8_t delimiter, bool has_tokens, bool quoted) {
    const View view(text, "text", "B");
    size_t size = view.size();
    const char *p = view.data<const char>();
    if (dim == 0 || (size != 0 && p[size - 1] != '\n'))
        raise_error("InputError", "parsing needs a dim of at least 1 and text that ends with a newline");
    LineParser parser(dim, p + size, static_cast<char>(delimiter), has_tokens, quoted);
    {
        GilRelease release(size);
        for (const char *end = p + size; p < end;) p = parser.parse(p);
    }
    size_t rows = parser.lines.size(), problems = parser.problems.size() / 3;
    return nb::make_tuple(to_numpy(std::move(parser.vectors), {rows, dim}),
                          to_numpy(std::move(parser.tokens)), to_numpy(std::move(parser.offsets)),
                          to_numpy(std::move(parser.lines)),
                          to_numpy(std::move(parser.problems), {problems, 3}), parser.line_count,
                          parser.empty, parser.crlf, parser.spaced, parser.unquoted);
}

// See smallfry.kernels.numpy.text.format_rows.
nb::tuple format_rows(nb::handle vectors) {
    const View view(vectors, "vectors", "f");
    expect_size("number of dimensions of vectors", view.ndim(), 2);
    const size_t rows = view.shape(0), dim = view.shape(1);
    const float *value = view.data<const float>();
    Buffer<uint8_t> text;
    Buffer<int64_t> offsets;
    {
        GilRelease release(view.size() * sizeof(float));
        offsets.push(0);
        for (size_t row = 0; row < rows; ++row) {
            text.reserve(dim * (kMaxFloat + 1));
            char *begin = reinterpret_cast<char *>(text.data() + text.size()), *p = begin;
            for (size_t column = 0; column < dim; ++column) {
                if (column != 0) *p++ = ' ';
                p = format_float(p, *value++);
            }
            text.resize(text.size() + static_cast<size_t>(p - begin));
            offsets.push(static_cast<int64_t>(text.size()));
        }
    }
    return nb::make_tuple(to_numpy(std::move(text)), to_numpy(std::move(offsets)));
}

// See smallfry.kernels.numpy.text.format_json.
nb::tuple format_json_rows(nb::handle vectors) {
    const View view(vectors, "vectors", "f");
    expect_size("number of dimensions of vectors", view.ndim(), 2);
    const size_t rows = view.shape(0), dim = view.shape(1);
    const float *values = view.data<const float>();
    Buffer<uint8_t> text;
    Buffer<int64_t> offsets(rows + 1);
    {
        GilRelease release(view.nbytes());
        JsonWriter writer(view.size());
        text.reserve(rows * JsonWriter::row_size(dim));
        char *const begin = reinterpret_cast<char *>(text.data()), *p = begin;
        for (size_t row = 0; row < rows; ++row) {
            offsets[row] = p - begin;
            p = writer.write_row(p, values + row * dim, dim);
        }
        offsets[rows] = p - begin;
        text.resize(static_cast<size_t>(p - begin));
    }
    return nb::make_tuple(to_numpy(std::move(text)), to_numpy(std::move(offsets)));
}

// Writes the base64 of bytes, and returns its end.
uint8_t *write_base64(const uint8_t *p, size_t length, uint8_t *out) {
    const uint8_t *whole = p + length / 3 * 3;
    for (; p < whole; p += 3, out += 4) {
        const uint32_t bits = uint32_t{p[0]} << 16 | uint32_t{p[1]} << 8 | p[2];
        std::memcpy(out, &kBase64[bits >> 12], 2);
        std::memcpy(out + 2, &kBase64[bits & 4095], 2);
    }
    const size_t rest = length % 3;
    if (rest == 0) return out;
    const uint32_t bits = uint32_t{p[0]} << 16 | (rest == 2 ? uint32_t{p[1]} << 8 : 0);
    std::memcpy(out, &kBase64[bits >> 12], 2);
    out[2] = rest == 2 ? kBase64[bits & 4095][0] : '=';
    out[3] = '=';
    return out + 4;
}

// The base64 of each row, uint8 [rows, 4 * ceil(row bytes / 3)].
nb::ndarray<nb::numpy, uint8_t> encode_base64(nb::handle vectors) {
    const View view(vectors, "vectors", "f");
    expect_size("number of dimensions of vectors", view.ndim(), 2);
    const size_t rows = view.shape(0), length = view.shape(1) * sizeof(float);
    const size_t width = (length + 2) / 3 * 4;
    const uint8_t *p = view.data<const uint8_t>();
    Buffer<uint8_t> text;
    text.resize(rows * width);
    {
        GilRelease release(rows * width);
        uint8_t *out = text.data();
        for (size_t row = 0; row < rows; ++row, p += length) out = write_base64(p, length, out);
    }
    return to_numpy(std::move(text), {rows, width});
}

// The positions of the tokens that are not valid UTF-8, int64 [k].
nb::ndarray<nb::numpy, int64_t> invalid_utf8(nb::handle buf, nb::handle offsets) {
    const PackedTokens tokens(buf, offsets);
    Buffer<int64_t> invalid;
    for (size_t i = 0; i < tokens.count(); ++i) {
        const uint8_t *begin = tokens.begin(i), *end = begin + tokens.length(i);
        if (!is_ascii(begin, end) && !is_utf8(begin, end)) invalid.push(static_cast<int64_t>(i));
    }
    return to_numpy(std::move(invalid));
}

// See smallfry.kernels.numpy.text.count_values.
size_t count_values(nb::handle json) {
    const View view(json, "json", "B");
    const uint8_t *p = view.data<const uint8_t>(), *end = p + view.size();
    GilRelease release(view.size());
    size_t count = 0;
    for (bool in_string = false; p < end; ++p) {
        if (*p == '"')
            in_string = !in_string;
        else if (*p == '\\')
            p += p + 1 < end && (p[1] == '"' || p[1] == '\\');
        else if (!in_string)
            count += *p == ',' || *p == '[' || *p == '{';
    }
    return count;
}

}  // namespace

void bind_text(nb::module_ &m) {
    m.def("parse_lines", &parse_lines, nb::arg("text"), nb::arg("dim"), nb::arg("delimiter") = 0,
          nb::arg("has_tokens") = true, nb::arg("quoted") = false);
    m.def("format_rows", &format_rows);
    m.def("format_json", &format_json_rows);
    m.def("encode_base64", &encode_base64);
    m.def("invalid_utf8", &invalid_utf8);
    m.def("count_values", &count_values);
}
