"""The safetensors codec: what it builds, what it rejects."""

import hypothesis.strategies as st
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given

from smallfry.sfq.safetensors import PREFIX, build_header, parse_entry, parse_header, tensor_dtype

ARRAYS = {
    "codes": np.arange(6, dtype=np.uint8).reshape(2, 3),
    "mean": np.ones(3, np.float32),
    "found": np.array([True, False]),
}


@given(st.text(), st.sampled_from([8, 64, 4096]))
def test_header_is_parsed_to_what_it_was_built_from(text, alignment):
    metadata = {"text": text.encode(errors="replace").decode()}
    raw = build_header(ARRAYS.items(), metadata, alignment)
    assert len(raw) % alignment == 0
    assert int.from_bytes(raw[:PREFIX], "little") == len(raw) - PREFIX
    entries, parsed = parse_header(raw[PREFIX:], ValueError)
    assert parsed == metadata
    tensors = {name: parse_entry(name, entry, ValueError) for name, entry in entries.items()}
    assert [(entry.begin, entry.end) for entry in tensors.values()] == [(0, 6), (6, 18), (18, 20)]
    for name, array in ARRAYS.items():
        assert tensors[name].shape == array.shape
        assert tensor_dtype(name, tensors[name], ValueError) == array.dtype


def test_safetensors_package_reads_what_is_built():
    raw = build_header(ARRAYS.items(), {}) + b"".join(array.tobytes() for array in ARRAYS.values())
    loaded = safetensors.numpy.load(raw)
    assert loaded.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(loaded[name], array)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", "not valid JSON"),
        (b"{}x", "not valid JSON: Extra data"),
        (b'{"\xff": 1}', "not valid JSON: 'utf-8'"),
        (b'{"\\ud800": 1}', "not valid JSON: 'utf-8'"),
        (b'{"a": 1, "b": 2, "a": 3}', "the name 'a' occurs twice"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b'{"a": ' + b"1" * 5000 + b"}", "a number has 5000 digits"),
        (b'{"a": ' + b"[" * 100_000, "not valid JSON"),
        (b"[]", "a JSON list, expected an object"),
        (b'{"__metadata__": []}', "__metadata__ is not an object of strings"),
        (b'{"__metadata__": {"a": 1}}', "__metadata__ is not an object of strings"),
    ],
)
def test_malformed_header_is_rejected(text, message):
    with pytest.raises(ZeroDivisionError, match=message):
        parse_header(text, ZeroDivisionError)


@pytest.mark.parametrize(
    "entry",
    [
        1,
        {"dtype": "U8", "shape": [0]},
        {"dtype": "U8", "shape": [0], "data_offsets": [0]},
        {"dtype": "U8", "shape": [0], "data_offsets": [0, 0, 0]},
        {"dtype": "U8", "shape": [-1], "data_offsets": [0, 0]},
        {"dtype": "U8", "shape": [0.0], "data_offsets": [0, 0]},
        {"dtype": "U8", "shape": [False], "data_offsets": [0, 0]},
        {"dtype": "U8", "shape": [[0]], "data_offsets": [0, 0]},
        {"dtype": "U8", "shape": 0, "data_offsets": [0, 0]},
        {"dtype": 8, "shape": [0], "data_offsets": [0, 0]},
        {"dtype": "U8", "shape": [0], "data_offsets": [0, 0], "more": 1},
    ],
)
def test_malformed_entry_is_rejected(entry):
    with pytest.raises(ZeroDivisionError, match="the entry of tensor 'codes'"):
        parse_entry("codes", entry, ZeroDivisionError)


@pytest.mark.parametrize(
    ("dtype", "offsets", "message"),
    [
        ("I7", [0, 6], "has dtype 'I7', expected one of U64"),
        ("F16", [0, 6], "spans 6 bytes, and its shape .* of F16 takes 12"),
        ("U8", [6, 0], "spans -6 bytes"),
    ],
)
def test_tensor_must_span_the_bytes_of_its_shape(dtype, offsets, message):
    entry = parse_entry("codes", {"dtype": dtype, "shape": [2, 3], "data_offsets": offsets}, ValueError)
    with pytest.raises(ZeroDivisionError, match=message):
        tensor_dtype("codes", entry, ZeroDivisionError)
