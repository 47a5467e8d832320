import os

# Triton reads this when it is imported: without a GPU its kernels then run, slowly, on CPU tensors.
# `make test-gpu` wants the real ones.
if "SMALLFRY_TEST_GPU" not in os.environ:
    os.environ["TRITON_INTERPRET"] = "1"
