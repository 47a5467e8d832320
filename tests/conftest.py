import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

# Triton reads this when it is imported: its kernels then run in an interpreter, without a GPU.
# `make test-gpu` runs the compiled ones.
if "SMALLFRY_TEST_GPU" not in os.environ:
    os.environ["TRITON_INTERPRET"] = "1"

# Several processes run tests: NumPy's threads would compete for the cores, and threads of torch spin while
# they wait.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Shells ignore SIGINT in background jobs, and the processes that tests interrupt would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The time of an example depends on the machine more than on the code.
settings.register_profile("smallfry", deadline=None)
settings.load_profile("smallfry")


@pytest.fixture(scope="session")
def real_data():
    """Return the folder of real embedding files; skip the test if it is not configured."""
    folder = os.environ.get("SMALLFRY_DATA")
    if not folder:
        pytest.skip("SMALLFRY_DATA is not set to a folder of real data")
    return Path(folder)
