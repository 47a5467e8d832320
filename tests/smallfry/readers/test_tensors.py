import gzip
import json

import numpy as np
import pytest

from smallfry.errors import InputError, NonFiniteError
from tests.helpers.readers import read

MATRIX = np.arange(12, dtype=np.float32).reshape(4, 3) / 8


def safetensors(entries, data=b"", metadata=None):
    header = dict(entries) if metadata is None else {"__metadata__": metadata} | dict(entries)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def one(dtype, array, name="weight"):
    data = array.tobytes()
    return safetensors({name: entry(dtype, list(array.shape), 0, len(data))}, data)


BFLOAT16 = (MATRIX.view(np.uint32) >> 16).astype(np.uint16)


@pytest.mark.parametrize(
    ("dtype", "array"),
    [("F64", MATRIX.astype("<f8")), ("F32", MATRIX), ("F16", MATRIX.astype("<f2")), ("BF16", BFLOAT16)],
)
def test_safetensors_of_any_float_dtype(dtype, array):
    data = one(dtype, array)
    for source in (data, gzip.compress(data)):
        tokens, matrix, _ = read(source)
        assert tokens is None
        np.testing.assert_array_equal(matrix, MATRIX)


def test_words_from_a_word_list(tmp_path):
    (tmp_path / "words").write_text("a\nb\nc\nd\n")
    assert read(one("F32", MATRIX), words=tmp_path / "words")[0] == ["a", "b", "c", "d"]


def test_file_written_by_the_safetensors_package(tmp_path):
    numpy_files = pytest.importorskip("safetensors.numpy")
    numpy_files.save_file(
        {"bias": np.ones(3, np.float32), "weight": MATRIX, "ids": np.ones((2, 2), np.int64)},
        tmp_path / "model.safetensors",
        {"format": "pt"},
    )
    np.testing.assert_array_equal(read(tmp_path / "model.safetensors")[1], MATRIX)


def test_one_of_several_tensors_must_be_named():
    data = safetensors(
        {"x.weight": entry("F32", [4, 3], 0, 48), "y.weight": entry("F32", [4, 3], 48, 96)},
        MATRIX.tobytes() + (MATRIX + 1).tobytes(),
    )
    with pytest.raises(
        InputError, match=r"has 2 floating-point matrices.*x.weight F32 \[4, 3\], y.weight .*tensor="
    ):
        read(data)
    np.testing.assert_array_equal(read(data, tensor="y.weight")[1], MATRIX + 1)
    with pytest.raises(InputError, match=r"has no tensor 'z'\. It has x\.weight F32 \[4, 3\], y\.weight"):
        read(data, tensor="z")


def test_file_without_a_matrix_is_rejected():
    with pytest.raises(InputError, match="has 0 floating-point matrices"):
        read(safetensors({"bias": entry("F32", [3], 0, 12)}, bytes(12)))


def test_tensor_of_wrong_dtype_or_shape_is_rejected():
    data = safetensors({"ids": entry("I64", [1, 1], 0, 8), "bias": entry("F32", [2], 8, 16)}, bytes(16))
    with pytest.raises(InputError, match="ids is I64, expected F64, F32, F16, BF16"):
        read(data, tensor="ids")
    with pytest.raises(InputError, match=r"expected a floating-point matrix \[rows, dim\]"):
        read(data, tensor="bias")


@pytest.mark.parametrize(
    "broken",
    [
        entry("F32", [4, 3], 0, 47),
        entry("F32", [4, 3], 48, 0),
        entry("F32", [4, 3], -48, 0),
        entry("F32", [4, 3], 0.0, 48.0),
        entry("F32", [4, -3], 0, 48),
        entry("F32", [2**40, 2**40], 0, 48),
        entry("F32", [10**4000, 10**4000], 0, 48),
        entry("F32", [10**4000] * 2000, 0, 48),
        entry("F32", [4, 3], 10**4000, 10**4000 + 48),
        entry([], [4, 3], 0, 48),
        entry({}, [4, 3], 0, 48),
        entry(None, [4, 3], 0, 48),
        entry(1, [4, 3], 0, 48),
        {"dtype": "F32", "shape": [4, 3]},
        {"dtype": "F32", "data_offsets": [0, 48]},
        "weight",
    ],
)
def test_inconsistent_header_is_rejected(broken):
    for tensor in ("weight", None):
        with pytest.raises(InputError, match=r"is a damaged \.safetensors file"):
            read(safetensors({"weight": broken}, MATRIX.tobytes()), tensor=tensor)


@pytest.mark.parametrize(
    "text", [b"{", b"{}x", b'{"a": ' + b"[" * 100_000, b'{"__metadata__": 3}', b'{"\xff": 1}', b"[1]", b"[]"]
)
def test_header_that_is_not_a_json_object_is_rejected(text):
    with pytest.raises(InputError, match=r"is a damaged \.safetensors file"):
        read(len(text).to_bytes(8, "little") + text, format="safetensors")


def test_oversized_header_is_not_read():
    with pytest.raises(InputError, match="header would take 9,223,372,036,854,775,807 bytes"):
        read((2**63 - 1).to_bytes(8, "little") + b"{}", format="safetensors")


def test_truncated_file_is_rejected():
    data = one("F32", MATRIX)
    with pytest.raises(InputError, match="ends after 3 of 4 rows"):
        read(data[:-1])
    late = safetensors({"weight": entry("F32", [4, 3], 100, 148)}, bytes(50))
    with pytest.raises(InputError, match="ends before <input>:weight begins"):
        read(late)
    with pytest.raises(InputError, match="damaged"):
        read(data[:20])


def test_non_finite_value_is_rejected_with_row_and_column():
    matrix = MATRIX.copy()
    matrix[3, 0] = -np.inf
    with pytest.raises(NonFiniteError, match="row 3: value 1 is -inf"):
        read(one("F32", matrix))


def test_sfq_file_is_rejected():
    data = safetensors({"codes": entry("F32", [4, 3], 0, 48)}, MATRIX.tobytes(), {"format": "sfq"})
    with pytest.raises(InputError, match=r"is a \.sfq file: it is already compressed"):
        read(data)
