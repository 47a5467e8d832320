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
        InputError, match=r"has 2 tensors to choose from.*x.weight F32 \[4, 3\], y.weight .*tensor="
    ):
        read(data)
    np.testing.assert_array_equal(read(data, tensor="y.weight")[1], MATRIX + 1)
    with pytest.raises(InputError, match=r"has no tensor 'z'\. It has x\.weight F32 \[4, 3\], y\.weight"):
        read(data, tensor="z")


def test_file_without_a_matrix_is_rejected():
    with pytest.raises(InputError, match="has 0 tensors to choose from"):
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
    with pytest.raises(InputError, match="<input>:weight ends after 0 of 4 rows"):
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


def tensors(**held):
    """Return a file of tensors in the order given: ``name=(dtype, array)``."""
    entries, data = {}, b""
    for name, (dtype, array) in held.items():
        entries[name.replace("__", ".")] = entry(
            dtype, list(array.shape), len(data), len(data) + array.nbytes
        )
        data += array.tobytes()
    return safetensors(entries, data)


INT8 = np.arange(-6, 6, dtype=np.int8).reshape(4, 3)
HALF = np.float32(0.5)


@pytest.mark.parametrize("shape", [(), (1,), (4,), (4, 1), (2, 1), (4, 3)])
@pytest.mark.parametrize(("dtype", "numpy_dtype"), [("F32", "<f4"), ("F16", "<f2"), ("F64", "<f8")])
def test_int8_is_multiplied_by_its_scale(shape, dtype, numpy_dtype):
    scale = np.full(shape, 0.5, numpy_dtype)
    _, matrix, report = read(tensors(a__weight_scale=(dtype, scale), a__weight=("I8", INT8)))
    np.testing.assert_array_equal(matrix, INT8 / 2)
    assert report.notes() == ["tensor read: a.weight, times a.weight_scale"]


def test_scale_of_bitsandbytes_is_the_largest_magnitude_of_a_row():
    magnitudes = np.array([127, 254, 63.5, 0], np.float32)
    data = tensors(
        a__SCB=("F32", magnitudes), a__weight=("I8", INT8), a__weight_format=("U8", np.array(0, "u1"))
    )
    np.testing.assert_array_equal(read(data)[1], INT8 * (magnitudes / 127)[:, None])


def test_scale_of_powers_of_two():
    scale = np.array([[126], [127], [128], [129]], np.uint8)
    data = tensors(a__weight_scale=("F8_E8M0", scale), a__weight=("F8_E4M3", np.full((4, 3), 0x38, np.uint8)))
    np.testing.assert_array_equal(read(data)[1][:, 0], [0.5, 1, 2, 4])


def test_fp8_without_a_scale_is_read_as_stored():
    _, matrix, report = read(one("F8_E4M3", np.array([[0x38, 0xB8, 0x7E]], np.uint8)))
    np.testing.assert_array_equal(matrix, [[1, -1, 448]])
    assert report.notes() == ["tensor read: weight, without a scale"]


def test_fp8_nan_is_rejected_with_row_and_column():
    with pytest.raises(NonFiniteError, match="row 1: value 2 is nan"):
        read(one("F8_E4M3", np.array([[0, 1], [2, 0x7F]], np.uint8)))


def test_int8_without_a_scale_is_rejected():
    with pytest.raises(
        InputError,
        match=r"a\.weight is I8 without a scale: there is no a\.weight_scale, .* save it as float32",
    ):
        read(tensors(a__weight=("I8", INT8), b__weight_scale=("F32", np.ones(1, "<f4"))))


def test_zero_point_is_rejected():
    data = tensors(
        a__weight_scale=("F32", np.ones((4, 1), "<f4")),
        a__weight=("I8", INT8),
        a__weight_zero_point=("I8", np.ones((4, 1), "i1")),
    )
    with pytest.raises(InputError, match=r"has a zero point, a\.weight_zero_point: asymmetric quantization"):
        read(data)


def test_only_matrix_that_is_packed_is_rejected_with_its_reason():
    data = tensors(a__weight=("U8", np.zeros((6, 1), "u1")), a__weight__absmax=("F32", np.ones(1, "<f4")))
    with pytest.raises(InputError, match=r"a\.weight is U8, .* Packed integers"):
        read(data)


@pytest.mark.parametrize("dtype", ["U8", "I32"])
def test_packed_integers_are_rejected(dtype):
    array = np.zeros((4, 3), {"U8": "u1", "I32": "<i4"}[dtype])
    data = tensors(wte__weight=(dtype, array), b__weight=("F32", MATRIX))
    with pytest.raises(InputError, match=rf"wte\.weight is {dtype}, .* Packed integers \(GPTQ, AWQ, bits"):
        read(data)


