"""Hostile files: the C library accepts what Python accepts, and using it is safe."""

import json
from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import smallfry
from smallfry import kernels
from smallfry.errors import SfqError
from smallfry.sfq import file as sfq
from smallfry.vocabulary import Vocabulary
from tests.attacks.crafted import FILES
from tests.helpers.c_library import DTYPES, INVALID_FILE, CError, CTable, is_valid_without_tokens
from tests.helpers.crafted_files import Crafted
from tests.helpers.tables import PARTS, random_table

pytestmark = pytest.mark.skipif(not kernels.native, reason="the C library needs a compiler")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("hostile") / "t.sfq"


def opens_in_python(path):
    try:
        smallfry.open(path).close()
    except SfqError:
        return False
    return True


def opens_in_c(path):
    """Open a file and read its rows; whether it opens."""
    try:
        table = CTable(path)
    except CError as error:
        assert error.status == INVALID_FILE
        assert str(error).startswith(f"{path}: ") and len(str(error)) < len(str(path)) + 500
        return False
    with table:
        if table.rows * table.dim <= 1 << 22:
            ids = np.arange(table.rows)
            if table.heads:
                ids = np.zeros((1, table.heads), np.int64)
            for dtype in DTYPES:
                try:
                    table.gather(ids, dtype)
                    table.prefetch(ids)
                except CError:
                    assert table.heads  # one of them is empty
    return True


def agree(path, raw):
    """Compare the C library with Python."""
    path.write_bytes(raw)
    opened = opens_in_c(path)
    assert opened == is_valid_without_tokens(raw)
    if opens_in_python(path):
        assert opened


@pytest.mark.parametrize("name", FILES)
def test_crafted_file_is_rejected_or_used(path, name):
    agree(path, FILES[name].build())


def tables():
    """Yield tables of all layouts, those of the first two with tokens, the others with heads."""
    for table in (
        random_table(40, 7, 3, "trellis", parts=PARTS),
        random_table(40, 7, 4, "uniform", parts=PARTS),
    ):
        yield table, Vocabulary.build(map(str, range(40)))
    for table in (
        random_table(3, 5, 32, "float", parts=PARTS),
        random_table(40, 9, 2, "exact", parts=("row_scale", "mean")).paged(),
        random_table(2, 9000, 4, "trellis", parts=("row_scale", "column_scale")).paged(),
    ):
        yield replace(table, head_offsets=np.array([0, 1, table.rows], np.uint64)), None


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    """Return the headers of valid files, as JSON, with the bytes of their tensors."""
    path, files = tmp_path_factory.mktemp("valid") / "t.sfq", []
    for table, vocabulary in tables():
        sfq.write(path, table, vocabulary)
        raw = path.read_bytes()
        end = 8 + int.from_bytes(raw[:8], "little")
        files.append((raw[8:end].rstrip(), raw[end:]))
    return files


FRAGMENTS = [
    *rb'" \ \u0041 \ud83d\ude00 \udc00 \n 0 - -0 1e1 NaN null , ] } {}'.split(),
    *(b"9" * 20, b"9" * 21, b" ", b"\n", b"\x00", b"\xff", "é".encode()),
]
#: Position, whether it is one of the JSON's marks, removed bytes, and those in their place.
EDIT = st.tuples(
    st.integers(0, 3000), st.booleans(), st.integers(0, 2), st.binary(max_size=3) | st.sampled_from(FRAGMENTS)
)


def file_of(text, tensors):
    """Return a file with a JSON header."""
    length = -(-(8 + len(text)) // 4096) * 4096 - 8
    return length.to_bytes(8, "little") + text.ljust(length) + tensors


@settings(max_examples=400)
@given(number=st.integers(0, 4), edits=st.lists(EDIT, min_size=1, max_size=4))
def test_edited_header_is_accepted_if_python_accepts_it(path, valid, number, edits):
    text, tensors = valid[number]
    edited = bytearray(text)
    for position, at_mark, removed, inserted in edits:
        places = [i for i, byte in enumerate(edited) if byte in b'{}[]:,"'] if at_mark else range(len(edited))
        at = places[position % len(places)] if places else 0
        edited[at : at + removed] = inserted
    agree(path, file_of(bytes(edited), tensors))


VALUES = st.integers(0, 2**65).map(str) | st.sampled_from(
    ["0", "00004", "1.5", "1e400", "1e-400", "1.", "e1", "", "paged", "uniform", "trellis", "float"]
)
SIZES = st.lists(st.integers(-1, 100) | st.integers(0, 2**66), max_size=3)
DTYPES_OF_TENSORS = st.sampled_from(["U8", "F32", "F16", "U32", "U64", "F64"])


@settings(max_examples=300)
@given(number=st.integers(0, 4), data=st.data())
def test_changed_field_is_accepted_if_python_accepts_it(path, valid, number, data):
    text, tensors = valid[number]
    header = json.loads(text)
    name = data.draw(st.sampled_from(sorted(header)))
    fields, action = header[name], data.draw(st.sampled_from(["remove", "change", "rename"]))
    key = data.draw(st.sampled_from(sorted(fields)))
    if action == "remove":
        del fields[key]
    elif action == "change":
        fields[key] = data.draw(
            VALUES if name == "__metadata__" else DTYPES_OF_TENSORS if key == "dtype" else SIZES
        )
    elif name != "__metadata__":
        header[data.draw(st.sampled_from(["mean", "rotation", "other", "zero_rows"]))] = header.pop(name)
    agree(path, file_of(json.dumps(header).encode(), tensors))


@settings(max_examples=200)
@given(
    number=st.integers(0, 4),
    changes=st.lists(st.tuples(st.integers(0), st.binary(min_size=1, max_size=8)), max_size=8),
)
def test_changed_tensors_are_accepted_if_python_accepts_them(path, valid, number, changes):
    text, tensors = valid[number]
    changed = bytearray(tensors)
    for position, content in changes:
        at = position % len(changed)
        changed[at : at + len(content)] = content[: len(changed) - at]
    agree(path, file_of(text, bytes(changed)))


def test_file_cut_anywhere_is_rejected(path):
    raw = Crafted().raw()
    for size in (0, 7, 8, 9, 100, 4095, 4096, len(raw) - 1):
        agree(path, raw[:size])
        assert not opens_in_c(path)
