from dataclasses import asdict
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from smallfry.sfq import file as sfq
from smallfry.sfq.metadata import Metadata
from smallfry.text.model import Pooling, TextTensors
from smallfry.vocabulary import Vocabulary
from tests.helpers.specification import Reader
from tests.helpers.tables import KINDS, plain_decode, random_table, tables, vocabularies

TEXT = (Path(__file__).parents[3] / "docs" / "reference" / "format.md").read_text()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("specification") / "t.sfq"


@given(st.data())
@settings(max_examples=40)
def test_reader_written_from_the_text_decodes_the_same_values(path, data):
    table = data.draw(tables())
    if table.nbit == 16:
        table = random_table(2, 3, 16, "exact")
    sfq.write(path, table)
    reader = Reader(path.read_bytes())
    row = data.draw(st.integers(0, table.rows - 1))
    np.testing.assert_array_equal(np.array(reader.row(row), np.float32), plain_decode(table)[row])


@given(st.data())
@settings(max_examples=40)
def test_reader_written_from_the_text_decodes_paged_tables(path, data):
    table = data.draw(tables())
    if table.nbit == 16:
        table = random_table(2, 3, 16, "exact")
    if table.nbit == 32:
        return
    sfq.write(path, table.paged())
    reader = Reader(path.read_bytes())
    row = data.draw(st.integers(0, table.rows - 1))
    np.testing.assert_array_equal(np.array(reader.row(row), np.float32), plain_decode(table)[row])


@given(vocabularies(9).filter(bool), st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
@settings(max_examples=40)
def test_reader_written_from_the_text_finds_the_same_rows(path, vocabulary, other):
    sfq.write(path, random_table(9, 1, 1, "exact"), vocabulary)
    reader = Reader(path.read_bytes())
    for word in [*vocabulary, other]:
        assert reader.find(word.encode()) == vocabulary.find([word])[0]


def test_index_built_from_the_text_has_the_same_bytes(path):
    vocabulary = Vocabulary.build([f"word number {i}" for i in range(500)])
    sfq.write(path, random_table(500, 1, 1, "exact"), vocabulary)
    reader = Reader(path.read_bytes())
    assert reader.built_index() == vocabulary.index.tolist()
    assert len(vocabulary.index) == -(-500 * 4 // 3) + 63


def test_every_tensor_kind_and_metadata_name_is_in_the_text():
    names = set(Metadata(1, 1, 1, "exact", 0.0, 0.0, 0).strings())
    names |= {
        "column_scale",
        "rotation",
        "source",
        "created_by",
        "sha256.NAME",
        "codes",
        "codebook",
        "mean",
        "row_scale",
        "layout",
        "head_offsets",
    }
    names |= {"pooling", *TextTensors._fields, *asdict(Pooling(1))}
    names |= {"zero_rows", "tokens", "token_offsets", "token_index", *sum(KINDS.values(), ())}
    assert [name for name in sorted(names) if f"`{name}`" not in TEXT] == []
