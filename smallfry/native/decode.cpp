#include "bindings.hpp"

void bind_decode(nanobind::module_ &) {}
