// The native module. Each .cpp file registers its kernels.
#include "bindings.hpp"

NB_MODULE(_native, m) {
    m.doc() =
        "Native kernels of smallfry: decode, quantize, clip search, token index, text parsing, tokenizers, "
        "neighbors.";
    // A daemon thread may hold an index or a decoder at interpreter exit.
    nanobind::set_leak_warnings(false);
    bind_trellis(m);
    bind_decode(m);
    bind_quantize(m);
    bind_norms(m);
    bind_tokens(m);
    bind_text(m);
    bind_tokenizer(m);
    bind_encoder(m);
    bind_neighbors(m);
}
