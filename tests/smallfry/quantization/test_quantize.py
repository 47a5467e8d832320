"""quantize: from a matrix of any float type, or chunks of one, to a table."""

import numpy as np
import pytest

from smallfry import kernels
from smallfry.errors import InputError, NonFiniteError
from smallfry.kernels.numpy import quantize as fallback
from smallfry.quantization.quantize import quantize

WIDTHS = (1, 2, 4, 8, 16)


def matrix(rows=300, dim=21, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)


class Chunks:
    """A matrix that is iterated in pieces of these sizes."""

    def __init__(self, x, sizes):
        self.shape = x.shape
        self._pieces = np.split(x, np.cumsum(sizes))

    def __iter__(self):
        return iter(self._pieces)


def same_table(a, b):
    return (
        (a.nbit, a.dim, a.codebook_kind, a.clip, a.frobenius_error)
        == (b.nbit, b.dim, b.codebook_kind, b.clip, b.frobenius_error)
        and a.codes.tobytes() == b.codes.tobytes()
        and a.codebook.tobytes() == b.codebook.tobytes()
        and a.zero_rows.tobytes() == b.zero_rows.tobytes()
    )


@pytest.mark.parametrize("nbit", WIDTHS)
def test_values_decode_to_the_nearest_level(nbit):
    x = matrix(4000)
    table = quantize(x, nbit)
    table.verify_shapes()
    decoded = table.decode()
    assert table.codebook_kind == "uniform"
    step = 2 * table.clip / (2**nbit - 1)
    assert np.abs(decoded - x.clip(-table.clip, table.clip)).max() <= step / 2 * (1 + 2e-3)
    assert table.frobenius_error == pytest.approx(np.linalg.norm(decoded - x) / np.linalg.norm(x), rel=1e-4)


@pytest.mark.parametrize("nbit", WIDTHS)
def test_uniform_codebook_is_the_grid_with_one_rounding(nbit):
    table = quantize(matrix(4000), nbit)
    step = np.float32(2 * table.clip / (2**nbit - 1))
    grid = (np.arange(2**nbit) - (2**nbit - 1) / 2) * np.float64(step)
    assert table.codebook.tobytes() == grid.astype(np.float32).tobytes()


def test_32_bits_copy_the_matrix():
    x = matrix()
    table = quantize(x, 32)
    table.verify_shapes()
    assert (table.codebook_kind, table.codebook) == ("float", None)
    assert (table.decode() == x).all()
    assert not np.shares_memory(table.codes, x)


@pytest.mark.parametrize("nbit", WIDTHS)
def test_matrix_of_few_values_is_kept_exactly(nbit):
    values = np.unique(np.random.default_rng(1).normal(size=2**nbit).astype(np.float32))
    x = np.random.default_rng(2).choice(values, size=(70, 33))
    table = quantize(x, nbit)
    table.verify_shapes()
    assert (table.codebook_kind, table.frobenius_error) == ("exact", 0.0)
    assert (table.decode() == x).all()


def test_short_codebook_repeats_its_last_value():
    table = quantize(np.array([[3.0, -1.0]]), 2)
    assert table.codebook.tolist() == [-1.0, 3.0, 3.0, 3.0]


@pytest.mark.parametrize("nbit", WIDTHS)
def test_float16_at_16_bits_loses_nothing(nbit):
    x = matrix().astype(np.float16)
    assert (quantize(x, 16).decode() == x).all()


@pytest.mark.parametrize("nbit", (*WIDTHS, 32))
def test_rows_of_zeros_decode_to_zeros(nbit):
    x = matrix(4000)
    x[[0, 17, 3999]] = 0
    x[17, 3] = -0.0
    table = quantize(x, nbit)
    assert np.flatnonzero(~table.decode().any(axis=1)).tolist() == [0, 17, 3999]


@pytest.mark.parametrize("nbit", WIDTHS)
def test_rows_of_zeros_do_not_affect_other_rows(nbit):
    x = matrix(4000)
    padded = np.concatenate([np.zeros((500, 21), np.float32), x])
    with_zeros, without = quantize(padded, nbit), quantize(x, nbit)
    assert with_zeros.frobenius_error == pytest.approx(without.frobenius_error, rel=1e-6)
    assert with_zeros.clip == pytest.approx(without.clip, rel=1e-3)


def test_zero_rows_are_listed_only_if_the_codebook_lacks_zero():
    x = np.array([[1.0, 2.0], [0.0, 0.0], [2.0, 1.0]])
    assert quantize(x, 1).zero_rows.tolist() == [1]
    x[2, 0] = 0
    table = quantize(x, 2)
    assert table.zero_rows.tolist() == []
    assert (table.decode() == x).all()


@pytest.mark.parametrize("nbit", WIDTHS)
def test_matrix_of_zeros_decodes_to_zeros(nbit):
    table = quantize(np.zeros((5, 3)), nbit)
    table.verify_shapes()
    assert table.decode().tobytes() == bytes(5 * 3 * 4)
    assert table.frobenius_error == 0


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ">f4"])
def test_other_float_types_quantize_as_float32(dtype):
    x = matrix().astype(dtype)
    assert same_table(quantize(x, 4), quantize(x.astype(np.float32), 4))


