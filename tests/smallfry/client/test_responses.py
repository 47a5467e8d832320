"""Bodies of responses, valid and malformed."""

import json

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from safetensors.numpy import save

from smallfry.client import MalformedResponse
from smallfry.client.responses import read_layout, read_rows
from smallfry.client.transport.messages import Response
from smallfry.media_types import JSON, PACKED, SAFETENSORS
from smallfry.table import Table
from tests.helpers.tables import tables


def packed(table, found, fill=None):
    tensors = {"codes": table.codes, "found": found, "zero_rows": table.zero_rows, "fill": fill}
    tensors |= {"codebook": table.codebook, "mean": table.mean}
    tensors |= {"column_scale": table.column_scale, "row_scale": table.row_scale}
    metadata = {"model": "m", "digest": "d", "nbit": str(table.nbit), "dim": str(table.dim)}
    metadata |= {"codebook_kind": table.codebook_kind, "clip": repr(table.clip)}
    return save({name: array for name, array in tensors.items() if array is not None}, metadata)


def read(body, count):
    return read_rows(Response(200, {b"content-type": PACKED.encode()}, bytearray(body)), count, PACKED, None)


@given(tables(), st.data())
def test_a_packed_table_decodes_to_the_values_of_the_table(table, data):
    found = np.array(data.draw(st.lists(st.booleans(), min_size=table.rows, max_size=table.rows)))
    index = data.draw(
        st.none() | st.lists(st.integers(0, table.rows - 1)).map(lambda ids: np.array(ids, int))
    )
    fill = np.arange(table.dim, dtype=np.float32) if table.nbit < 32 and data.draw(st.booleans()) else None
    expected = table.decode()
    if table.nbit == 32:
        expected = table.codes
    if fill is not None:
        expected[~found] = fill
    rows = read(packed(table, found, fill), table.rows)
    expected = expected if index is None else expected[index]
    assert rows.decode(index).vectors.tobytes() == expected.tobytes()
    assert rows.found.tolist() == found.tolist()


@given(tables(), st.data())
def test_damaged_packed_body_is_rejected_or_read_within_bounds(table, data):
    body = bytearray(packed(table, np.ones(table.rows, bool)))
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(body) - 1))
        body[position] = data.draw(st.integers(0, 255))
    body = body[: data.draw(st.integers(len(body) // 2, len(body)))] if data.draw(st.booleans()) else body
    try:
        rows = read(bytes(body), table.rows)
        vectors = rows.decode(None).vectors
    except MalformedResponse:
        return
    assert vectors.shape[0] == rows.found.shape[0] == table.rows


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2**65) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
names = st.sampled_from(
    ["codes", "found", "codebook", "mean", "fill", "zero_rows", "column_scale", "row_scale", "other"]
)
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["U8", "F32", "BOOL", "U32", "F16", "Q7"]) | json_values,
        "shape": st.lists(st.integers(-1, 2**63), max_size=3) | json_values,
        "data_offsets": st.lists(st.integers(-1, 20), max_size=3) | json_values,
    }
)
metadatas = st.fixed_dictionaries(
    {
        "nbit": st.sampled_from(["1", "2", "3", "8", "32", "7", "x", ""]) | json_values,
        "dim": st.sampled_from(["1", "4", "0", "-1", "99999999999999999999"]) | json_values,
        "codebook_kind": st.sampled_from(["uniform", "trellis", "float", "odd"]) | json_values,
        "clip": st.sampled_from(["1.0", "nan", "x"]) | json_values,
        "model": st.just("m") | json_values,
        "digest": st.just("d") | json_values,
    }
)


@given(
    st.dictionaries(names, entries | json_values),
    metadatas | json_values,
    st.binary(max_size=40),
    st.integers(0, 3),
)
def test_crafted_header_is_rejected_or_read_within_bounds(tensors, metadata, data, count):
    header = json.dumps(tensors | {"__metadata__": metadata}).encode()
    body = len(header).to_bytes(8, "little") + header + data
    try:
        assert read(body, count).decode(None).vectors.shape[0] == count
    except MalformedResponse:
        pass


@given(st.binary(max_size=100), st.sampled_from([PACKED, SAFETENSORS, JSON, "text/html"]))
def test_random_bytes_are_rejected(body, content_type):
    with pytest.raises(MalformedResponse):
        read_rows(Response(200, {b"content-type": content_type.encode()}, bytearray(body)), 1, PACKED, None)


def test_header_larger_than_the_body_is_rejected():
    for length in (1 << 16, 2**63):
        with pytest.raises(ValueError, match="header"):
            read_layout(bytearray(length.to_bytes(8, "little") + b"{" * (1 << 17)))


def test_tensors_are_aligned_and_cover_the_body():
    body = save({"vectors": np.ones((1, 4), np.float32)}, {})
    end = 8 + int.from_bytes(body[:8], "little")
    for shift, message in ((-4, "follow the header"), (0, "multiple of its 4 bytes")):
        header = body[8:end].rstrip() + b" " * (shift + (end - 8 - len(body[8:end].rstrip())) + (shift == 0))
        data = body[end:] + bytes(-shift)
        with pytest.raises(ValueError, match=message):
            read_layout(bytearray(len(header).to_bytes(8, "little") + header + data))


def test_found_holds_only_truth_values():
    table = Table(np.zeros((1, 1), np.uint8), 1, 8, "exact", np.zeros(256, np.float32), 0.0)
    body = bytearray(packed(table, np.ones(1, bool)))
    body[-1] = 2 if body[-1] == 1 else body[-1]
    body[-2] = 2 if body[-2] == 1 else body[-2]
    with pytest.raises(MalformedResponse, match="0 and 1"):
        read(bytes(body), 1)
