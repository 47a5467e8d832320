import json

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from smallfry.errors import (
    AlignmentError,
    HeaderSizeError,
    HeaderSyntaxError,
    LayoutError,
    MetadataError,
    NotSfqError,
    OffsetError,
    SfqError,
    TruncatedError,
    VersionError,
)
from smallfry.sfq.header import MAX_HEADER, build_header, header_end, parse_header
from tests.helpers.crafted_files import Crafted

METADATA = {"format": "sfq", "version": "2"}


def parse(raw, size=None):
    size = len(raw) if size is None else size
    return parse_header(raw[: header_end(raw[:9], size)], size)


def parse_text(text):
    return parse(Crafted(arrays={}).raw(text))


def test_header_that_is_built_is_parsed_to_the_same():
    arrays = {"codes": np.zeros((3, 2), np.uint8), "codebook": np.zeros(4, np.float32)}
    raw, names = build_header(arrays, METADATA)
    header = parse(raw, len(raw) + 22)
    assert names == ["codebook", "codes"]
    assert header.metadata == METADATA
    assert header.tensors["codes"].shape == (3, 2)
    assert (header.tensors["codes"].begin, header.tensors["codes"].end) == (16, 22)


def test_data_of_a_built_header_starts_at_a_page():
    for length in range(3900, 4100):
        raw, _ = build_header({}, METADATA | {"source": "x" * length})
        assert len(raw) % 4096 == 0
        assert parse(raw).data_start == len(raw)


def test_header_that_nobody_could_read_is_not_built():
    with pytest.raises(HeaderSizeError, match="shorten"):
        build_header({}, METADATA | {"source": "x" * MAX_HEADER})


def test_tensors_are_laid_out_widest_first_then_by_name():
    arrays = {
        name: np.zeros(1, dtype)
        for name, dtype in {"b": "u1", "a": "u1", "h": "f2", "u": "u4", "f": "f4", "q": "u8"}.items()
    }
    assert build_header(arrays, METADATA)[1] == ["q", "f", "u", "h", "a", "b"]


@pytest.mark.parametrize("size", range(9))
def test_file_shorter_than_a_header_is_truncated(size):
    with pytest.raises(TruncatedError, match=f"{size} bytes"):
        parse(Crafted().raw()[:size])


def test_header_longer_than_the_file_is_truncated():
    with pytest.raises(TruncatedError, match="4,000"):
        parse(Crafted().raw()[:4000])


def test_text_file_is_not_a_sfq_file():
    with pytest.raises(NotSfqError, match="smallfry compress"):
        parse(b"the 0.418 0.24968 -0.41242 0.1217\n")


def test_huge_header_is_rejected_before_it_is_read():
    with pytest.raises(HeaderSizeError, match="104,857,600"):
        header_end((100 << 20).to_bytes(8, "little") + b"{", 1 << 40)


@pytest.mark.parametrize("text", [b"{", b'{"__metadata__": {"format": "\\ud800"}}', b'{"__metadata__": []}'])
def test_header_that_breaks_the_safetensors_rules_is_rejected(text):
    with pytest.raises(HeaderSyntaxError, match="The file is damaged"):
        parse_text(text)


def test_malformed_tensor_entry_is_rejected():
    with pytest.raises(HeaderSyntaxError, match="codes"):
        parse_text(json.dumps({"__metadata__": METADATA, "codes": {"dtype": "U8", "shape": [0]}}).encode())


@pytest.mark.parametrize("metadata", [{}, {"format": "pt"}])
def test_another_safetensors_file_is_not_a_sfq_file(metadata):
    with pytest.raises(NotSfqError, match="--tensor"):
        parse_text(json.dumps({"__metadata__": metadata}).encode())


@pytest.mark.parametrize(
    ("version", "remedy"),
    [
        ("1", "compress the vectors again"),
        ("1.0", "compress the vectors again"),
        ("3", "upgrade smallfry"),
        ("3.1", "upgrade smallfry"),
    ],
)
def test_other_version_is_rejected_before_its_tensors_are_checked(version, remedy):
    crafted = Crafted()
    crafted.metadata["version"] = version
    crafted.entries["codes"] = {"layout": "of another version"}
    with pytest.raises(VersionError, match=rf"version {version}, .* reads version 2\. Please {remedy}"):
        parse(crafted.raw())


@pytest.mark.parametrize(
    "version", ["", "0", "0.2", "-1", "2.", ".2", "2.-1", "2.1.0", "2.x", "2 ", "2\n", "one", "²"]
)
def test_malformed_version_is_rejected(version):
    crafted = Crafted()
    crafted.metadata["version"] = version
    with pytest.raises(MetadataError, match="version"):
        parse(crafted.raw())


def test_data_off_a_page_is_rejected():
    with pytest.raises(AlignmentError, match="4096"):
        parse(Crafted(alignment=8).raw())


@pytest.mark.parametrize(
    ("offsets", "tail", "error", "message"),
    [
        ([349, 353], b"\0", LayoutError, "349, expected 348: it leaves a hole"),
        ([344, 348], b"", LayoutError, "overlaps"),
        ([348, 352], b"\0", LayoutError, "end at data byte 352, and the file has 353"),
        ([352, 348], b"", OffsetError, "before it begins"),
        ([348, 2**31], b"", TruncatedError, "the file has 352"),
        ([348, 2**64], b"", TruncatedError, "the file has 352"),
        ([348, 10**20 - 1], b"", TruncatedError, "the file has 352"),
    ],
)
def test_tensors_must_fill_the_data_without_holes(offsets, tail, error, message):
    with pytest.raises(error, match=message):
        parse(Crafted(entries={"tokens": {"data_offsets": offsets}}, tail=tail).raw())


@pytest.mark.parametrize("missing", [1, 4, 100])
def test_file_cut_short_is_truncated(missing):
    with pytest.raises(TruncatedError, match="copy it again"):
        parse(Crafted().raw()[:-missing])


@given(st.data())
def test_changed_byte_is_parsed_or_rejected_with_an_sfq_error(data):
    raw = bytearray(Crafted().raw())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, 1500))] = data.draw(st.integers(0, 255))
    try:
        header = parse(bytes(raw))
    except SfqError:
        return
    assert all(0 <= entry.begin <= entry.end <= 352 for entry in header.tensors.values())


@given(st.binary(max_size=200))
def test_any_header_text_parses_or_raises_sfq_error(text):
    try:
        parse_text(b"{" + text)
    except SfqError:
        return
