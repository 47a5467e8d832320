import bz2
import gzip
import hashlib
import io
import lzma
import pickle
import struct
import zipfile
from contextlib import suppress

import numpy as np
import pytest

from smallfry.errors import InputError
from smallfry.readers import open_vectors
from tests.helpers.readers import npy, read

GLOVE = b"the 0.5 1\nof 2 -0.25\n"
MATRIX = np.array([[0.5, 1], [2, -0.25]], np.float32)


def zip_of(files, compression=zipfile.ZIP_DEFLATED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return file.getvalue()


def relabeled(data, method):
    """Return the zip of one file with another compression method in its headers."""
    local, central = data.index(b"PK\x03\x04"), data.index(b"PK\x01\x02")
    data = bytearray(data)
    data[local + 8 : local + 10] = data[central + 10 : central + 12] = struct.pack("<H", method)
    return bytes(data)


@pytest.mark.parametrize(
    "content",
    [GLOVE, b"2 2\n" + GLOVE, b"1 2\nthe " + MATRIX[0].tobytes(), npy(MATRIX)],
)
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_only_file_is_read(content, compression):
    data = zip_of({"folder/": "", "folder/x.txt": content}, compression)
    with open_vectors(io.BytesIO(data)) as source:
        assert source.name == "<input>:folder/x.txt"
        assert source.dim == 2
    np.testing.assert_array_equal(read(data)[1], read(content)[1])


def test_npz_in_an_archive():
    data = zip_of({"x.npz": zip_of({"vectors.npy": npy(MATRIX)}), "x.txt": GLOVE})
    np.testing.assert_array_equal(read(data, member="x.npz")[1], MATRIX)


def test_member_of_an_npz():
    np.testing.assert_array_equal(read(zip_of({"x.npy": npy(MATRIX)}), member="x.npy")[1], MATRIX)


def test_directories_and_hidden_files_are_ignored():
    names = ("__MACOSX/._x.txt", ".DS_Store", ".git/config", "a/")
    assert read(zip_of({**dict.fromkeys(names, b""), "a/x.txt": GLOVE}))[0] == ["the", "of"]


def test_file_without_a_name_is_ignored():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive, archive.open(zipfile.ZipInfo(""), "w") as member:
        member.write(GLOVE)
    with pytest.raises(InputError, match="a zip archive without files"):
        read(file.getvalue())


def test_several_files_are_listed():
    data = zip_of({"x.50d.txt": GLOVE, "x.100d.txt": GLOVE * 100})
    with pytest.raises(
        InputError,
        match=r"zip archive of 2 files.*--member\): x\.50d\.txt \(21 bytes\), x\.100d\.txt \(2,100 bytes\)",
    ):
        read(data)


def test_long_lists_are_cut():
    data = zip_of({f"{i:03}" + "long name" * 20: GLOVE for i in range(999)})
    for options in ({}, {"member": "other" * 100}, {"member": "name"}):
        with pytest.raises(InputError, match=r"and \d+ more") as caught:
            read(data, **options)
        assert len(str(caught.value)) <= 500


@pytest.mark.parametrize("member", ["x.50d.txt", "a/x.50d.txt", "50d.txt"])
def test_member_is_chosen_by_the_end_of_its_name(member):
    data = zip_of({"a/x.50d.txt": GLOVE, "a/xx.50d.txt.md": b"text", "b/x.100d.txt": GLOVE * 2})
    with open_vectors(io.BytesIO(data), member=member) as source:
        assert source.name == "<input>:a/x.50d.txt"


@pytest.mark.parametrize(
    ("member", "found"),
    [("d.txt", "2 files whose name ends with 'd.txt'"), ("300d.txt", "no file whose name")],
)
def test_unclear_member_is_rejected(member, found):
    with pytest.raises(InputError, match=found):
        read(zip_of({"x.50d.txt": GLOVE, "x.100d.txt": GLOVE}), member=member)


def test_member_applies_only_to_archives():
    with pytest.raises(InputError, match="member is 'x', but <input> is not a zip archive"):
        read(GLOVE, member="x")


def test_digest_and_progress(tmp_path):
    data = zip_of({"x.txt": GLOVE * 1000})
    (tmp_path / "x.zip").write_bytes(data)
    calls = []
    source = open_vectors(tmp_path / "x.zip", progress=lambda *call: calls.append(call))
    list(source.chunks())
    assert source.sha256 == hashlib.sha256(data).hexdigest()
    assert calls[-1] == ("read", len(GLOVE) * 1000, len(GLOVE) * 1000)


def test_compression_inside_and_outside_of_the_archive():
    assert read(zip_of({"x.txt.gz": gzip.compress(GLOVE)}))[0] == ["the", "of"]
    assert read(gzip.compress(zip_of({"x.txt": GLOVE})))[0] == ["the", "of"]


def test_archive_in_an_archive_is_rejected():
    with pytest.raises(InputError, match=r"<input>:x\.zip is a zip archive without \.npy arrays"):
        read(zip_of({"x.zip": zip_of({"x.txt": GLOVE})}))


def test_xz_compressed_file():
    """Method 95 of zip; Python's zipfile does not read it."""
    data = relabeled(zip_of({"x.txt": lzma.compress(GLOVE)}, zipfile.ZIP_STORED), 95)
    assert read(data)[0] == ["the", "of"]


def test_unsupported_compression_is_rejected():
    with pytest.raises(InputError, match=r"x\.txt is compressed by method 9 of zip"):
        read(relabeled(zip_of({"x.txt": GLOVE}), 9))


def test_encrypted_file_is_rejected():
    data = bytearray(zip_of({"x.txt": GLOVE}))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(InputError, match=r"x\.txt is encrypted"):
        read(bytes(data))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "a zip archive without files"),
        ({"archive/data.pkl": b"", "archive/version": b"3"}, "a PyTorch checkpoint"),
        ({"config.json": b"", "metadata.json": b"", "model.weights.h5": b""}, "a Keras model"),
        ({"[Content_Types].xml": b"", "xl/workbook.xml": b""}, "an Office document"),
        ({"x.pkl": pickle.dumps({})}, r"x\.pkl is a pickle"),
    ],
)
def test_archive_of_another_program_is_named(files, message):
    with pytest.raises(InputError, match=message):
        read(zip_of(files))


def test_truncated_archive_is_rejected():
    with pytest.raises(InputError, match="is a damaged zip archive: the directory at its end is missing"):
        read(zip_of({"x.txt": GLOVE})[:-10])


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_damaged_byte_raises_only_input_error(compression):
    data = zip_of({"x.txt": GLOVE * 30}, compression)
    for position in range(0, len(data), 3):
        with suppress(InputError):
            read(data[:position] + bytes([data[position] ^ 0x55]) + data[position + 1 :])


def test_small_archive_of_much_data_takes_little_memory():
    block = bz2.compress(b"x" * 50_000_000)
    data = relabeled(zip_of({"x.txt": block}, zipfile.ZIP_STORED), zipfile.ZIP_BZIP2)
    with pytest.raises(InputError, match="longer than"):
        read(data)