@pytest.mark.parametrize(
    ("dtype", "scale", "message"),
    [
        ("F32", np.ones(3, "<f4"), r"scale is a scale of shape \[3\], expected one value, \[4\]"),
        ("U8", np.ones(4, "u1"), "scale is U8, expected a scale of F64"),
        ("F32", np.full(4, np.nan, "<f4"), "row 0: value 1 is nan"),
        ("F32", np.full(4, 3e38, "<f4"), "row 0: value 1 is -inf"),
        ("F64", np.full(4, 1e300, "<f8"), "row 0: value 1 is -inf"),
    ],
)
def test_scale_of_wrong_shape_dtype_or_value_is_rejected(dtype, scale, message):
    with pytest.raises(InputError, match=message):
        read(tensors(a__weight_scale=(dtype, scale), a__weight=("I8", INT8)))


def test_scale_after_its_matrix_needs_a_file(tmp_path):
    data = tensors(a__weight=("I8", INT8), a__weight_scale=("F32", HALF))
    (tmp_path / "x.safetensors").write_bytes(data)
    np.testing.assert_array_equal(read(tmp_path / "x.safetensors")[1], INT8 / 2)
    with pytest.raises(InputError, match=r"a\.weight_scale is after the tensor .* pass the path of the file"):
        read(data)


def test_truncated_scale_is_rejected():
    data = tensors(a__weight_scale=("F32", np.ones(4, "<f4")), a__weight=("I8", INT8))
    with pytest.raises(InputError, match=r"a\.weight_scale ends after 3 of 4 values"):
        read(data[: -INT8.nbytes - 1])


def test_huge_scale_takes_no_memory():
    header = {
        "a_scale": entry("F32", [2**40], 0, 2**42),
        "a": entry("I8", [2**40, 1], 2**42, 2**42 + 2**40),
    }
    with pytest.raises(InputError, match="has 1,099,511,627,776 values, the limit for a scale is 67,108,864"):
        read(safetensors(header, bytes(100)))


def test_scale_is_not_taken_for_the_matrix():
    data = tensors(a__scale=("F32", np.ones((4, 1), "<f4")), a__weight=("BF16", BFLOAT16))
    np.testing.assert_array_equal(read(data)[1], MATRIX)


def test_chosen_tensor_is_reported():
    data = tensors(wte__weight=("F32", MATRIX), wpe__weight=("F32", MATRIX + 1))
    assert read(data)[2].notes() == ["tensor read: wte.weight"]
    assert read(data, tensor="wpe.weight")[2].notes() == []
    assert read(data, tensor="wpe")[2].notes() == ["tensor read: wpe.weight"]


def test_model2vec_weights_are_reported():
    data = tensors(
        embeddings=("F16", MATRIX.astype("<f2")),
        weights=("F64", np.ones(9)),
        mapping=("I64", np.zeros(9, "<i8")),
    )
    assert read(data)[2].notes() == ["tensor read: embeddings, without its weights and mapping"]


def test_message_of_long_names_and_shapes_is_short(tmp_path):
    path = tmp_path / ("f" * 255)
    name = "layer\n" * 2000
    for entries in (
        {name: entry("F32", [1] * 4000, 0, 4)},
        {name: entry("F32" * 1000, [2, 2], 0, 4)},
        {name: entry("I8", [2, 2], 0, 4)},
        {name: {}},
    ):
        for tensor in (None, name):
            path.write_bytes(safetensors(entries, bytes(16)))
            with pytest.raises(InputError) as raised:
                read(path, tensor=tensor)
            assert len(str(raised.value)) <= 500
            assert str(raised.value).isprintable()


TORCH_SCALES = {
    "tensor": (("model.embed_tokens.weight_scale", ()), (1, 1)),
    "row": (("model.embed_tokens.weight_scale", (300, 1)), (1, 260)),
    "block": (("model.embed_tokens.weight_scale_inv", (3, 3)), (128, 128)),
}


@pytest.mark.parametrize("kind", TORCH_SCALES)
@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2", "int8"])
def test_quantized_matrix_saved_by_torch(tmp_path, dtype, kind):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    (name, shape), block = TORCH_SCALES[kind]
    random = torch.Generator().manual_seed(0)
    quantized = (torch.randn(300, 260, generator=random) * 20).to(getattr(torch, dtype))
    scale = torch.rand(shape, generator=random) / 100
    save_file(
        {"model.embed_tokens.weight": quantized, name: scale, "lm_head.weight": torch.ones(300, 260)},
        tmp_path / "model.safetensors",
    )
    expanded = scale if kind == "tensor" else torch.kron(scale, torch.ones(block))[:300, :260]
    expected = (quantized.float() * expanded).numpy()
    np.testing.assert_array_equal(read(tmp_path / "model.safetensors")[1], expected)
