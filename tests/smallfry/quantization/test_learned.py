import numpy as np
import pytest

from smallfry import store
from smallfry.errors import NonFiniteError
from smallfry.quantization.quantize import quantize
from smallfry.sfq import file as sfq
from smallfry.sfq.verify import verify
from smallfry.vocabulary import Vocabulary

OPTIONS = [
    {"codebook": "lloyd"},
    {"codebook": "grouped"},
    {"center": True},
    {"row_scale": True},
    {"rotate": "orthogonal"},
    {"codebook": "lloyd", "center": True, "rotate": "hadamard", "row_scale": True},
    {"codebook": "grouped", "center": True, "rotate": "hadamard"},
    {"codebook": "grouped", "center": True, "rotate": "principal", "row_scale": True},
    {"center": True, "rotate": "orthogonal", "row_scale": True},
]


def matrix(rows=400, dim=13, seed=0):
    random = np.random.default_rng(seed)
    X = random.standard_normal((rows, dim)) * np.linspace(0.3, 3, dim) + 0.5
    X[3] = 0
    return (X * random.uniform(0.5, 2, (rows, 1))).astype(np.float32)


def in_table_basis(X, table):
    return X if table.rotation is None else table.rotation.apply(X)


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
    table = quantize(matrix(), 2, **options)
    assert table.zero_rows.tolist() == [3]
    assert not table.decode([3]).any()


@pytest.mark.parametrize("options", OPTIONS)
def test_the_same_input_gives_the_same_bytes(options):
    first, second = quantize(matrix(), 2, **options), quantize(matrix(), 2, **options)
    assert first.codes.tobytes() == second.codes.tobytes()
    assert first.codebook.tobytes() == second.codebook.tobytes()


@pytest.mark.parametrize("options", OPTIONS)
def test_chunks_give_the_codes_of_the_whole_matrix(options, monkeypatch):
    whole = quantize(matrix(), 2, **options)
    monkeypatch.setattr("smallfry.quantization.chunks._CHUNK_VALUES", 500)
    monkeypatch.setattr("smallfry.quantization.chunks._BLOCK_VALUES", 100)
    chunked = quantize(matrix(), 2, **options)
    assert (whole.codes != chunked.codes).mean() < 0.01
    assert chunked.frobenius_error == pytest.approx(whole.frobenius_error, rel=1e-3)


@pytest.mark.parametrize("options", OPTIONS)
def test_a_file_keeps_the_table_and_its_rotation(options, tmp_path):
    table = quantize(matrix(), 2, **options)
    path = tmp_path / "table.sfq"
    sfq.write(path, table, Vocabulary.build([f"w{i}" for i in range(400)]))
    verify(path)
    with store.open(path) as opened:
        rows = opened.rows([0, 3, 399])
        np.testing.assert_array_equal(rows, table.decode([0, 3, 399]))
        expected = rows if table.rotation is None else table.rotation.undo(rows)
        np.testing.assert_array_equal(opened.unrotated(rows), expected)


def test_unrotated_vectors_are_near_the_original(tmp_path):
    X = matrix()
    table = quantize(X, 4, codebook="grouped", center=True, rotate="principal")
    sfq.write(tmp_path / "table.sfq", table)
    with store.open(tmp_path / "table.sfq") as opened:
        back = opened.unrotated(opened.rows(np.arange(400)))
    assert np.linalg.norm(back - X) / np.linalg.norm(X) == pytest.approx(table.frobenius_error, rel=1e-3)


@pytest.mark.parametrize("nbit", [1, 2, 4])
def test_each_option_lowers_the_error(nbit):
    X = matrix(3000, 16)
    ladder = [
        {},
        {"codebook": "grouped"},
        {"codebook": "grouped", "center": True, "rotate": "principal"},
        {"codebook": "grouped", "center": True, "rotate": "principal", "row_scale": True},
    ]
    errors = [quantize(X, nbit, **options).frobenius_error for options in ladder]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.9 * errors[0]


@pytest.mark.parametrize(
    "options", [{"center": True}, {"codebook": "lloyd", "center": True, "row_scale": True}]
)
def test_rows_that_equal_the_mean_stay_the_mean(options):
    X = np.tile(np.array([[0.5, -2.0, 3.0]], np.float32), (5, 1))
    np.testing.assert_allclose(quantize(X, 2, **options).decode(), X, rtol=1e-6)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_error_does_not_depend_on_the_scale(options, scale):
    X = matrix()
    error = quantize(X, 2, **options).frobenius_error
    assert quantize(X * np.float32(scale), 2, **options).frobenius_error == pytest.approx(error, rel=0.05)


@pytest.mark.parametrize("options", OPTIONS)
def test_matrix_of_zeros_is_compressed(options):
    assert not quantize(np.zeros((5, 4), np.float32), 2, **options).decode().any()


@pytest.mark.parametrize("options", OPTIONS)
def test_one_row_is_compressed(options):
    X = np.array([[1, 2, 3, 4, 5]], np.float32)
    assert quantize(X, 4, **options).frobenius_error < 0.2


def test_nan_is_rejected_with_row_and_column():
    X = matrix()
    X[7, 2] = np.nan
    with pytest.raises(NonFiniteError, match="nan at row 7, column 2"):
        quantize(X, 2, codebook="grouped")


def test_progress_names_the_passes():
    seen = []
    quantize(
        matrix(), 2, codebook="grouped", progress=lambda name, done, total: seen.append((name, done, total))
    )
    assert list(dict.fromkeys(name for name, _, _ in seen)) == ["scan", "mean", "fit", "encode", "measure"]
    assert all(done <= total for _, done, total in seen)


def test_real_vectors_lose_less_with_a_grouped_codebook(real_data):
    X = np.load(real_data / "embeddings" / "googlenews-8000.300d.npy")[:3000].astype(np.float32)
    uniform = quantize(X, 2).frobenius_error
    assert (
        quantize(X, 2, codebook="grouped", center=True, rotate="principal").frobenius_error < 0.85 * uniform
    )
