import dataclasses

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from smallfry.errors import CodebookError, CodeError, DigestError, RotationError, SfqError, TokenTableError
from smallfry.sfq import file as sfq
from smallfry.sfq.verify import verify
from smallfry.vocabulary import Vocabulary
from tests.helpers.tables import random_table, tables, vocabularies

WORDS = ["the", "of", "New York", "ß"]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "t.sfq"


def table(kind="uniform", nbit=2, **changes):
    return dataclasses.replace(random_table(4, 7, nbit, kind), **changes)


def vocabulary(tokens=None, offsets=None):
    """Make a vocabulary of 4 tokens, then put other arrays under its index."""
    good = Vocabulary.build(WORDS)
    return Vocabulary(
        good.tokens if tokens is None else np.frombuffer(tokens, np.uint8),
        good.offsets if offsets is None else np.array(offsets, np.uint32),
        good.index,
        good.seed,
    )


def test_every_file_that_is_written_verifies(tmp_path_factory):
    path = tmp_path_factory.mktemp("verify") / "t.sfq"

    @given(st.data())
    @settings(max_examples=40)
    def check(data):
        arbitrary = data.draw(tables())
        words = data.draw(vocabularies(arbitrary.rows))
        sfq.write(path, arbitrary, words)
        report = verify(path)
        assert report.tokens == (0 if words is None else arbitrary.rows)
        assert report.digest == sfq.map(path).header.digest

    check()


def test_report_says_what_was_verified(path):
    sfq.write(path, table(), vocabulary())
    report = verify(path)
    assert set(report.tensors) == {"codes", "codebook", "tokens", "token_offsets", "token_index"}
    assert report.nbytes == path.stat().st_size


def test_progress_ends_with_everything_done(path):
    sfq.write(path, table(), vocabulary())
    seen = {}
    verify(path, lambda name, done, total: seen.__setitem__(name, (done, total)))
    assert seen == {"digest": (path.stat().st_size - 4096,) * 2, "tokens": (4, 4)}


@given(st.data())
def test_every_changed_data_byte_is_noticed(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("changed") / "t.sfq"
    sfq.write(path, table(zero_rows=np.array([2], np.uint32)), vocabulary())
    raw = bytearray(path.read_bytes())
    position = data.draw(st.integers(4096, len(raw) - 1))
    raw[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(raw)
    with pytest.raises(SfqError):
        verify(path)


def test_changed_tensor_is_named(path):
    sfq.write(path, table())
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DigestError, match=r"t\.sfq: tensor 'codes' has the SHA-256"):
        verify(path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(
    ("part", "make"),
    [
        ("row_scale", lambda value: table(row_scale=np.full(4, value, np.float16))),
        ("rotation", lambda value: table("trellis", rotation=np.full((7, 7), value, np.float32))),
        ("codes", lambda value: table("float", 32, codes=np.full((4, 7), value, np.float32))),
    ],
)
def test_values_that_are_not_finite_are_rejected(path, part, make, value):
    sfq.write(path, make(value))
    with pytest.raises(CodeError, match=f"{part} has NaN or infinity"):
        verify(path)


def test_uniform_codebook_that_is_not_evenly_spaced_is_rejected(path):
    sfq.write(path, table(codebook=np.array([-1, 0, 0.5, 1], np.float32)))
    with pytest.raises(CodebookError, match="not 4 evenly spaced levels"):
        verify(path)


def test_rotation_is_an_orthogonal_matrix(path):
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((7, 7)))[0].astype(np.float32)
    sfq.write(path, table("trellis", rotation=basis))
    verify(path)
    for wrong in (np.zeros((7, 7), np.float32), 1.01 * basis, np.full((7, 7), 3e38, np.float32)):
        sfq.write(path, table("trellis", rotation=wrong))
        with pytest.raises(RotationError, match="expected an orthogonal matrix"):
            verify(path)


@pytest.mark.parametrize("kind", ["uniform", "trellis"])
def test_unused_bits_that_are_not_zero_are_rejected(path, kind):
    sfq.write(path, table(kind, codes=np.array([[0, 0], [0, 0], [0, 64], [0, 0]], np.uint8)))
    with pytest.raises(CodeError, match="row 2 has 2 unused bits"):
        verify(path)


@pytest.mark.parametrize(
    ("tokens", "offsets", "message"),
    [
        (None, [0, 3, 2, 13, 15], "row 1 ends before it begins"),
        (None, [0, 3, 5, 14, 15], "token_index has 4 entries, expected 2"),
        (b"theofthe\xc3\x9f", [0, 3, 5, 8, 10], "token_index has 4 entries, expected 3"),
        (b"ofttheNew York12", [0, 2, 5, 14, 16], "the token of row 0, 'of', is found at row -1"),
        (b"theof\xff\xff", [0, 3, 5, 5, 7], "the token of row 2, '', is found at row -1"),
    ],
)
def test_vocabulary_that_contradicts_itself_is_rejected(path, tokens, offsets, message):
    sfq.write(path, table(), vocabulary(tokens, offsets))
    with pytest.raises(TokenTableError, match=message):
        verify(path)


def test_row_of_an_earlier_token_or_of_invalid_utf8_is_unnamed(path):
    tokens = np.frombuffer(b"thethe\xff", np.uint8), np.array([0, 3, 6, 7, 7])
    sfq.write(path, table(), Vocabulary.build(tokens, unnamed=True))
    assert verify(path).tokens == 2
