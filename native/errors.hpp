// Raises the exceptions of smallfry from native code.
#pragma once
#include <nanobind/nanobind.h>

#include <string>

// Raises smallfry.errors.<name>. Needs the GIL.
[[noreturn]] inline void raise_error(const char *name, const std::string &message) {
    nanobind::object type = nanobind::module_::import_("smallfry.errors").attr(name);
    PyErr_SetString(type.ptr(), message.c_str());
    throw nanobind::python_error();
}
