"""The search for the best step: exact where that can be checked, never above a golden section search."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from smallfry.quantization.legacy import compress_uniform
from smallfry.quantization.quantize import quantize
from smallfry.quantization.uniform import Magnitudes, optimal_step
from smallfry.table import NBITS


def squared_error(x, bound, levels):
    """Squared error of rounding to ``levels`` levels over [-bound, bound]."""
    top = levels - 1
    x = x.astype(np.float64)
    if not bound:
        return float(np.square(x).sum())
    units = 2 * np.rint(np.clip(x * (top / 2 / bound) + top / 2, 0, top)) - top
    return float(np.square(x - units / top * bound).sum())


def golden_section_bound(x, levels, tolerance=1e-2):
    """Reference: golden section search of the bound over [0, max |x|], down to an absolute tolerance."""
    ratio = (math.sqrt(5) - 1) / 2
    low, high = 0.0, float(np.abs(x).max())
    left, right = high * ratio**2, high * ratio
    errors = {bound: squared_error(x, bound, levels) for bound in (low, left, right, high)}
    while high - low > tolerance:
        if errors[left] < errors[right]:
            high, right = right, left
            left = low + (high - low) * ratio**2
            errors[left] = squared_error(x, left, levels)
        else:
            low, left = left, right
            right = low + (high - low) * ratio
            errors[right] = squared_error(x, right, levels)
    return min((low, left, right, high), key=errors.__getitem__)


def one_outlier(shape, rng):
    x = rng.normal(size=shape)
    x.flat[rng.integers(x.size)] = 10 ** rng.uniform(0, 5)
    return x


KINDS = {
    "normal": lambda shape, rng: rng.normal(size=shape),
    "heavy tails": lambda shape, rng: rng.standard_t(2, size=shape),
    "one value": lambda shape, rng: np.full(shape, rng.normal()),
    "constant rows": lambda shape, rng: np.repeat(rng.normal(size=(shape[0], 1)), shape[1], axis=1),
    "one outlier": one_outlier,
    "few values": lambda shape, rng: rng.choice(rng.normal(size=rng.integers(1, 400)), size=shape),
    "integers": lambda shape, rng: rng.integers(-300, 300, size=shape).astype(float),
    "mostly zeros": lambda shape, rng: rng.normal(size=shape) * (rng.uniform(size=shape) < 0.1),
}
KINDS_AND_SHAPES = st.tuples(st.sampled_from(list(KINDS)), st.integers(1, 60), st.integers(1, 60))


@given(KINDS_AND_SHAPES, st.sampled_from([1, 2, 4, 8, 16]), st.integers(0, 2**32), st.floats(-30, 8))
def test_error_is_at_most_that_of_a_golden_section_search(kind_and_shape, nbit, seed, magnitude):
    kind, *shape = kind_and_shape
    x = (KINDS[kind](shape, np.random.default_rng(seed)) * 10**magnitude).astype(np.float32)
    table = quantize(x, nbit)
    error = float(np.square(x.astype(np.float64) - table.decode()).sum())
    norm = float(np.square(x, dtype=np.float64).sum())
    reference = squared_error(x, golden_section_bound(x, 2**nbit), 2**nbit)
    # Levels are float32: at 8 and 16 bits their rounding is a few parts in 10**5 of the error.
    assert error <= reference * (1 + 1e-4) + 1e-13 * norm


@given(KINDS_AND_SHAPES, st.integers(1, 16), st.integers(0, 2**32))
@example(("one value", 3, 4), 3, 0)
@example(("one outlier", 50, 60), 8, 0)
def test_adaptive_range_is_at_least_as_good_as_golden_section(kind_and_shape, bit_rate, seed):
    kind, *shape = kind_and_shape
    x = KINDS[kind](shape, np.random.default_rng(seed))
    if not x.any():
        return
    _, error, _ = compress_uniform(x, bit_rate, adaptive_range=True)
    reference = squared_error(x, golden_section_bound(x, 2**bit_rate), 2**bit_rate)
    # The levels of tables are float32, see above; those of other widths have the dtype of the input.
    rounding, floor = (1e-4, 1e-13) if bit_rate in NBITS else (1e-6, 1e-14)
    assert error <= reference * (1 + rounding) + floor * np.square(x).sum()


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e30])
@pytest.mark.parametrize("nbit", [1, 2, 4, 8])
def test_relative_error_does_not_depend_on_the_scale(nbit, scale):
    x = np.random.default_rng(0).normal(size=(90, 50))
    here = quantize((x * scale).astype(np.float32), nbit).frobenius_error
    assert here == pytest.approx(quantize(x.astype(np.float32), nbit).frobenius_error, rel=1e-4)


@pytest.mark.parametrize("nbit", [2, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_exhaustive_search_finds_the_best_bound(nbit, kind):
    x = KINDS[kind]((30, 40), np.random.default_rng(1)).astype(np.float32)
    table = quantize(x, nbit)
    error = float(np.square(x.astype(np.float64) - table.decode()).sum())
    kept = x[x.any(axis=1)]
    bounds = np.geomspace(np.abs(x).max() / 300, np.abs(x).max() * 3, 4000)
    best = min(squared_error(kept, bound, 2**nbit) for bound in bounds)
    assert error <= best * (1 + 1e-6) + 1e-13 * np.square(x).sum()


@pytest.mark.parametrize("nbit", [2, 4])
def test_histogram_finds_the_optimum_of_large_matrices(nbit):
    x = np.random.default_rng(2).laplace(size=(1500, 1000)).astype(np.float32)
    table = quantize(x, nbit)
    error = (table.frobenius_error * np.linalg.norm(x.astype(np.float64))) ** 2
    best = min(squared_error(x, table.clip * factor, 2**nbit) for factor in np.linspace(0.98, 1.02, 21))
    assert error <= best * (1 + 1e-7)


def test_one_bit_clips_at_the_mean_magnitude():
    x = np.random.default_rng(3).normal(size=(50, 60)).astype(np.float32)
    assert quantize(x, 1).clip == pytest.approx(np.abs(x).mean(), rel=1e-6)


def test_histogram_holds_the_exact_count_and_sum():
    x = np.random.default_rng(4).standard_t(2, size=3000).astype(np.float32)
    magnitudes = magnitudes_of(x)
    assert magnitudes.count == 3000
    assert magnitudes.totals.sum() == pytest.approx(np.abs(x).sum(dtype=np.float64), rel=1e-14)


def magnitudes_of(x):
    counts, lows = np.zeros(1 << 16, np.int64), np.zeros(1 << 16, np.int64)
    bits = np.abs(x).view(np.uint32)
    np.add.at(counts, bits >> 15, 1)
    np.add.at(lows, bits >> 15, (bits & 0x7FFF).astype(np.int64))
    return Magnitudes.from_bins(counts, lows, 0, float(np.abs(x).max()))


def test_two_levels_need_no_pass_over_the_matrix():
    def refuse(*_):
        raise AssertionError("the matrix was read")

    x = np.array([1.0, -2.0, 4.0], np.float32)
    assert optimal_step(magnitudes_of(x), 2, refuse, refuse) == pytest.approx(14 / 3)
