// Text to vectors and tokens.
#include <cstdint>
#include <utility>

#include "bindings.hpp"
#include "gil.hpp"
#include "lines.hpp"
#include "packed.hpp"
#include "valid.hpp"

namespace nb = nanobind;

namespace {

// See smallfry.kernels.numpy.text.parse_lines.
nb::tuple parse_lines(const ByteArray &text, size_t dim) {
    size_t size = text.shape(0);
    const char *p = reinterpret_cast<const char *>(text.data());
    if (dim == 0 || (size != 0 && p[size - 1] != '\n'))
        raise_error("InputError",
                    "lines to parse need a dim of at least 1 and a newline at the end of the text");
    LineParser parser(dim, p + size);
    {
        GilRelease release(size);
        for (const char *end = p + size; p < end;) p = parser.parse(p);
    }
    size_t rows = parser.lines.size(), problems = parser.problems.size() / 3;
    return nb::make_tuple(to_numpy(std::move(parser.vectors), {rows, dim}),
                          to_numpy(std::move(parser.tokens)), to_numpy(std::move(parser.offsets)),
                          to_numpy(std::move(parser.lines)),
                          to_numpy(std::move(parser.problems), {problems, 3}), parser.line_count,
                          parser.empty, parser.crlf, parser.spaced);
}

// The positions of the tokens that are not valid UTF-8, int64 [k].
nb::ndarray<nb::numpy, int64_t> invalid_utf8(const ByteArray &bytes, const OffsetArray &offsets) {
    Buffer<uint64_t> checked = checked_offsets(offsets, bytes.shape(0));
    Buffer<int64_t> invalid;
    const uint8_t *data = bytes.data();
    for (size_t i = 0; i + 1 < checked.size(); ++i) {
        const uint8_t *begin = data + checked[i], *end = data + checked[i + 1];
        if (!is_ascii(begin, end) && !is_utf8(begin, end)) invalid.push(static_cast<int64_t>(i));
    }
    return to_numpy(std::move(invalid));
}

}  // namespace

void bind_text(nb::module_ &m) {
    m.def("parse_lines", &parse_lines, nb::arg("text").noconvert(), nb::arg("dim"));
    m.def("invalid_utf8", &invalid_utf8, nb::arg("buf").noconvert(), nb::arg("offsets").noconvert());
}
