"""Hostile files: opening and using them raises SfqError or returns something."""

import json

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

import smallfry
from smallfry.errors import SfqError
from smallfry.sfq import file as sfq
from smallfry.vocabulary import Vocabulary
from tests.helpers.crafted_files import Crafted
from tests.helpers.tables import PARTS, random_table

WORDS = [f"word {i}" for i in range(40)]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("hostile") / "t.sfq"


@pytest.fixture(scope="module")
def good(path):
    table = random_table(40, 7, 3, "trellis", parts=PARTS)
    sfq.write(path, table, Vocabulary.build(WORDS))
    return path.read_bytes()


def use(path):
    """Use every part of a store."""
    store = smallfry.open(path)
    store.rows(np.arange(len(store)))
    store.codes(np.arange(len(store)))
    for call in (lambda: store.lookup([*WORDS, "x"]), lambda: list(store), lambda: store.baseline_nbytes):
        try:
            call()
        except SfqError:
            continue


@given(st.data())
def test_file_with_changed_bytes_is_used_or_rejected(path, good, data):
    raw = bytearray(good)
    for _ in range(data.draw(st.integers(1, 8))):
        header = data.draw(st.booleans())
        position = data.draw(st.integers(0, 2500) if header else st.integers(4096, len(raw) - 1))
        raw[position] = data.draw(st.integers(0, 255))
    path.write_bytes(raw)
    try:
        use(path)
    except SfqError:
        return


@given(st.data())
def test_random_index_and_offsets_are_usable_or_rejected(path, good, data):
    path.write_bytes(good)
    header = sfq.map(path).header
    raw = bytearray(good)
    for name in ("token_index", "token_offsets", "tokens", "zero_rows"):
        if data.draw(st.booleans()):
            entry = header.tensors[name]
            noise = np.random.default_rng(data.draw(st.integers(0, 1000))).bytes(entry.end - entry.begin)
            raw[header.data_start + entry.begin : header.data_start + entry.end] = noise
    path.write_bytes(raw)
    try:
        use(path)
    except SfqError:
        return


@given(st.data())
def test_file_cut_anywhere_is_rejected(path, good, data):
    path.write_bytes(good[: data.draw(st.integers(0, len(good) - 1))])
    with pytest.raises(SfqError):
        smallfry.open(path)


def test_header_of_many_tensors_is_read_in_time(path):
    crafted = Crafted()
    content = crafted.header()
    content |= {f"x{i}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for i in range(1_000)}
    path.write_bytes(crafted.raw(json.dumps(content, separators=(",", ":")).encode()))
    assert len(smallfry.open(path)) == 4
