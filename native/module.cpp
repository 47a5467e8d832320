// The native module: one function per hot kernel. Each .cpp file registers its own.
#include "bindings.hpp"

NB_MODULE(_native, m) {
    m.doc() =
        "Native kernels of smallfry: decode, quantize, clip search, token index, text parsing, neighbours.";
    // A daemon thread may hold an index or a decoder when the interpreter ends.
    nanobind::set_leak_warnings(false);
    bind_codebook(m);
    bind_decode(m);
    bind_quantize(m);
    bind_tokens(m);
    bind_text(m);
    bind_neighbors(m);
}
