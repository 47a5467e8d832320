// Encodes Python strings as UTF-8.
#pragma once
#include <nanobind/nanobind.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <new>

#include "buffer.hpp"
#include "hash.hpp"
#include "valid.hpp"

#ifdef Py_LIMITED_API
// The stable ABI does not show the characters of a string. CPython encodes it, and caches the UTF-8 in the
// string unless it is ASCII; what is longer than kCached is encoded into a temporary object.
constexpr Py_ssize_t kCached = 256;

// Appends the UTF-8 of a Python string, or of its first `limit` characters. Returns false and appends nothing
// if they hold a lone surrogate. Needs the GIL; throws nanobind::python_error or std::bad_alloc.
inline bool append_utf8(PyObject *string, Buffer<uint8_t> &out, size_t limit = SIZE_MAX) {
    nanobind::object part, bytes;
    Py_ssize_t length = PyUnicode_GetLength(string);
    if (static_cast<size_t>(length) > limit) {
        length = static_cast<Py_ssize_t>(limit);
        part = nanobind::steal(PyUnicode_Substring(string, 0, length));
        if (!part.is_valid()) throw nanobind::python_error();
        string = part.ptr();
    }
    const char *encoded = nullptr;
    Py_ssize_t size = 0;
    if (length <= kCached) {
        encoded = PyUnicode_AsUTF8AndSize(string, &size);
    } else {
        bytes = nanobind::steal(PyUnicode_AsUTF8String(string));
        if (bytes.is_valid()) {
            encoded = PyBytes_AsString(bytes.ptr());
            size = PyBytes_Size(bytes.ptr());
        }
    }
    if (encoded == nullptr) {
        if (!PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) throw nanobind::python_error();
        PyErr_Clear();
        return false;
    }
    out.reserve(static_cast<size_t>(size) + kSlack);
    out.append(reinterpret_cast<const uint8_t *>(encoded), static_cast<size_t>(size));
    return true;
}
#else
// Whether the characters of a string follow its header, so that the bytes before them can be read.
#ifdef PYPY_VERSION
constexpr bool kBehindHeader = false;
#else
constexpr bool kBehindHeader = true;
#endif

// Copies the characters of an ASCII string. Writes up to kSlack bytes past the end.
inline void copy_characters(const uint8_t *from, size_t count, uint8_t *to) {
    static_assert(sizeof(PyASCIIObject) >= 8,
                  "a word that ends with the first character is inside the string");
    if (count > kShort || !kBehindHeader) {
        std::memcpy(to, from, count);
        return;
    }
    const uint64_t longer = if_longer_than_word(count);
    const uint64_t last = load_word(from + count - 8);  // ends with the last character
    const size_t pad = (8 - count) & ~longer;           // its bytes before the first character
    const uint64_t tail = last >> 4 * pad >> 4 * pad;
    // A short string reads the same word twice, so that nothing past its last character is read.
    const auto before = static_cast<ptrdiff_t>((count - 8) & ~longer);
    const uint64_t first = (load_word(from + before) & longer) | (tail & ~longer);
    std::memcpy(to, &first, 8);
    std::memcpy(to + ((count - 8) & longer), &tail, 8);
}

template <typename Char>
bool append_encoded(const Char *characters, size_t count, Buffer<uint8_t> &out) {
    out.reserve(count * 4 + kSlack);
    uint8_t *p = out.data() + out.size();
    for (size_t i = 0; i < count; ++i) {
        if (is_surrogate(characters[i])) return false;
        p = encode_utf8(characters[i], p);
    }
    out.resize(static_cast<size_t>(p - out.data()));
    return true;
}

// Without the copy that CPython would cache in the string.
inline bool append_utf8(PyObject *string, Buffer<uint8_t> &out, size_t limit = SIZE_MAX) {
#if PY_VERSION_HEX < 0x030C0000
    if (PyUnicode_READY(string) < 0) throw nanobind::python_error();
#endif
    const size_t count = std::min(static_cast<size_t>(PyUnicode_GET_LENGTH(string)), limit);
    const void *data = PyUnicode_DATA(string);
    if (PyUnicode_IS_COMPACT_ASCII(string)) {
        if (count > PTRDIFF_MAX - kSlack) throw std::bad_alloc();
        out.reserve(count + kSlack);
        copy_characters(static_cast<const uint8_t *>(data), count, out.data() + out.size());
        out.resize(out.size() + count);
        return true;
    }
    switch (PyUnicode_KIND(string)) {
        case PyUnicode_1BYTE_KIND:
            return append_encoded(static_cast<const Py_UCS1 *>(data), count, out);
        case PyUnicode_2BYTE_KIND:
            return append_encoded(static_cast<const Py_UCS2 *>(data), count, out);
        default:
            return append_encoded(static_cast<const Py_UCS4 *>(data), count, out);
    }
}
#endif
