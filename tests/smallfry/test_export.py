import io
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import smallfry
from smallfry.compress import compress_file, quantize
from smallfry.errors import InputError
from smallfry.export import FORMATS, export_file
from smallfry.readers.records import pack
from smallfry.sfq import file as sfq
from smallfry.vocabulary import Vocabulary

TOKENS = ["the", "New York", "-", "naïve", "\xa0", "1.5", "x" * 300, '"', "#", "a\x0bb", "\u2028", "\x00"]
NAMES = {"glove": "t.txt", "word2vec": "t.vec", "word2vec-binary": "t.bin", "npy": "t.npy"}


def make(folder, tokens=None, *, dim=7, nbit=4, **options):
    rows = 12 if tokens is None else len(tokens)
    matrix = np.random.default_rng(0).standard_normal((rows, dim), np.float32)
    matrix[1:2] = 0
    smallfry.save(folder / "input.sfq", quantize(matrix, nbit, **options), tokens)
    return smallfry.open(folder / "input.sfq")


def read_back(folder, output, words=None):
    compress_file(output, folder / "back.sfq", 32, words=words)
    return smallfry.open(folder / "back.sfq")


def assert_equal(store, other):
    np.testing.assert_array_equal(store.rows(range(len(store))), other.rows(range(len(other))))
    assert (store.vocabulary is None) == (other.vocabulary is None)
    if store.vocabulary is not None:
        assert list(store) == list(other)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    ("nbit", "options"),
    [
        *((nbit, {}) for nbit in (1, 2, 4, 8, 16, 32)),
        (3, {"codebook_kind": "trellis", "center": True, "row_scale": True}),
        (2, {"codebook_kind": "trellis", "rotate": True}),
    ],
)
def test_exported_vectors_compress_to_the_same_rows_and_tokens(tmp_path, format, nbit, options):
    tokens = [token.replace(" ", "_") for token in TOKENS]
    store = make(tmp_path, tokens, nbit=nbit, **options)
    report = export_file(store, tmp_path / "t.x", format)
    assert report.format == format
    assert_equal(store, read_back(tmp_path, tmp_path / "t.x", report.words))


@pytest.mark.parametrize(("format", "name"), NAMES.items())
def test_suffix_chooses_the_format(tmp_path, format, name):
    store = make(tmp_path, ["a", "b", "c"])
    assert export_file(store.path, tmp_path / name).format == format
    assert_equal(store, read_back(tmp_path, tmp_path / name))  # with the word list next to t.npy


def test_blocks_are_joined(tmp_path, monkeypatch):
    monkeypatch.setattr("smallfry.export._BLOCK_VALUES", 21)
    monkeypatch.setattr("smallfry.export._BLOCK_TOKENS", 5)
    store = make(tmp_path, TOKENS)
    seen = []
    for name in ("t.txt", "u.npy"):
        export_file(store, tmp_path / name, progress=lambda *now: seen.append(now))
        assert_equal(store, read_back(tmp_path, tmp_path / name))
    assert seen == 2 * [("export", done, 12) for done in (3, 6, 9, 12)]


def test_text_is_that_of_glove(tmp_path):
    smallfry.save(tmp_path / "t.sfq", quantize(np.array([[0.1, -2], [1e-5, 0]], np.float32), 32), ["a", "b"])
    for name, head in (("t.txt", ""), ("t.vec", "2 2\n")):
        export_file(tmp_path / "t.sfq", tmp_path / name)
        assert (tmp_path / name).read_text() == head + "a 0.1 -2.0\nb 1e-05 0.0\n"


def test_spaces_in_tokens_of_text_are_counted(tmp_path):
    assert export_file(make(tmp_path, TOKENS), tmp_path / "t.txt").spaced == 1
    assert_equal(smallfry.open(tmp_path / "input.sfq"), read_back(tmp_path, tmp_path / "t.txt"))


