#include "bindings.hpp"

void bind_tokens(nanobind::module_ &) {}
