import gzip
import io
import zipfile
from contextlib import suppress

import numpy as np
import pytest

from smallfry.errors import BadLineError, InputError, NonFiniteError
from smallfry.readers import open_vectors
from smallfry.readers.formats import matrix as matrix_reader
from tests.helpers.readers import npy, npz, read

MATRIX = np.arange(12, dtype=np.float32).reshape(4, 3) / 8
WORDS = ["a", "b b", "", "é"]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Read a row or two at a time."""
    monkeypatch.setattr(matrix_reader, "BLOCK_BYTES", 30)


def npz_of(compression=zipfile.ZIP_DEFLATED, **members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return file.getvalue()


def save(folder, name, data):
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_of_any_float_dtype_and_order(tmp_path, dtype, order):
    path = save(tmp_path, "x.npy", npy(np.array(MATRIX, dtype, order=order)))
    words = save(tmp_path, "words", "a\nb b\n\né\n")
    tokens, matrix, _ = read(path, words=words)
    assert tokens == WORDS
    np.testing.assert_array_equal(matrix, MATRIX)


def test_npy_of_python_2_is_read_without_a_warning():
    data = npy(MATRIX).replace(b"(4, 3), }  ", b"(4L, 3L), }")
    assert b"(4L" in data
    np.testing.assert_array_equal(read(data)[1], MATRIX)


@pytest.mark.parametrize("name", ["x.300d.f16.txt", "x.300d.txt", "x.txt"])
def test_word_list_next_to_the_matrix_is_found(tmp_path, name):
    path = save(tmp_path, "x.300d.f16.npy", npy(MATRIX))
    save(tmp_path, name, "a\nb\nc\nd\n")
    assert read(path)[0] == ["a", "b", "c", "d"]


def test_word_list_with_the_longest_name_wins(tmp_path):
    path = save(tmp_path, "x.f16.npy", npy(MATRIX))
    save(tmp_path, "x.txt", "1\n2\n3\n4\n")
    save(tmp_path, "x.f16.txt", "a\nb\nc\nd\n")
    assert read(path)[0] == ["a", "b", "c", "d"]


def test_matrix_without_words_has_no_tokens(tmp_path):
    tokens, matrix, report = read(save(tmp_path, "x.npy", npy(MATRIX)))
    assert tokens is None
    np.testing.assert_array_equal(matrix, MATRIX)
    assert report.rows == 4


def test_npy_from_a_gzipped_pipe():
    np.testing.assert_array_equal(read(gzip.compress(npy(MATRIX)))[1], MATRIX)


@pytest.mark.parametrize("text", ["a\r\nb b\r\n\r\né\r\n", "\ufeffa\nb b\n\né", "a\nb b\n\né\n"])
def test_word_list_line_endings(tmp_path, text):
    words = save(tmp_path, "words", text)
    assert read(npy(MATRIX), words=words)[0] == WORDS


def test_gzipped_word_list(tmp_path):
    words = save(tmp_path, "words.gz", gzip.compress("a\nb b\n\né\n".encode()))
    assert read(npy(MATRIX), words=words)[0] == WORDS


@pytest.mark.parametrize("limit", [None, 3])
def test_row_keeps_its_number_whatever_its_word(tmp_path, limit):
    words = save(tmp_path, "words", b"a\n\xe2\na\n\xe2\n")
    with open_vectors(io.BytesIO(npy(MATRIX)), words=words, limit=limit, encoding="utf-8") as source:
        chunks = list(source.chunks())
    np.testing.assert_array_equal(np.concatenate([rows for _, rows in chunks]), MATRIX[:limit])
    assert b"".join(tokens.buf.tobytes() for tokens, _ in chunks) == b"a\xe2a\xe2"[:limit]
    assert source.report.invalid_words == (2 if limit is None else 1)


def test_strict_rejects_a_word_that_is_not_utf8(tmp_path):
    words = save(tmp_path, "words", b"a\n\xe2\na\n\xe2\n")
    with pytest.raises(BadLineError, match=r"row 1: token b'\\xe2' is not valid UTF-8"):
        read(npy(MATRIX), words=words, strict=True)


@pytest.mark.parametrize(("text", "count"), [("a\nb\n", 2), ("", 0), ("a\nb\nc\nd\ne\n", 5)])
def test_number_of_words_must_match_number_of_vectors(tmp_path, text, count):
    message = rf"Number of words \({count}\) does not match number of vectors \(4\)"
    with pytest.raises(InputError, match=message):
        open_vectors(io.BytesIO(npy(MATRIX)), words=save(tmp_path, "words", text))


@pytest.mark.parametrize("array", [MATRIX[0], MATRIX[None], MATRIX.astype(np.int32), MATRIX.astype("c8")])
def test_array_that_is_not_a_float_matrix_is_rejected(array):
    with pytest.raises(InputError, match=r"expected a floating-point matrix \[rows, dim\]"):
        open_vectors(io.BytesIO(npy(array)))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (MATRIX[0], r"is float32 \[3\], expected a .*\. Please reshape it: array\.reshape\(rows, dim\)"),
        (MATRIX.reshape((1,) * 30 + (4, 3)), r"is float32 \[1, 1, 1, …\] \(32 dimensions\)"),
        (MATRIX.astype(np.int8), r"is int8 \[4, 3\], .* scale of integers is unknown"),
        (MATRIX.astype(np.int16), r"is int16 \[4, 3\], .* save as float32"),
        (MATRIX > 0, r"is bool \[4, 3\]"),
        (MATRIX.astype(np.complex64), r"is complex64 \[4, 3\]"),
        (np.array([MATRIX[0], None], object), r"is object \[2\], .* np\.stack\(list\(array\)\)"),
        (np.zeros(4, "f4,f4"), r"is structured \[4\], .* numeric fields as one matrix"),
        (np.zeros(4, [("x" * 5000, "f4")]), r"is structured \[4\], expected"),
        (
            MATRIX.astype(np.float16).view("V2"),
            r"is \|V2 \[4, 3\], .* bfloat16 .* array\.astype\(np\.float32\)",
        ),
        (MATRIX.astype(np.int8).view("V1"), r"is \|V1 \[4, 3\], .* fp8"),
        (np.array(["a", "b"]), r"is <U1 \[2\], expected a floating-point matrix \[rows, dim\]\."),
    ],
)
def test_array_of_another_kind_is_rejected_with_its_reason(array, message):
    for data in (npy(array), npz(vectors=array)):
        with pytest.raises(InputError, match=message) as raised:
            open_vectors(io.BytesIO(data))
        assert len(str(raised.value)) <= 500


def test_header_with_utf8_names_of_version_3():
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (4, 3), }"
    np.testing.assert_array_equal(read(raw_npy(header, MATRIX.tobytes(), version=3))[1], MATRIX)
    with pytest.warns(UserWarning, match=r"format 3\.0"):
        structured = npy(np.zeros(4, [("é€", "f4")]))
    with pytest.raises(InputError, match="numeric fields"):
        read(structured)


def test_unknown_version_is_rejected():
    with pytest.raises(InputError, match=r"version 9\.0, expected 1\.0, 2\.0 or 3\.0"):
        read(raw_npy("", version=9))


def test_matrix_without_columns_is_rejected():
    with pytest.raises(InputError, match="vectors of 0 values"):
        open_vectors(io.BytesIO(npy(np.empty((4, 0), np.float32))))


@pytest.mark.parametrize("order", ["C", "F"])
def test_truncated_matrix_is_rejected(order):
    data = npy(np.array(MATRIX, order=order))
    with pytest.raises(InputError, match="ends after 3 of 4 rows"):
        read(data[:-1])


@pytest.mark.parametrize("size", [7, 20, 100])
def test_truncated_header_is_rejected(size):
    with pytest.raises(InputError, match=r"is a damaged \.npy file"):
        read(npy(MATRIX)[:size])


def raw_npy(header, data=b"", version=1):
    length = len(header).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + header.encode() + data


def described(shape, descr="'<f4'", order="False"):
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"


@pytest.mark.parametrize(
    "header",
    [
        "{1: 2, 'descr': 3}",
        "{[]: 2}",
        "-" * 9000 + "1",
        "+".join("1" * 4000),
        described((2, 2), "('<f4',)"),
        described((2, 2), "()"),
        described((2, 2), "[()]"),
    ],
)
def test_malformed_header_is_rejected(header):
    with pytest.raises(InputError, match=r"is a damaged \.npy file"):
        read(raw_npy(header, bytes(16)))


@pytest.mark.parametrize("shape", [(-5, 4), (10**30, 4), (5, -4), (4, 10**4000)])
@pytest.mark.parametrize("order", ["True", "False"])
def test_impossible_shape_is_rejected(shape, order):
    with pytest.raises(InputError, match="impossible shape"):
        read(raw_npy(described(shape, order=order), bytes(80)))


@pytest.mark.parametrize("order", ["True", "False"])
def test_missing_rows_take_no_memory(order):
    with pytest.raises(InputError, match="ends after 1 of 1,000,000,000,000 rows"):
        read(raw_npy(described((10**12, 4), order=order), bytes(16)))


def test_huge_header_takes_no_memory():
    endless = raw_npy("", version=2)[:8] + (2**32 - 1).to_bytes(4, "little")
    for data in (endless, npz_of(vectors=npy(MATRIX), x=endless)):
        with pytest.raises(InputError, match="expected 4294967295 bytes"):
            read(data)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_row_that_is_not_finite_becomes_zeros_where_bad_lines_are_skipped(value):
    array = MATRIX.copy()
    array[2, 1] = value
    _, matrix, report = read(npy(array), skip_bad_lines=True)
    np.testing.assert_array_equal(matrix, MATRIX * [[1], [1], [0], [1]])
    assert report.notes() == ["rows with NaN or infinity, stored as zeros: 1"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_non_finite_value_is_rejected_with_row_and_column(dtype):
    array = MATRIX.astype(dtype)
    array[2, 1] = np.nan if dtype == np.float32 else 1e300
    with pytest.raises(NonFiniteError, match="row 2: value 2 is"):
        read(npy(array))


def test_object_arrays_are_rejected():
    array = np.empty((2, 2), object)
    with pytest.raises(InputError, match="expected a floating-point matrix"):
        read(npy(array))
    with pytest.raises(InputError, match=r"np\.array"):
        read(npz(vectors=MATRIX, words=np.array(WORDS, object)))


@pytest.mark.parametrize("words", [np.array(WORDS), np.array([word.encode() for word in WORDS])])
@pytest.mark.parametrize("names", [("vectors", "words"), ("x", "y")])
def test_npz_of_vectors_and_words(tmp_path, words, names):
    data = npz(**dict(zip(names, (MATRIX, words), strict=True)))
    for source in (data, save(tmp_path, "x.npz", data), gzip.compress(data)):
        tokens, matrix, _ = read(source)
        assert tokens == WORDS
        np.testing.assert_array_equal(matrix, MATRIX)


def test_compressed_npz():
    file = io.BytesIO()
    np.savez_compressed(file, vectors=MATRIX)
    tokens, matrix, _ = read(file.getvalue())
    assert tokens is None
    np.testing.assert_array_equal(matrix, MATRIX)


def test_progress_is_of_the_matrix(tmp_path):
    path = save(tmp_path, "x.npz", npz(other=MATRIX, vectors=MATRIX, words=np.array(WORDS)))
    calls = []
    list(open_vectors(path, progress=lambda *call: calls.append(call)).chunks())
    assert {total for _, _, total in calls[1:]} == {len(npy(MATRIX))}  # after the first block of the archive
    assert calls[-1][1] == len(npy(MATRIX))


def test_npz_matrix_is_selected_by_name():
    data = npz(first=MATRIX, second=MATRIX + 1)
    with pytest.raises(InputError, match=r"has 2 tensors to choose from.* first float32 \[4, 3\], second"):
        read(data)
    np.testing.assert_array_equal(read(data, tensor="second")[1], MATRIX + 1)
    with pytest.raises(InputError, match="has no tensor 'third'"):
        read(data, tensor="third")


@pytest.mark.parametrize("named", [None, "embed_tokens", "embed_tokens.weight", "model.embed_tokens.weight"])
def test_npz_matrix_is_found_by_its_name(named):
    data = npz(**{"model.embed_tokens.weight": MATRIX, "lm_head.weight": MATRIX + 1})
    _, matrix, report = read(data, tensor=named)
    np.testing.assert_array_equal(matrix, MATRIX)
    exact = named == "model.embed_tokens.weight"
    assert report.notes() == ([] if exact else ["tensor read: model.embed_tokens.weight"])


@pytest.mark.parametrize("tensor", [None, "x"])
@pytest.mark.parametrize("array", [MATRIX, MATRIX[0]])
def test_message_for_many_arrays_is_short(array, tensor):
    with pytest.raises(InputError, match=r"w0 float32 \[.*\], .* and 1,9\d\d more") as raised:
        read(npz(**{f"w{i}": array for i in range(2000)}), tensor=tensor)
    assert len(str(raised.value)) <= 500


@pytest.mark.parametrize("scale", [np.float32(0.5), np.float64([0.5]), np.full((4, 1), 0.5, np.float16)])
def test_npz_of_int8_vectors_and_their_scale(scale):
    quantized = np.arange(-6, 6, dtype=np.int8).reshape(4, 3)
    _, matrix, report = read(npz(vectors=quantized, scale=scale))
    np.testing.assert_array_equal(matrix, quantized / 2)
    assert report.notes() == ["tensor read: vectors, times scale"]


def test_npz_scale_that_does_not_match_is_rejected():
    quantized = np.ones((4, 3), np.int8)
    with pytest.raises(InputError, match=r":scale is a scale of shape \[3\]"):
        read(npz(vectors=quantized, scale=np.ones(3)))
    with pytest.raises(InputError, match=r":scale is <U1 \[1\], expected a floating-point scale"):
        read(npz(vectors=quantized, scale=np.array(["1"])))


def test_word_list_overrides_words_in_the_npz(tmp_path):
    words = save(tmp_path, "words", "1\n2\n3\n4\n")
    assert read(npz(vectors=MATRIX, words=np.array(WORDS)), words=words)[0] == ["1", "2", "3", "4"]


def test_damaged_npz_is_rejected():
    data = npz(vectors=MATRIX)
    with pytest.raises(InputError, match="is a damaged zip archive"):
        read(data[:-10])
    at = data.index(MATRIX.tobytes())
    with pytest.raises(InputError, match="is a damaged zip archive"):
        read(data[:at] + b"\xff" + data[at + 1 :])


@pytest.mark.parametrize(
    "compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_npz_with_any_damaged_byte_raises_only_input_error(compression):
    data = npz_of(compression, vectors=npy(np.random.default_rng(0).random((50, 4))))
    for position in range(0, len(data), 7):
        with suppress(InputError):
            read(data[:position] + bytes([data[position] ^ 0x55]) + data[position + 1 :])


@pytest.mark.parametrize("descr", ["'<U10'", "'|S10'", "'<U16384'"])
def test_missing_words_take_no_memory(descr):
    words = raw_npy(described((10**12,), descr), bytes(80))
    with pytest.raises(InputError, match=r"Number of words \(1000000000000\) does not match"):
        read(npz_of(vectors=npy(MATRIX), words=words))


@pytest.mark.parametrize("descr", ["'<U10'", "'|S30'", "'<U16384'"])
def test_truncated_words_are_rejected(descr):
    words = raw_npy(described((4,), descr), bytes(80))
    with pytest.raises(InputError, match=r"words ends after \d of 4 rows"):
        read(npz_of(vectors=npy(MATRIX), words=words))


@pytest.mark.parametrize("descr", ["'<U0'", "'|S0'", "'<U500000000'"])
def test_words_of_bad_item_size_are_rejected(descr):
    with pytest.raises(InputError, match="of at most 65,536 characters"):
        read(npz_of(vectors=npy(MATRIX), words=raw_npy(described((4,), descr), bytes(80))))


@pytest.mark.parametrize("order", "<>")
def test_words_with_invalid_characters_are_rejected(order):
    words = raw_npy(described((4,), f"'{order}U1'"), b"\xff" * 16)
    with pytest.raises(InputError, match="holds 4294967295, which is not a character"):
        read(npz_of(vectors=npy(MATRIX), words=words))


def test_zip_without_arrays_is_not_an_npz():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("glove.6B.50d.txt", "the 1 2\n")
    with pytest.raises(InputError, match="is a zip archive without"):
        read(file.getvalue(), format="npz")


def test_real_matrices_with_words(real_data):
    folder = real_data / "embeddings"
    for name in ("minilm-words.300d.f16", "googlenews-8000.300d"):
        list_name = name.split(".")[0]
        tokens, matrix, _ = read(folder / f"{name}.npy", limit=500)
        assert tokens == (folder / f"{list_name}.txt").read_text("utf-8").split("\n")[:500]
        np.testing.assert_array_equal(matrix, np.load(folder / f"{name}.npy", mmap_mode="r")[:500])
