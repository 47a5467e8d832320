import os
from pathlib import Path

import pytest
from hypothesis import settings

# Triton reads this when it is imported, by torch or by a test: its kernels then run without a GPU, slowly, on
# CPU tensors. `make test-gpu` wants the real ones.
if "SMALLFRY_TEST_GPU" not in os.environ:
    os.environ["TRITON_INTERPRET"] = "1"

# How long an example takes says more about the machine than about the code.
settings.register_profile("smallfry", deadline=None)
settings.load_profile("smallfry")


@pytest.fixture(scope="session")
def real_data():
    """Return the folder of real embedding files; a test that asks for it is skipped where there is none."""
    folder = os.environ.get("SMALLFRY_DATA")
    if not folder:
        pytest.skip("SMALLFRY_DATA names no folder of real data")
    return Path(folder)