@pytest.mark.parametrize(
    ("format", "token"),
    [
        ("glove", "a\nb"),
        ("glove", "\n"),
        ("glove", "a "),
        ("glove", "a 1.5"),
        ("word2vec", "New York"),
        ("word2vec", "a\nb"),
        ("word2vec-binary", "New York"),
        ("word2vec-binary", "\nb"),
        ("word2vec-binary", "x" * 70_000),
        ("npy", "a\nb"),
        ("safetensors", "a\r"),
    ],
)
def test_token_that_the_format_cannot_hold_is_named(tmp_path, format, token):
    store = make(tmp_path, ["a", "b", token])
    with pytest.raises(InputError, match=r"row 2: .* cannot hold the token") as error:
        export_file(store, tmp_path / "t", format)
    assert len(str(error.value)) < 500 and str(error.value).isprintable()
    assert sorted(os.listdir(tmp_path)) == ["input.sfq"]


@pytest.mark.parametrize(
    "tokens",
    [
        ["#", "a", "b"],
        ["\ufeff", "a", "b"],
        ["1.5", "2.5", "3.5"],
        ['"a"', '"b"', '"c"'],
    ],
)
def test_text_is_read_back_or_rejected(tmp_path, tokens):
    store = make(tmp_path, tokens)
    try:
        export_file(store, tmp_path / "t.txt")
    except InputError as error:
        assert "would be misread" in str(error)
    else:
        assert_equal(store, read_back(tmp_path, tmp_path / "t.txt"))


@pytest.mark.parametrize("name", ["t.txt", "t.npy", "t.safetensors"])
def test_rows_without_tokens(tmp_path, name):
    store = make(tmp_path)
    assert export_file(store, tmp_path / name).words is None
    assert_equal(store, read_back(tmp_path, tmp_path / name))
    assert sorted(os.listdir(tmp_path)) == sorted(["input.sfq", "back.sfq", name])


@pytest.mark.parametrize("name", ["t.vec", "t.bin"])
def test_word2vec_needs_tokens(tmp_path, name):
    with pytest.raises(InputError, match="has no vocabulary, which word2vec"):
        export_file(make(tmp_path), tmp_path / name)


def test_unnamed_rows_keep_their_words(tmp_path):
    table = quantize(np.eye(4, dtype=np.float32), 32)
    vocabulary = Vocabulary.build(pack([b"a", b"a", b"\xff", b"b"]), unnamed=True)
    sfq.write(tmp_path / "t.sfq", table, vocabulary)
    export_file(tmp_path / "t.sfq", tmp_path / "t.npy")
    assert (tmp_path / "t.txt").read_bytes() == b"a\na\n\xff\nb\n"
    with pytest.raises(InputError, match="2 rows whose word an earlier row has or is not valid UTF-8"):
        export_file(tmp_path / "t.sfq", tmp_path / "t.vec")


def test_file_with_the_name_of_the_word_list_is_kept(tmp_path):
    store = make(tmp_path, ["a", "b"])
    (tmp_path / "t.txt").write_text("a 0.1\nb 0.2\n")
    with pytest.raises(InputError, match=r"t\.txt exists, and the list of words would replace it"):
        export_file(store, tmp_path / "t.npy")
    assert (tmp_path / "t.txt").read_text() == "a 0.1\nb 0.2\n"
    assert not (tmp_path / "t.npy").exists()


@pytest.mark.parametrize(
    "tokens",
    [
        ["a ", "a", " ", "\t", "b\tc", ""],
        ["the 3", "of 2", "and 1"],
        ["0 the", "1 of", "2 and"],
        ['"a"', '"b"', 'c"'],
        ["\ufeffa", "b", "c"],
        ['{"a": 0}', "b", "c"],
        ["a,1", "b,2", ""],
        ["'a'", "'b'", "'c'"],
        ["word", "1", "2"],
        ["#version", "a", '","'],
        ["a 0.1 0.2", "b 0.1 0.2"],
        ["0.5", "1.5", "\\"],
        [" ", "0"],
    ],
)
def test_words_that_look_like_another_list_are_read_back(tmp_path, tokens):
    store = make(tmp_path, tokens)
    export_file(store, tmp_path / "t.npy")
    assert_equal(store, read_back(tmp_path, tmp_path / "t.npy"))


