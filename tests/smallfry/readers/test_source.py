import gzip
import hashlib
import io
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smallfry.errors import InputError
from smallfry.readers import FORMATS, open_vectors, source
from smallfry.readers.formats import text
from tests.helpers.fasttext import fasttext_model
from tests.helpers.readers import npy, npz, read, words

GLOVE = b"the 0.5 1\nof 2 -0.25\n"


HEADER = b'{"w":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}'
SAMPLES = {
    "glove": GLOVE,
    "word2vec": b"2 2\n" + GLOVE,
    "text-matrix": b"0.5\t1\n2.5\t-0.25\n",
    "word2vec-binary": b"1 2\nthe " + np.array([0.1, 0.2], "<f4").tobytes(),
    "fasttext": fasttext_model(["the", "of"], np.ones((4, 2))),
    "npy": npy(np.ones((2, 2), np.float32)),
    "npz": npz(vectors=np.ones((2, 2), np.float32)),
    "safetensors": len(HEADER).to_bytes(8, "little") + HEADER + bytes(16),
}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", ["x", "x.txt", "x.npy"])
def test_format_is_detected_from_content(tmp_path, format, name):
    path = tmp_path / name
    for data in (SAMPLES[format], gzip.compress(SAMPLES[format])):
        path.write_bytes(data)
        with open_vectors(path) as source:
            assert source.format == format
            assert source.name == name


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_standard_input(format, pack):
    data = pack(SAMPLES[format])
    script = (
        "from smallfry.readers import open_vectors\n"
        "source = open_vectors('-')\n"
        "rows = sum(len(vectors) for _, vectors in source.chunks())\n"
        "print(source.name, source.format, rows, source.sha256)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], input=data, capture_output=True, check=True)
    rows = 1 if format == "word2vec-binary" else 2
    expected = ["<stdin>", format, str(rows), hashlib.sha256(data).hexdigest()]
    assert done.stdout.decode().split() == expected


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_digest_covers_the_stored_bytes(tmp_path, format, pack):
    data = pack(SAMPLES[format])
    (tmp_path / "x").write_bytes(data)
    source = open_vectors(tmp_path / "x")
    list(source.chunks())
    assert source.sha256 == hashlib.sha256(data).hexdigest()


@settings(max_examples=300)
@given(st.sampled_from(FORMATS), st.data())
def test_damaged_input_is_read_or_rejected(format, data):
    damaged = bytearray(SAMPLES[format])
    for _ in range(data.draw(st.integers(1, 3))):
        begin = data.draw(st.integers(0, len(damaged)))
        end = begin + data.draw(st.integers(0, 3))
        damaged[begin:end] = data.draw(
            st.binary(max_size=3) | st.text("0123456789 \n.,-{}[]()'\":", max_size=3).map(str.encode)
        )
    try:
        _, matrix, _ = read(bytes(damaged), format=data.draw(st.sampled_from([None, format])))
    except InputError:
        return
    assert np.isfinite(matrix).all()


def test_no_digest_under_a_limit():
    source = open_vectors(io.BytesIO(npy(np.zeros((1_000_000, 4), np.float32))), limit=1)
    list(source.chunks())
    assert source.sha256 is None


def test_file_object_is_read_from_its_position_and_left_open(tmp_path):
    (tmp_path / "x").write_bytes(b"head\n" + GLOVE)
    with open(tmp_path / "x", "rb") as file:
        file.readline()
        assert read(file)[0] == ["the", "of"]
        assert not file.closed


def test_text_mode_file_is_rejected(tmp_path):
    (tmp_path / "x").write_bytes(GLOVE)
    with open(tmp_path / "x") as file, pytest.raises(TypeError, match="open it with mode 'rb'"):
        open_vectors(file)


def test_named_pipe(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = subprocess.Popen([sys.executable, "-c", f"open({str(path)!r}, 'wb').write({GLOVE!r})"])
    assert read(path)[0] == ["the", "of"]
    assert writer.wait() == 0


def test_source_is_read_once():
    source = open_vectors(io.BytesIO(GLOVE))
    list(source.chunks())
    with pytest.raises(RuntimeError, match="a source is read once"):
        list(source.chunks())


def test_progress_counts_the_stored_bytes(tmp_path):
    data = gzip.compress(GLOVE * 1000)
    (tmp_path / "x").write_bytes(data)
    calls = []
    list(open_vectors(tmp_path / "x", progress=lambda *call: calls.append(call)).chunks())
    assert calls[-1] == ("read", len(data), len(data))
    assert [call[1] for call in calls] == sorted(call[1] for call in calls)


def test_chunks_are_packed_tokens_and_their_vectors():
    [(tokens, vectors)] = open_vectors(io.BytesIO(GLOVE)).chunks()
    assert words(tokens) == ["the", "of"]
    assert vectors.tolist() == [[0.5, 1], [2, -0.25]]


@pytest.mark.parametrize("data", [b"", gzip.compress(b"", mtime=0)])
def test_empty_file_is_rejected(data):
    with pytest.raises(InputError, match="is empty, expected vectors"):
        read(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"no vectors\nat all\n", "holds no vectors: its first line is 'no vectors'"),
        (b"\n\n", "holds no vectors"),
        (b"the\nof\n", "holds no vectors"),
    ],
)
def test_file_without_vectors_is_rejected(data, message):
    with pytest.raises(InputError, match=message):
        read(data)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "csv"}, "format is 'csv', expected one of glove, word2vec"),
        ({"limit": 0}, "limit is 0, expected 1 or more"),
        ({"words": "words.txt"}, "words is set, but <input> is glove"),
        ({"tensor": "weight"}, "tensor is 'weight', but <input> is glove"),
    ],
)
def test_inapplicable_options_are_rejected(options, message):
    with pytest.raises(InputError, match=message):
        read(GLOVE, **options)


