import hashlib
import io
import json
import os
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest

import smallfry
from smallfry.compress import compress_file, quantize
from smallfry.errors import BadLineError, InputError, NonFiniteError
from smallfry.readers.spool import ScratchMatrix
from smallfry.sfq.verify import verify
from tests.helpers.tables import plain_decode

WORDS = ["the", "New York", "1.5", "ß", "🍟"]


@pytest.fixture
def matrix():
    return np.random.default_rng(0).standard_normal((5, 7), np.float32)


@pytest.fixture
def glove(tmp_path, matrix):
    return write_glove(tmp_path / "glove.txt", WORDS, matrix)


@pytest.fixture
def output(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "t.sfq"


def write_glove(path, words, matrix):
    lines = [f"{word} {' '.join(map(str, row))}\n" for word, row in zip(words, matrix, strict=True)]
    path.write_text("".join(lines))
    return path


@pytest.mark.parametrize("nbit", [1, 2, 4, 8, 16, 32])
def test_text_file_becomes_the_table_that_its_matrix_quantizes_to(glove, output, matrix, nbit):
    compress_file(glove, output, nbit)
    store = smallfry.open(output)
    np.testing.assert_array_equal(store.lookup(WORDS)[0], quantize(matrix, nbit).decode())
    assert store.lookup(WORDS)[1].all()
    assert (store.table.rows, store.dim, store.nbit) == (5, 7, nbit)
    assert verify(output).tokens == 5
    assert os.listdir(output.parent) == ["t.sfq"]


@pytest.mark.parametrize(("nbit", "error"), [(1, 0.613), (2, 0.354), (4, 0.113)])
def test_real_vectors_lose_within_the_expected_error(real_data, output, nbit, error):
    vectors = real_data / "embeddings" / "minilm-words.300d.f16.npy"
    report = compress_file(vectors, output, nbit, words=vectors.parent / "minilm-words.txt")
    store = smallfry.open(output)
    assert (report.rows, store.dim) == (34_616, 300)
    assert store.table.frobenius_error <= error
    found = store.lookup(["the", "list", "string"])
    rows = store.find(["the", "list", "string"])
    np.testing.assert_array_equal(found[0], plain_decode(store.table)[rows])
    matrix = np.load(vectors).astype(np.float64)
    lost = np.linalg.norm(matrix - store.rows(np.arange(34_616))) / np.linalg.norm(matrix)
    assert lost == pytest.approx(store.table.frobenius_error, rel=1e-5)


def test_file_names_its_source_and_its_digest(glove, output):
    compress_file(glove, output, 2)
    source = json.loads(smallfry.open(output).metadata["source"])
    assert source == {"name": "glove.txt", "sha256": hashlib.sha256(glove.read_bytes()).hexdigest()}


def test_equal_input_gives_equal_bytes(glove, output):
    files = []
    for _ in range(2):
        compress_file(glove, output, 2, rounding="stochastic", seed=3)
        files.append(output.read_bytes())
    assert files[0] == files[1]


def test_file_object_is_read(glove, output, matrix):
    compress_file(io.BytesIO(glove.read_bytes()), output, 32)
    np.testing.assert_array_equal(smallfry.open(output).rows(range(5)), matrix)


def test_matrix_without_words_makes_a_table_without_vocabulary(tmp_path, output, matrix):
    np.save(tmp_path / "m.npy", matrix)
    compress_file(tmp_path / "m.npy", output, 8)
    assert smallfry.open(output).vocabulary is None


def test_matrix_gets_its_words_from_a_list(tmp_path, output, matrix):
    np.save(tmp_path / "m.npy", matrix)
    (tmp_path / "m.txt").write_text("\n".join(WORDS))
    compress_file(tmp_path / "m.npy", output, 8, words=tmp_path / "m.txt")
    assert list(smallfry.open(output)) == WORDS


def test_limit_takes_the_first_rows(glove, output):
    assert compress_file(glove, output, 8, limit=3).rows == 3
    assert list(smallfry.open(output)) == WORDS[:3]


def test_duplicates_and_bad_lines_are_counted(glove, output):
    glove.write_text(glove.read_text() + "the 1 2 3 4 5 6 7\nshort 1 2\n")
    report = compress_file(glove, output, 8, skip_bad_lines=True)
    assert (report.rows, report.duplicates, report.bad_lines) == (5, 1, 1)


@pytest.mark.parametrize(
    ("text", "error"),
    [("", InputError), ("a 1 2 3\nb 1 2\n", BadLineError), ("a 1 2 3\nb 1 nan 3\n", InputError)],
)
def test_input_that_makes_no_table_leaves_nothing(tmp_path, output, text, error):
    (tmp_path / "in.txt").write_text(text)
    output.write_bytes(b"old")
    with pytest.raises(error):
        compress_file(tmp_path / "in.txt", output)
    assert output.read_bytes() == b"old"
    assert os.listdir(output.parent) == ["t.sfq"]


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_empty_matrix_is_rejected(tmp_path, output, shape):
    np.save(tmp_path / "m.npy", np.zeros(shape, np.float32))
    with pytest.raises(InputError):
        compress_file(tmp_path / "m.npy", output)
    assert os.listdir(output.parent) == []


def test_matrix_with_nan_is_rejected_with_its_place(tmp_path, output, matrix):
    matrix[3, 2] = np.nan
    np.save(tmp_path / "m.npy", matrix)
    with pytest.raises(NonFiniteError, match="row 3"):
        compress_file(tmp_path / "m.npy", output)


def test_another_bit_width_is_rejected_before_the_input_is_opened(output):
    with pytest.raises(InputError, match="nbit is 3, expected one of 1, 2, 4, 8, 16, 32"):
        compress_file("missing.txt", output, 3)


def test_output_cannot_be_the_input_under_any_name(glove, tmp_path):
    (tmp_path / "link").symlink_to(glove)
    before = glove.read_bytes()
    for name in (glove, tmp_path / "link", tmp_path / "out" / ".." / "glove.txt"):
        (tmp_path / "out").mkdir(exist_ok=True)
        with pytest.raises(InputError, match="both input and output"):
            compress_file(glove, name)
    assert glove.read_bytes() == before


def test_unwritable_output_is_an_error_before_the_input_is_opened(tmp_path):
    with pytest.raises(IsADirectoryError, match="expected the file to write"):
        compress_file("missing.txt", tmp_path)
    with pytest.raises(FileNotFoundError, match="No such folder"):
        compress_file("missing.txt", tmp_path / "no" / "t.sfq")
    with pytest.raises(OSError, match="Not a regular file"):
        compress_file("missing.txt", "/dev/null")


def test_missing_input_is_named(output):
    with pytest.raises(FileNotFoundError, match=r"missing\.txt"):
        compress_file("missing.txt", output)


def test_spooled_matrix_can_be_read_repeatedly(tmp_path):
    rows = np.random.default_rng(0).standard_normal((30_000, 301), np.float32)
    with ScratchMatrix(tmp_path, 301) as matrix:
        for start in range(0, 30_000, 7_000):
            matrix.append(rows[start : start + 7_000])
        assert matrix.shape == (30_000, 301)
        assert os.listdir(tmp_path) == []
        for _ in range(2):
            chunks = list(matrix)
            assert len(chunks) > 1
            np.testing.assert_array_equal(np.concatenate(chunks), rows)


def smallfry_command(*arguments, **options):
    command = [sys.executable, "-m", "smallfry", *map(os.fspath, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=-1, stderr=-1, **options)


def some_lines(rows):
    return b"".join(b"w%d 0.1 0.2 0.3 %d\n" % (i, i) for i in range(rows))


def test_standard_input_is_compressed_and_reported_without_progress(output):
    with smallfry_command("compress", "-", "-o", output, "--nbit", "8") as process:
        out, err = process.communicate(some_lines(1000))
    assert (process.returncode, err) == (0, b"")
    assert b"1,000" in out
    assert smallfry.open(output).lookup(["w999"])[1].tolist() == [True]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_interrupted_compress_keeps_only_the_old_file(output, number, code):
    output.write_bytes(b"old")
    with smallfry_command("compress", "-", "-o", output) as process:
        # More than a pipe holds: the process has begun to read when this returns.
        process.stdin.write(some_lines(20_000))
        process.stdin.flush()
        process.send_signal(number)
        _, err = process.communicate()
    assert process.returncode == code
    assert err == (b"smallfry: interrupted\n" if code == 130 else b"")
    assert output.read_bytes() == b"old"
    assert os.listdir(output.parent) == ["t.sfq"]


@pytest.mark.parametrize("limit", [4096, 300_000])
def test_full_disk_leaves_the_old_file_and_says_so_in_one_line(output, limit):
    output.write_bytes(b"old")

    def small_disk():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    with smallfry_command("compress", "-", "-o", output, "--nbit", "16", preexec_fn=small_disk) as process:
        out, err = process.communicate(some_lines(16_000))
    assert (process.returncode, out) == (1, b"")
    assert err.startswith(b"smallfry: error: ")
    assert b"File too large" in err
    assert err.count(b"\n") == 1
    assert output.read_bytes() == b"old"
    assert os.listdir(output.parent) == ["t.sfq"]
