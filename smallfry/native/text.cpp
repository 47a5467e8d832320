#include "bindings.hpp"

void bind_text(nanobind::module_ &) {}
