"""compress_uniform: the whole matrix rounded, at any number of bits."""

import numpy as np
import pytest

from smallfry.errors import InputError, NonFiniteError
from smallfry.quantization.legacy import compress_uniform
from smallfry.quantization.quantize import quantize


def matrix(dtype=np.float32, shape=(40, 30)):
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


def with_zero_rows(dtype):
    x = matrix(dtype)
    x[::3] = 0
    return x


def with_few_values(dtype):
    return np.sign(matrix(dtype))


def evenly_rounded(x, bit_rate):
    """Reference: the nearest of 2**bit_rate levels over [-max, max], by distance to each."""
    bound = np.abs(x).max()
    levels = np.linspace(-bound, bound, 2**bit_rate)
    return levels[np.abs(x[..., None] - levels).argmin(axis=-1)]


@pytest.mark.parametrize("bit_rate", [1, 2, 3, 5, 8])
def test_values_round_to_the_nearest_level(bit_rate):
    x = matrix(np.float64)
    rounded, error, _ = compress_uniform(x, bit_rate)
    assert np.allclose(rounded, evenly_rounded(x, bit_rate), atol=1e-12)
    assert error == pytest.approx(np.square(x - rounded).sum())


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("bit_rate", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("make", [matrix, with_zero_rows, with_few_values])
def test_adaptive_range_gives_the_values_of_quantize(make, bit_rate, dtype):
    x = make(dtype)
    rounded, error, _ = compress_uniform(x, bit_rate, adaptive_range=True)
    assert np.array_equal(rounded, quantize(x, bit_rate).decode().astype(dtype))
    assert error == pytest.approx(np.square(x.astype(np.float64) - rounded).sum())


def test_stochastic_rounding_of_adaptive_range_keeps_the_levels_of_quantize():
    rounded = compress_uniform(matrix(), 2, adaptive_range=True, stochastic_round=True)[0]
    levels = quantize(matrix(), 2).codebook
    assert set(rounded.ravel()) == set(levels)
    assert (rounded != quantize(matrix(), 2).decode()).any()


@pytest.mark.parametrize("shape", [(60,), (3, 4, 5)])
def test_the_first_axis_of_any_shape_are_the_rows(shape):
    x = matrix(shape=shape)
    rows = x.reshape(1, -1) if x.ndim == 1 else x.reshape(len(x), -1)
    rounded = compress_uniform(x, 2, adaptive_range=True)[0]
    assert np.array_equal(rounded.reshape(rows.shape), quantize(rows, 2).decode())


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(7,), (7, 3), (2, 3, 4)])
def test_dtype_and_shape_are_kept(dtype, shape):
    x = matrix(dtype, shape)
    rounded, error, elapsed = compress_uniform(x, 3, adaptive_range=True)
    assert (rounded.dtype, rounded.shape) == (x.dtype, x.shape)
    assert (type(error), type(elapsed)) == (float, float)


def test_input_is_not_modified():
    x = matrix()
    before = x.copy()
    compress_uniform(x, 2, adaptive_range=True, stochastic_round=True)
    assert (x == before).all()


@pytest.mark.parametrize("bit_rate", range(1, 33))
def test_adaptive_range_never_increases_the_error(bit_rate):
    x = np.random.default_rng(1).standard_t(2, size=(30, 20)).astype(np.float32)
    _, adapted, _ = compress_uniform(x, bit_rate, adaptive_range=True)
    _, fixed, _ = compress_uniform(x, bit_rate)
    assert adapted <= fixed * (1 + 1e-6) + 1e-12


def test_32_bits_change_nothing():
    x = matrix()
    rounded, error, _ = compress_uniform(x, 32, adaptive_range=True)
    assert (rounded == x).all() and error == 0


def test_0_bits_leave_zeros():
    rounded, error, _ = compress_uniform(matrix(), 0, adaptive_range=True)
    assert not rounded.any()
    assert error == pytest.approx(np.square(matrix(), dtype=np.float64).sum())


def test_skip_quantize_only_clips():
    x = matrix()
    assert (compress_uniform(x, 2, skip_quantize=True)[0] == x).all()
    clipped = compress_uniform(x, 2, adaptive_range=True, skip_quantize=True)[0]
    bound = np.abs(clipped).max()
    assert bound < np.abs(x).max()
    assert (clipped == x.clip(-bound, bound)).all()


def test_stochastic_rounding_follows_the_global_seed():
    x = matrix()
    np.random.seed(5)  # noqa: NPY002
    first = compress_uniform(x, 2, stochastic_round=True)[0]
    second = compress_uniform(x, 2, stochastic_round=True)[0]
    np.random.seed(5)  # noqa: NPY002
    assert (compress_uniform(x, 2, stochastic_round=True)[0] == first).all()
    assert (second != first).any()


def test_stochastic_rounding_is_unbiased():
    x = np.full((400, 500), 0.3)
    x[0, 0] = 1.0
    rounded = compress_uniform(x, 1, stochastic_round=True)[0]
    assert set(np.unique(rounded)) == {-1.0, 1.0}
    assert abs(rounded.mean() - 0.3) < 5 / 200_000**0.5


@pytest.mark.parametrize("scale", [1e-300, 1e-40, 1e40, 1e300])
@pytest.mark.parametrize("adaptive", [False, True])
def test_float64_beyond_float32_is_rounded_the_same(scale, adaptive):
    x = matrix(np.float64)
    scaled = compress_uniform(x * scale, 3, adaptive_range=adaptive)[0] / scale
    assert np.allclose(scaled, compress_uniform(x, 3, adaptive_range=adaptive)[0], rtol=1e-6)


def test_zeros_stay_zeros():
    rounded, error, _ = compress_uniform(np.zeros((3, 4)), 2, adaptive_range=True)
    assert not rounded.any() and error == 0


def test_strided_columns_round_the_same():
    x = matrix()
    assert (compress_uniform(x[:, ::3], 4)[0] == compress_uniform(x[:, ::3].copy(), 4)[0]).all()


@pytest.mark.parametrize("bit_rate", [-1, 33])
def test_bit_rates_outside_0_to_32_are_rejected(bit_rate):
    with pytest.raises(InputError, match=f"bit_rate is {bit_rate}, expected 0 to 32"):
        compress_uniform(matrix(), bit_rate)


@pytest.mark.parametrize("x", [np.ones((2, 2), int), np.empty((0, 3))])
def test_arrays_without_floats_are_rejected(x):
    with pytest.raises(InputError, match="expected floats"):
        compress_uniform(x, 2)


def test_non_finite_values_are_rejected():
    x = matrix(np.float64)
    x[4, 5] = np.nan
    with pytest.raises(NonFiniteError, match="nan at row 4, column 5"):
        compress_uniform(x, 2)
