// The strings of a Python sequence.
#pragma once
#include <nanobind/nanobind.h>

#include <string>

#include "buffer.hpp"

class Strings {
  public:
    // Throws TypeError with `message` if `sequence` is not one.
    Strings(nanobind::handle sequence, const char *message)
        : items_(nanobind::steal(PySequence_Fast(sequence.ptr(), message))) {
        if (!items_.is_valid()) throw nanobind::python_error();
        size_ = static_cast<size_t>(Py_SIZE(items_.ptr()));
#ifdef Py_LIMITED_API
        const auto get = PyList_Check(items_.ptr()) ? PyList_GetItem : PyTuple_GetItem;
        copied_.resize(size_);
        for (size_t i = 0; i < size_; ++i) copied_[i] = get(items_.ptr(), static_cast<Py_ssize_t>(i));
        values_ = copied_.data();
#else
        values_ = PySequence_Fast_ITEMS(items_.ptr());
#endif
    }

    size_t size() const { return size_; }

    // Borrowed.
    PyObject *operator[](size_t i) const { return values_[i]; }

    // Throws TypeError, with `advice` at its end, unless item i is a string.
    void expect_string(size_t i, const char *name, const char *advice = "") const {
        nanobind::handle item = (*this)[i];
        if (PyUnicode_Check(item.ptr())) return;
        const nanobind::str type(item.type().attr("__name__"));
        const std::string message =
            std::string(name) + "[" + std::to_string(i) + "] is " + type.c_str() + ", expected str" + advice;
        throw nanobind::type_error(message.c_str());
    }

  private:
    nanobind::object items_;
    size_t size_;
    PyObject *const *values_;
#ifdef Py_LIMITED_API
    Buffer<PyObject *> copied_;  // the stable ABI does not show the items of a list
#endif
};
