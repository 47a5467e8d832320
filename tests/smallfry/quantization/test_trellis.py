import numpy as np
import pytest

from smallfry import kernels
from smallfry.quantization.trellis import encode, learn, to_bfloat16


def error(rows, codebook, nbit, state_bits):
    scale = np.ones(rows.shape[1], np.float32)
    windows = kernels.unpack(encode(rows, codebook, scale, nbit), rows.shape[1], nbit, state_bits)
    return np.square(rows - codebook[windows]).mean()


def test_learned_codebook_loses_less_than_its_start():
    rows = np.random.default_rng(0).laplace(size=(500, 40)).astype(np.float32)
    learned = learn(rows, np.ones(40, np.float32), 2, 8, seed=0)
    start = np.random.default_rng(0).standard_normal(256).astype(np.float32)
    assert error(rows, learned, 2, 8) < 0.8 * error(rows, start, 2, 8)


def test_codebook_is_learned_in_units_of_the_column_scale():
    rows = np.random.default_rng(0).standard_normal((500, 40)).astype(np.float32)
    scale = np.exp2(np.arange(40) % 8).astype(np.float32)
    learned = learn(rows * scale, scale, 2, 8, seed=0)
    assert 0.8 < learned.std() < 1.2
    windows = kernels.unpack(encode(rows * scale, learned, scale, 2), 40, 2, 8)
    assert np.square(rows - learned[windows])[:, 7::8].mean() < 0.12


def test_same_seed_gives_the_same_codebook():
    rows, scale = (
        np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32),
        np.ones(8, np.float32),
    )
    np.testing.assert_array_equal(learn(rows, scale, 2, 8, 3), learn(rows, scale, 2, 8, 3))
    assert (learn(rows, scale, 2, 8, 3) != learn(rows, scale, 2, 8, 4)).any()


def test_progress_counts_rounds():
    seen = []
    rows = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)
    learn(rows, np.ones(8, np.float32), 2, 8, 0, lambda *values: seen.append(values))
    assert [done for _, done, _ in seen] == list(range(1, len(seen) + 1))
    assert {stage for stage, _, _ in seen} == {"fit"}


@pytest.mark.parametrize(
    ("value", "rounded"), [(1.0, 1.0), (1.00390625, 1.0), (1.01171875, 1.015625), (-1e30, None), (0.0, 0.0)]
)
def test_bfloat16_rounds_half_to_even(value, rounded):
    found = to_bfloat16(np.array([value], np.float32))[0]
    if rounded is not None:
        assert found == rounded
    assert found == pytest.approx(value, rel=2**-8)
