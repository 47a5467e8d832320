import gzip
import io
import pickle
import sqlite3
import tarfile

import numpy as np
import pytest

from smallfry.errors import InputError
from tests.helpers.readers import read

VECTORS = {"the": np.array([0.5, 1], np.float32)}


def tar(format):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as archive:
        info = tarfile.TarInfo("x.txt")
        info.size = 8
        archive.addfile(info, io.BytesIO(b"the 1 2\n"))
    return file.getvalue()


def sqlite():
    connection = sqlite3.connect(":memory:")
    connection.execute("create table magnitude (key text)")
    return connection.serialize() if hasattr(connection, "serialize") else b"SQLite format 3\0"


@pytest.mark.parametrize("data", [tar(tarfile.GNU_FORMAT), tar(tarfile.PAX_FORMAT)])
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_tar_is_named(data, compress):
    with pytest.raises(InputError, match=r"<input> is a tar archive\..* tar -xf FILE"):
        read(compress(data))


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "value", [VECTORS, VECTORS["the"], [["the"], [[0.5]]], (["the"], 1), ("the", 0.5), [0.5]], ids=str
)
def test_pickle_is_named(protocol, value):
    with pytest.raises(InputError, match=r"<input> is a pickle.* \.npy or \.safetensors"):
        read(pickle.dumps(value, protocol))


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02cgensim.models.keyedvectors\nKeyedVectors\nq\x00)\x81q\x01}q\x02(X\x05\0\0\0",
        b"\x80\x04\x95\x0e\x01\0\0\0\0\0\0\x8c\x1agensim.models.keyedvectors\x94\x8c\x0cKeyedVectors\x94\x93\x94",
        b"ccopy_reg\n_reconstructor\np0\n(cgensim.models.word2vec\nWord2Vec\np1\n",
    ],
)
def test_gensim_model_is_named(data):
    with pytest.raises(InputError, match=r"a model saved by gensim, a pickle.*\.save_word2vec_format"):
        read(data)


def test_old_pytorch_checkpoint_is_named():
    torch = pytest.importorskip("torch")
    file = io.BytesIO()
    torch.save({"weight": torch.zeros(2, 2)}, file, _use_new_zipfile_serialization=False)
    with pytest.raises(InputError, match="a PyTorch checkpoint, a pickle"):
        read(file.getvalue())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"7z\xbc\xaf\x27\x1c\0\4", "a 7z archive"),
        (b"Rar!\x1a\x07\x01\0", "a RAR archive"),
        (b"\x04\x22\x4d\x18\x64\x40", "lz4 data"),
        (b"\x1f\x9d\x90", r"\.Z data of compress"),
        (b"LZIP\x01\x0c", "lzip data"),
        (b"\x89LZO\0\r\n", "lzop data"),
        (b"FiFu\0\0\0\0\x03\0\0\0", "a finalfusion file.* ffp-convert"),
        (sqlite(), "an SQLite database, probably of pymagnitude"),
        (b"\x89HDF\r\n\x1a\n\0", "an HDF5 file"),
        (b"PAR1\x15\x04\x15\x50", "a Parquet file"),
        (b"ARROW1\0\0\xff\xff\xff\xff", "an Arrow or Feather file"),
        (b"FEA1\0\0\0\0", "an Arrow or Feather file"),
        (b"\xff\xff\xff\xff\x28\x01\0\0\x10\0\0\0", "an Arrow or Feather file"),
        (b"GGUF\x03\0\0\0\x23\x01\0\0", "a GGUF model"),
        (b"lmgg\0\x7d\0\0", "a GGML model"),
        (b"tjgg\x03\0\0\0", "a GGML model"),
        (b"\x08\x01\x12\xd6\x1f\n\x82\x05", "a TensorFlow SavedModel"),
        (b"\n\x2e\n\x05input\x12\x0bPlaceholder*\x0b", "a TensorFlow graph"),
        (b"\0\0\x09\x08\x01\x1a\x05\x08", "the index of a TensorFlow checkpoint"),
        (b"\x08\x07\x12\x07pytorch\x1a\x052.1.0", "an ONNX model"),
        (b"\n\x0e\n\x05<unk>\x15\0\0\0\0\x18\x02\n", "a SentencePiece model"),
        (b"MATLAB 5.0 MAT-file, Platform: posix", "a MATLAB file"),
        (gzip.compress(b"X\n\0\0\0\x03\0\x04", mtime=0), "R data"),
        (gzip.compress(b"RDX3\nX\n\0\0\0\x03", mtime=0), "R data"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\n", "a Git LFS pointer.* git lfs pull"),
        (b"\n<!DOCTYPE html>\n<title>404</title>", "an HTML or XML page, probably the answer to a failed"),
        (b"<html>\n<body>", "an HTML or XML page"),
        (b'<html lang="en">', "an HTML or XML page"),
        (b'<?xml version="1.0"?><Error>', "an HTML or XML page"),
        (b"%PDF-1.4\n", "a PDF document"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Office document"),
        (b'{"the": [0.5, 1]}', "JSON"),
        (b'\xef\xbb\xbf{"the": [0.5, 1]}', "JSON"),
        (b'[\n  {"token": "the", "vector": [0.5, 1]}]', "JSON"),
        (b'[["the", 0.5, 1]]', "JSON"),
        (b"[[0.5, 1], [2, 3]]", "JSON"),
    ],
)
def test_other_format_is_named(data, message):
    with pytest.raises(InputError, match=f"<input> is {message}") as caught:
        read(data)
    assert len(str(caught.value)) <= 500


@pytest.mark.parametrize(
    "token",
    [
        "{",
        "[",
        "[[",
        "[0",
        "<html>",
        "<!--",
        "GGUF",
        "PAR1",
        "FiFu",
        "MATLAB",
        "%PDF",
        "BZh9",
        "c",
        "(I1",
        "7z",
        "x^b",
    ],
)
def test_text_that_begins_with_letters_of_a_magic_number_is_read(token):
    assert read(f"{token} 0.5 1\nof 2 -0.25\n".encode())[0] == [token, "of"]