@settings(max_examples=50)
@given(st.lists(st.text(st.sampled_from("ab1 0.,;\"\t'-|:[]{}#\\"), max_size=6), min_size=1, unique=True))
def test_any_words_without_line_ends_are_read_back(tokens):
    with tempfile.TemporaryDirectory() as folder:
        store = make(Path(folder), tokens)
        export_file(store, Path(folder, "t.npy"))
        assert_equal(store, read_back(Path(folder), Path(folder, "t.npy")))


def test_export_can_be_repeated(tmp_path):
    store = make(tmp_path, ["a", "b"])
    for _ in range(2):
        assert export_file(store, tmp_path / "t.npy").words == tmp_path / "t.txt"


@pytest.mark.parametrize(
    ("name", "format", "words"),
    [
        ("t.csv", None, "expected a name that ends in .txt, .vec, .bin, .npy, .safetensors"),
        ("t.txt", "npz", "format is 'npz', expected one of glove"),
        ("input.sfq", "npy", "is both input and output"),
        ("t.txt", "npy", "is the name of its list of words"),
    ],
)
def test_invalid_output_is_rejected(tmp_path, name, format, words):
    store = make(tmp_path, ["a", "b"])
    before = store.path.read_bytes()
    with pytest.raises(InputError, match=words):
        export_file(store, tmp_path / name, format)
    assert store.path.read_bytes() == before
    assert os.listdir(tmp_path) == ["input.sfq"]


def test_failure_leaves_the_output_unchanged(tmp_path):
    def fail(*_):
        raise OSError(28, "No space left on device")

    store = make(tmp_path, ["a", "b"])
    (tmp_path / "t.npy").write_text("before")
    with pytest.raises(OSError, match="what was there is unchanged"):
        export_file(store, tmp_path / "t.npy", progress=fail)
    assert (tmp_path / "t.npy").read_text() == "before"
    assert sorted(os.listdir(tmp_path)) == ["input.sfq", "t.npy"]


def test_binary_file_object(tmp_path):
    store = make(tmp_path, ["a", "b"])
    export_file(store, tmp_path / "t.txt")
    file = io.BytesIO()
    export_file(store, file, "glove")
    assert file.getvalue() == (tmp_path / "t.txt").read_bytes()
    for format, words in ((None, "needs a format"), ("npy", "needs a path")):
        with pytest.raises(InputError, match=words):
            export_file(store, io.BytesIO(), format)


def test_numpy_and_safetensors_read_the_matrix(tmp_path):
    store = make(tmp_path, ["a", "b"])
    export_file(store, tmp_path / "t.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "t.npy"), store.rows([0, 1]))
    numpy = pytest.importorskip("safetensors.numpy")
    export_file(store, tmp_path / "t.safetensors")
    np.testing.assert_array_equal(numpy.load_file(tmp_path / "t.safetensors")["vectors"], store.rows([0, 1]))


def test_gensim_reads_word2vec_files(tmp_path):
    keyed_vectors = pytest.importorskip("gensim.models").KeyedVectors
    store = make(tmp_path, ["a", "naïve", "-"])
    for name, options in (("t.vec", {}), ("t.bin", {"binary": True}), ("t.txt", {"no_header": True})):
        export_file(store, tmp_path / name)
        found = keyed_vectors.load_word2vec_format(str(tmp_path / name), **options)
        assert found.index_to_key == list(store)
        np.testing.assert_array_equal(found.vectors, store.rows([0, 1, 2]))
