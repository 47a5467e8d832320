from functools import cache

import numpy as np
import pytest

from smallfry import store
from smallfry.errors import InputError, NonFiniteError
from smallfry.quantization.options import BEST
from smallfry.quantization.quantize import quantize
from smallfry.sfq import file as sfq
from smallfry.sfq.verify import verify
from smallfry.vocabulary import Vocabulary

OPTIONS = [
    {"center": True},
    {"row_scale": True},
    {"center": True, "row_scale": True},
    {"codebook_kind": "trellis"},
    {"codebook_kind": "trellis", "center": True, "rotate": True},
    {"codebook_kind": "trellis", "row_scale": True},
    BEST,
]
TRELLIS = OPTIONS[3:]


def matrix(rows=100, dim=13, seed=0):
    random = np.random.default_rng(seed)
    X = random.standard_normal((rows, dim)) * np.linspace(0.3, 3, dim) + 0.5
    X[3] = 0
    return (X * random.uniform(0.5, 2, (rows, 1))).astype(np.float32)


@cache
def _table(*options):
    return quantize(matrix(), 2, **dict(options))


def table_of(options):
    """Return the table of `matrix` at 2 bits."""
    return _table(*options.items())


def in_table_basis(X, table):
    return X if table.rotation is None else X @ table.rotation


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("nbit", [1, 2, 4])
def test_frobenius_error_is_that_of_the_decoded_rows(nbit, options):
    X = matrix()
    table = quantize(X, nbit, **options)
    table.verify_shapes()
    error = np.linalg.norm(in_table_basis(X, table) - table.decode()) / np.linalg.norm(X)
    assert table.frobenius_error == pytest.approx(error, rel=1e-4)
    assert error < {1: 0.75, 2: 0.5, 4: 0.2}[nbit]


@pytest.mark.parametrize("options", OPTIONS)
def test_zero_row_decodes_to_exact_zeros(options):
    table = table_of(options)
    assert table.zero_rows.tolist() == [3]
    assert not table.decode([3]).any()


@pytest.mark.parametrize("options", OPTIONS)
def test_the_same_input_gives_the_same_bytes(options):
    first, second = table_of(options), quantize(matrix(), 2, **options)
    assert first.codes.tobytes() == second.codes.tobytes()
    assert first.codebook.tobytes() == second.codebook.tobytes()


@pytest.mark.parametrize("options", OPTIONS)
def test_codes_depend_on_neither_chunks_nor_threads(options, monkeypatch):
    whole = table_of(options)
    monkeypatch.setattr("smallfry.quantization.chunks._CHUNK_VALUES", 500)
    monkeypatch.setenv("SMALLFRY_THREADS", "3")
    chunked = quantize(matrix(), 2, **options)
    np.testing.assert_array_equal(whole.codes, chunked.codes)
    np.testing.assert_array_equal(whole.codebook, chunked.codebook)
    assert chunked.frobenius_error == pytest.approx(whole.frobenius_error, rel=1e-9)


@pytest.mark.parametrize("options", OPTIONS)
def test_a_file_keeps_the_table_and_its_rotation(options, tmp_path):
    table = table_of(options)
    path = tmp_path / "table.sfq"
    sfq.write(path, table, Vocabulary.build([f"w{i}" for i in range(100)]))
    verify(path)
    with store.open(path) as opened:
        rows = opened.rows([0, 3, 99])
        np.testing.assert_array_equal(rows, table.decode([0, 3, 99]))
        expected = rows if table.rotation is None else rows @ table.rotation.T
        np.testing.assert_array_equal(opened.unrotated(rows), expected)


def test_unrotated_vectors_are_near_the_original(tmp_path):
    X = matrix()
    table = quantize(X, 4, codebook_kind="trellis", center=True, rotate=True)
    sfq.write(tmp_path / "table.sfq", table)
    with store.open(tmp_path / "table.sfq") as opened:
        back = opened.unrotated(opened.rows(np.arange(100)))
    assert np.linalg.norm(back - X) / np.linalg.norm(X) == pytest.approx(table.frobenius_error, rel=1e-3)


@pytest.mark.parametrize("nbit", [1, 2, 4])
def test_each_option_lowers_the_error(nbit):
    X = matrix(300, 16)
    ladder = [
        {},
        {"codebook_kind": "trellis"},
        {"codebook_kind": "trellis", "center": True, "rotate": True},
        {"codebook_kind": "trellis", "center": True, "rotate": True, "row_scale": True},
    ]
    errors = [quantize(X, nbit, **options).frobenius_error for options in ladder]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.9 * errors[0]


