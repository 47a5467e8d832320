// The registration function of each source file.
#pragma once
#include <nanobind/nanobind.h>

void bind_trellis(nanobind::module_ &m);
void bind_decode(nanobind::module_ &m);
void bind_quantize(nanobind::module_ &m);
void bind_norms(nanobind::module_ &m);
void bind_tokens(nanobind::module_ &m);
void bind_text(nanobind::module_ &m);
void bind_tokenizer(nanobind::module_ &m);
void bind_encoder(nanobind::module_ &m);
void bind_neighbors(nanobind::module_ &m);
