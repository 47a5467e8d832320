"""Lengths of rows and rows over a divisor: native on every instruction set, NumPy, all the same bytes."""

import numpy as np
import pytest

from smallfry import kernels
from smallfry.kernels.numpy import norms as fallback

DIMS = (1, 7, 8, 13, 160, 2500)


def matrix(dim, rows=57, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("other", [False, True])
def test_squared_norms_are_the_same_on_every_path(level, dim, other):
    x, y = matrix(dim), matrix(dim, seed=1) if other else None
    native, plain = np.empty(len(x)), np.empty(len(x))
    kernels.squared_norms(x, y, native, 3)
    fallback.squared_norms(x, y, plain, 1)
    assert native.tobytes() == plain.tobytes()
    expected = np.square(x if y is None else x - y, dtype=np.float64).sum(axis=1)
    np.testing.assert_allclose(native, expected, rtol=1e-14)


@pytest.mark.parametrize("dim", DIMS)
def test_quotients_are_the_same_on_every_path(level, dim):
    x, divisors = matrix(dim), np.random.default_rng(2).uniform(1e-30, 1e30, 57)
    native, plain = np.empty_like(x), np.empty_like(x)
    kernels.divide_rows(x, divisors, native, 3)
    fallback.divide_rows(x, divisors, plain, 1)
    assert native.tobytes() == plain.tobytes()


@pytest.mark.parametrize("module", [kernels, fallback])
def test_only_rows_of_zeros_have_length_zero(module):
    x = np.zeros((4, 5), np.float32)
    x[1, 2], x[2, 4], x[3] = np.finfo(np.float32).smallest_subnormal, np.nan, np.finfo(np.float32).max
    norms = np.empty(4)
    module.squared_norms(x, None, norms, 1)
    assert (norms == 0).tolist() == [True, False, False, False]
    assert np.isfinite(norms).tolist() == [True, True, False, True]


def test_arrays_of_other_sizes_are_rejected():
    x = matrix(5)
    for other, out in ((None, np.empty(56)), (x[1:], np.empty(57))):
        with pytest.raises(ValueError, match="expected"):
            kernels.squared_norms(x, other, out, 1)
    with pytest.raises(ValueError, match="size of divisors is 56, expected 57"):
        kernels.divide_rows(x, np.ones(56), np.empty_like(x), 1)
