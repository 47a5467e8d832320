import pytest

from smallfry import kernels


@pytest.fixture(params=["scalar", "avx2", "avx512"])
def level(request, monkeypatch):
    """Run the test on each instruction set."""
    monkeypatch.setenv("SMALLFRY_SIMD", request.param)
    if kernels.simd() != request.param:
        pytest.skip(f"this machine has no {request.param}")