def test_rows_that_equal_the_mean_stay_the_mean():
    X = np.tile(np.array([[0.5, -2.0, 3.0]], np.float32), (5, 1))
    np.testing.assert_allclose(quantize(X, 2, center=True).decode(), X, rtol=1e-6)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("scale", [1e-36, 1e36])
def test_error_does_not_depend_on_the_scale(options, scale):
    scaled = quantize(matrix() * np.float32(scale), 2, **options)
    assert scaled.frobenius_error == pytest.approx(table_of(options).frobenius_error, rel=0.05)


@pytest.mark.parametrize("options", OPTIONS)
def test_matrix_of_zeros_is_compressed(options):
    assert not quantize(np.zeros((5, 6), np.float32), 2, **options).decode().any()


@pytest.mark.parametrize("options", TRELLIS)
@pytest.mark.parametrize("nbit", [1, 2, 3, 4])
@pytest.mark.parametrize(
    "rows",
    [
        np.arange(1, 14)[None],
        np.full((5, 13), 7.0),
        np.repeat([[0, 1]], 13, axis=1).reshape(2, 13),
        np.eye(20, 13) * 1e20,
        np.diag(10.0 ** np.arange(-20, 19, 3)),
    ],
    ids=["one row", "one value", "two values", "zero rows", "columns of all scales"],
)
def test_unusual_matrices_are_compressed(rows, nbit, options):
    X = rows.astype(np.float32)
    table = quantize(X, nbit, **options)
    decoded = table.decode()
    assert np.isfinite(decoded).all()
    assert table.frobenius_error < 1
    assert not decoded[~X.any(axis=1)].any()


def test_columns_of_zeros_stay_zeros():
    X = matrix()
    X[:, 5] = 0
    table = quantize(X, 2, codebook_kind="trellis")
    assert not table.decode()[:, 5].any()


def test_rows_with_fewer_bits_than_a_window_are_rejected():
    with pytest.raises(InputError, match=r"3 values have 6 bits at 2 bits a value; a trellis code of 256"):
        quantize(matrix(dim=3), 2, codebook_kind="trellis")
    with pytest.raises(InputError, match=r"5 values have 10 bits at 2 bits a value; a trellis code of 4096"):
        quantize(matrix(dim=5), 2, **BEST)


@pytest.mark.parametrize("state_bits", [8, 12])
def test_trellis_codebook_is_exact_in_bfloat16(state_bits):
    table = quantize(matrix(), 2, codebook_kind="trellis", trellis_state_bits=state_bits)
    assert table.codebook.shape == (2**state_bits,)
    assert not (table.codebook.view(np.uint32) & 0xFFFF).any()


# Relative errors of Gaussian values; the rate-distortion bound is 2**-nbit.
@pytest.mark.parametrize(("nbit", "error"), [(1, 0.535), (2, 0.284), (3, 0.152), (4, 0.082)])
def test_trellis_error_of_gaussian_values(nbit, error):
    X = np.random.default_rng(1).standard_normal((500, 300)).astype(np.float32)
    assert quantize(X, nbit, codebook_kind="trellis").frobenius_error < error


def test_nan_is_rejected_with_row_and_column():
    X = matrix()
    X[7, 2] = np.nan
    with pytest.raises(NonFiniteError, match="nan at row 7, column 2"):
        quantize(X, 2, codebook_kind="trellis")


@pytest.mark.parametrize(
    ("center", "passes"), [(True, ["scan", "fit", "encode"]), (False, ["fit", "encode"])]
)
def test_progress_names_the_passes(center, passes):
    seen = []
    quantize(
        matrix(),
        2,
        codebook_kind="trellis",
        center=center,
        progress=lambda name, done, total: seen.append((name, done, total)),
    )
    assert list(dict.fromkeys(name for name, _, _ in seen)) == passes
    assert all(done <= total for _, done, total in seen)


@pytest.mark.parametrize(
    ("name", "error"), [("googlenews-8000.300d", 0.16), ("minilm-words.300d.f16", 0.166)]
)
def test_error_of_the_best_options_on_real_vectors(real_data, name, error):
    X = np.load(real_data / "embeddings" / f"{name}.npy")[:500].astype(np.float32)
    assert quantize(X, 2, **BEST).frobenius_error < error


@pytest.mark.parametrize("options", OPTIONS)
def test_chunks_that_are_read_in_order_make_the_same_table(options):
    class Chunks:
        shape = (100, 13)

        def __iter__(self):
            return iter(np.array_split(matrix(), 7))

    expected, table = table_of(options), quantize(Chunks(), 2, **options)
    np.testing.assert_array_equal(table.codes, expected.codes)
    np.testing.assert_array_equal(table.codebook, expected.codebook)
    assert table.frobenius_error == pytest.approx(expected.frobenius_error, rel=1e-9)