def test_transposed_and_sliced_matrices_quantize_the_same():
    x = matrix(100, 64)
    assert same_table(quantize(x.T, 4), quantize(x.T.copy(), 4))
    assert same_table(quantize(x[::3, ::2], 4), quantize(x[::3, ::2].copy(), 4))


@pytest.mark.parametrize("nbit", WIDTHS)
@pytest.mark.parametrize("sizes", [[], [1, 2, 3], [1000] * 7, [3000, 3999]])
def test_chunks_give_the_table_of_the_whole(nbit, sizes):
    x = matrix(8000, 40)
    x[5] = 0
    assert same_table(quantize(Chunks(x, sizes), nbit), quantize(x, nbit))


def test_chunks_that_do_not_add_up_are_rejected():
    chunks = Chunks(matrix(), [100])
    chunks.shape = (301, 21)
    with pytest.raises(InputError, match="300 rows, but its shape has 301"):
        quantize(chunks, 2)


@pytest.mark.parametrize("nbit", WIDTHS)
def test_threads_do_not_change_the_table(monkeypatch, nbit):
    x = matrix(8000, 300)
    monkeypatch.setenv("SMALLFRY_THREADS", "1")
    one = quantize(x, nbit)
    monkeypatch.setenv("SMALLFRY_THREADS", "5")
    assert same_table(quantize(x, nbit), one)


@pytest.mark.parametrize("nbit", WIDTHS)
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_fallback_gives_the_same_table(monkeypatch, nbit, rounding):
    x = matrix(3200 if nbit == 16 else 600)
    x[5] = 0
    native = quantize(x, nbit, rounding=rounding, seed=3)
    for name in ("scan", "grid_sums", "encode_grid", "ValueSet"):
        monkeypatch.setattr(kernels, name, getattr(fallback, name))
    assert same_table(quantize(x, nbit, rounding=rounding, seed=3), native)


def test_stochastic_rounding_repeats_with_its_seed():
    x = matrix()
    first = quantize(x, 2, rounding="stochastic", seed=1)
    assert same_table(quantize(x, 2, rounding="stochastic", seed=1), first)
    assert not same_table(quantize(x, 2, rounding="stochastic", seed=2), first)


def test_stochastic_rounding_is_unbiased():
    x = np.linspace(-0.9, 0.9, 50, dtype=np.float32)[None].repeat(4000, axis=0)
    mean = quantize(x, 2, rounding="stochastic", clip=1.0).decode().mean(axis=0, dtype=np.float64)
    # Deviation of one value: at most half the step of 2/3.
    assert np.abs(mean - x[0]).max() < 5 / 3 / 4000**0.5


def test_clip_is_used():
    table = quantize(matrix(), 2, clip=0.5)
    assert table.clip == pytest.approx(0.5)
    assert np.allclose(np.unique(table.decode()), [-0.5, -0.5 / 3, 0.5 / 3, 0.5])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("nbit", [2, 32])
def test_non_finite_values_are_reported_with_row_and_column(nbit, bad):
    x = matrix(90000)
    x[80000, 5] = x[80001, 0] = bad
    with pytest.raises(NonFiniteError, match=f"{bad} at row 80000, column 5"):
        quantize(x, nbit)


def test_float64_values_beyond_float32_are_reported():
    x = matrix().astype(np.float64)
    x[7, 2] = -1e39
    with pytest.raises(NonFiniteError, match=r"-1e\+39 at row 7, column 2, beyond float32"):
        quantize(x, 2)


@pytest.mark.parametrize("nbit", WIDTHS)
@pytest.mark.parametrize("peak", [np.finfo(np.float32).max, np.finfo(np.float32).smallest_subnormal])
def test_limits_of_float32_are_compressed(nbit, peak):
    x = np.linspace(-1, 1, 4 * 70000).astype(np.float32).reshape(-1, 4) * peak
    decoded = quantize(x, nbit).decode()
    assert np.isfinite(decoded).all()


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones(3), "shape [3]"),
        (np.ones((2, 2, 2)), "shape [2, 2, 2]"),
        (np.ones((0, 3)), "shape [0, 3]"),
        (np.ones((3, 0)), "shape [3, 0]"),
        (np.ones((2, 2), int), "int64"),
        (np.array([["a"]]), "<U1"),
    ],
)
def test_other_inputs_than_float_matrices_are_rejected(x, message):
    with pytest.raises(InputError) as caught:
        quantize(x, 2)
    assert message in str(caught.value)


def test_progress_reaches_all_rows_in_each_stage():
    calls = []
    quantize(matrix(90000, 64), 2, progress=lambda *call: calls.append(call))
    assert calls[0][0] == "scan"
    assert calls[-1] == ("encode", 90000, 90000)
    assert {stage for stage, _, _ in calls} == {"scan", "clip", "encode"}


@pytest.mark.parametrize(("nbit", "relative"), [(1, 0.613), (2, 0.354), (4, 0.113)])
def test_real_vectors_lose_at_most_the_expected_error(real_data, nbit, relative):
    x = np.load(real_data / "embeddings/minilm-words.300d.f16.npy", mmap_mode="r")
    assert quantize(x, nbit).frobenius_error <= relative
