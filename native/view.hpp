// A type-checked C-contiguous view of a Python buffer, held during its lifetime.
#pragma once
#include <nanobind/nanobind.h>

#include <cstring>
#include <string>

class View {
  public:
    enum class Access { read, write };

    View() = default;

    // Throws TypeError unless the items have one of `formats` (struct characters: "B" uint8, "f" float32 …).
    View(nanobind::handle object, const char *name, const char *formats, Access access = Access::read) {
        int flags = PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (access == Access::write ? PyBUF_WRITABLE : 0);
        if (PyObject_GetBuffer(object.ptr(), &view_, flags) != 0) throw nanobind::python_error();
        const char *format = view_.format ? view_.format : "B";
        if (std::strlen(format) != 1 || !std::strchr(formats, *format)) {
            std::string message = std::string(name) + " has items of format '" + format +
                                  "', expected one of '" + formats + "'";
            PyBuffer_Release(&view_);
            throw nanobind::type_error(message.c_str());
        }
    }

    View(View &&other) noexcept : view_(other.view_) { other.view_.obj = nullptr; }
    View &operator=(View &&other) noexcept {
        std::swap(view_, other.view_);
        return *this;
    }
    ~View() {
        if (view_.obj) PyBuffer_Release(&view_);
    }

    template <class T>
    T *data() const {
        return static_cast<T *>(view_.buf);
    }
    explicit operator bool() const { return view_.obj != nullptr; }
    size_t nbytes() const { return static_cast<size_t>(view_.len); }
    size_t size() const { return *this ? nbytes() / static_cast<size_t>(view_.itemsize) : 0; }
    size_t itemsize() const { return static_cast<size_t>(view_.itemsize); }
    int ndim() const { return view_.ndim; }
    size_t shape(int axis) const { return static_cast<size_t>(view_.shape[axis]); }
    char format() const { return view_.format ? *view_.format : 'B'; }

  private:
    Py_buffer view_{};
};

// Throws ValueError unless the sizes are equal.
inline void expect_size(const char *what, size_t found, size_t expected) {
    if (found == expected) return;
    std::string message =
        std::string(what) + " is " + std::to_string(found) + ", expected " + std::to_string(expected);
    throw nanobind::value_error(message.c_str());
}
