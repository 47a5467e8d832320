#include "bindings.hpp"

void bind_quantize(nanobind::module_ &) {}