def test_missing_files_and_directories_raise_os_errors(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_vectors(tmp_path / "missing")
    with pytest.raises(IsADirectoryError):
        open_vectors(tmp_path)
    (tmp_path / "x.npy").write_bytes(SAMPLES["npy"])
    with pytest.raises(FileNotFoundError):
        open_vectors(tmp_path / "x.npy", words=tmp_path / "missing")


def tokens_of(invalid, valid):
    return [b"\xe0%d" % i for i in range(invalid)] + [b"t%d" % i for i in range(valid)]


@pytest.mark.parametrize(("invalid", "valid"), [(5, 25), (20, 0), (6, 113)])
def test_text_of_another_encoding_is_rejected(invalid, valid):
    data = b"".join(token + b" 1 2\n" for token in tokens_of(invalid, valid))
    with pytest.raises(InputError, match=rf"{invalid} of {invalid + valid} tokens .*--encoding"):
        read(data)
    assert read(data, encoding="utf-8")[2].invalid_utf8 == invalid


def test_word_list_of_another_encoding_is_rejected(tmp_path):
    path = tmp_path / "words.txt"
    path.write_bytes(b"\n".join(tokens_of(20, 10)))
    matrix = io.BytesIO(npy(np.ones((30, 2), np.float32)))
    with pytest.raises(InputError, match=r"20 of 30 tokens .*--encoding"):
        list(open_vectors(matrix, words=path).chunks())


@pytest.mark.parametrize(("invalid", "valid"), [(1, 4), (4, 16), (5, 95)])
def test_few_invalid_tokens_are_accepted(invalid, valid):
    data = b"".join(token + b" 1 2\n" for token in tokens_of(invalid, valid))
    assert read(data)[2].invalid_utf8 == invalid


@pytest.mark.parametrize(("invalid", "valid"), [(1, 0), (2, 7), (4, 15), (6, 94)])
def test_a_larger_share_of_invalid_tokens_is_rejected(invalid, valid):
    data = b"".join(token + b" 1 2\n" for token in tokens_of(invalid, valid))
    with pytest.raises(InputError, match="are not valid UTF-8"):
        read(data)


def test_another_encoding_is_rejected_before_the_end(monkeypatch):
    monkeypatch.setattr(source, "_ENOUGH_TOKENS", 10)
    monkeypatch.setattr(text, "BLOCK_BYTES", 100)
    lines = [token + b" 1 2\n" for token in tokens_of(20, 0)] + [b"malformed\n"]
    with pytest.raises(InputError, match="are not valid UTF-8"):
        read(b"".join(lines))


def test_rows_are_read_without_their_tokens():
    source = open_vectors(io.BytesIO(b"a 1 2\na 3 4\n\xff 5 6\n"))
    ((tokens, vectors),) = source.chunks(tokens=False)
    assert tokens is None
    assert vectors.tolist() == [[1, 2], [3, 4], [5, 6]]
