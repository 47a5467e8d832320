import gzip
import hashlib
import io
import json
import os
import resource
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save_file

import smallfry
from smallfry.compress import compress_file, quantize
from smallfry.errors import BadLineError, InputError, NonFiniteError
from smallfry.readers import open_vectors
from smallfry.readers.spool import ScratchMatrix, spool
from smallfry.sfq.verify import verify
from smallfry.vocabulary import Vocabulary
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


@pytest.mark.parametrize("words", [None, WORDS, Vocabulary.build(WORDS)])
def test_saved_table_is_opened_with_its_words(output, matrix, words):
    table = quantize(matrix, 4)
    store = smallfry.save(output, table, words)
    np.testing.assert_array_equal(store.rows(range(5)), table.decode())
    assert (store.path, store.nbit) == (output, 4)
    assert (store.vocabulary and list(store.vocabulary)) == (words and WORDS)


@pytest.mark.parametrize(
    "convert",
    [np.asfortranarray, np.float16, np.float64, np.ndarray.tolist, lambda m: m.astype(">f4")],
)
def test_matrix_of_any_float_dtype_is_saved(output, matrix, convert):
    store = smallfry.save(output, convert(matrix), WORDS, nbit=32)
    np.testing.assert_array_equal(np.asarray(store), np.asarray(convert(matrix), np.float32))


def test_tensor_on_the_cpu_is_saved(output, matrix):
    torch = pytest.importorskip("torch")
    tensor = torch.tensor(matrix, dtype=torch.float16)
    np.testing.assert_array_equal(np.asarray(smallfry.save(output, tensor, nbit=32)), tensor.float().numpy())
    with pytest.raises(InputError, match=r"a Tensor, cannot be converted to an array.*detach"):
        smallfry.save(output, tensor.requires_grad_())


def test_saved_matrix_is_the_one_that_compress_writes(glove, output, matrix):
    options = {"codebook_kind": "trellis", "center": True, "seed": 3}
    compress_file(glove, output, 2, **options)
    saved = smallfry.save(output.with_name("s.sfq"), matrix, WORDS, **options)
    np.testing.assert_array_equal(np.asarray(saved), np.asarray(smallfry.open(output)))


def test_mapped_matrix_is_saved(tmp_path, output, matrix):
    np.save(tmp_path / "m.npy", matrix)
    store = smallfry.save(output, np.load(tmp_path / "m.npy", mmap_mode="r"), nbit=32)
    np.testing.assert_array_equal(np.asarray(store), matrix)


@pytest.mark.parametrize(
    "words",
    [
        tuple(WORDS),
        iter(WORDS),
        np.array(WORDS),
        np.array(WORDS, object),
        [word.encode() for word in WORDS],
        {word: row for row, word in reversed([*enumerate(WORDS)])},
    ],
)
def test_words_may_come_in_any_ordered_form(output, matrix, words):
    assert list(smallfry.save(output, matrix, words)) == WORDS


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (WORDS[:4], r"words \(4\) does not match number of vectors \(5\)"),
        ([*WORDS[:4], "the"], "'the' occurs twice, in rows 0 and 4"),
        ([*WORDS[:4], 7], "word 7 of row 4 is int, expected str"),
        ([*WORDS[:4], float("nan")], "word nan of row 4 is float, expected str"),
        ([*WORDS[:4], "\ud83c"], r"'\\ud83c' of row 4 has a lone surrogate"),
        ({"a": 0, "b": 1, "c": 1, "d": 2, "e": 3}, "not the row numbers 0 to 4, each once"),
        (set(WORDS), "words is a set"),
        ("the", "words is a str"),
        (4, "words is a int, expected a list of words"),
        (["x" * 9999] * 5, r"token 'x{20,30}\.\.\.x{20,30}' occurs twice"),
    ],
)
def test_words_that_do_not_name_the_rows_are_rejected(output, matrix, words, message):
    with pytest.raises(InputError, match=message):
        smallfry.save(output, matrix, words)
    assert not output.exists()


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.ones((5, 7), np.int64), "int64, expected a float type"),
        ([["a"]], "expected a float type"),
        (np.ones(5), r"shape \[5\], expected \[rows, dim\]"),
        (np.ones((1, 5, 7)), "expected .rows, dim"),
        (np.ones((0, 7)), r"shape \[0, 7\].*1 or more"),
        (None, "the vectors are a NoneType, expected a matrix of floats"),
        ("v.txt", "the vectors are a str, expected a matrix of floats"),
        ([[1.0], [1.0, 2.0]], "a list, cannot be converted to an array"),
        ([[1.0, np.nan]], "nan at row 0, column 1"),
        ([[1.0], [np.inf]], "inf at row 1, column 0"),
    ],
)
def test_vectors_that_are_no_matrix_of_floats_are_rejected(output, vectors, message):
    with pytest.raises(InputError, match=message):
        smallfry.save(output, vectors)
    assert not output.exists()


def test_table_has_its_own_width_and_options(output, matrix):
    for options in ({"nbit": 4}, {"center": True}):
        with pytest.raises(InputError, match="Table, which has its own"):
            smallfry.save(output, quantize(matrix, 4), **options)


def test_keyed_vectors_bring_their_words(output, matrix):
    keyed = SimpleNamespace(vectors=matrix, index_to_key=WORDS)
    store = smallfry.save(output, keyed, nbit=32)
    np.testing.assert_array_equal(store[WORDS], matrix)
    with pytest.raises(InputError, match=r"its own, index_to_key\. Please omit words"):
        smallfry.save(output, keyed, WORDS)
    with pytest.raises(InputError, match=r"Please pass its KeyedVectors: model\.wv"):
        smallfry.save(output, SimpleNamespace(wv=keyed))


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


def test_row_of_a_matrix_keeps_its_number(tmp_path, output, matrix):
    path, words = tmp_path / "m.npy", tmp_path / "words.txt"
    matrix[3, 1] = np.nan
    np.save(path, matrix)
    words.write_bytes(b"a\n\xe2\na\nb\n\xe2\n")
    report = compress_file(path, output, 32, words=words, skip_bad_lines=True, encoding="utf-8")
    store = smallfry.open(output)
    matrix[3] = 0
    np.testing.assert_array_equal(store.rows(np.arange(5)), matrix)
    assert store.find(["a", "b", "\ufffd", ""]).tolist() == [0, 3, -1, -1]
    assert verify(output).tokens == 2
    assert report.notes() == [
        "words: words.txt",
        "rows left unnamed, because an earlier row has their word: 1",
        "rows left unnamed, because their word is not valid UTF-8: 2",
        "rows with NaN or infinity, stored as zeros: 1",
    ]


def test_limit_takes_the_first_rows(glove, output):
    assert compress_file(glove, output, 8, limit=3).rows == 3
    assert list(smallfry.open(output)) == WORDS[:3]


@pytest.mark.parametrize(("order", "words"), [("file", ["the", "1.5", "🍟"]), ("list", ["🍟", "the", "1.5"])])
@pytest.mark.parametrize("options", [{"nbit": 32}, {"nbit": 2, "codebook_kind": "trellis"}])
def test_kept_words_are_in_the_order_of_the_file_or_the_list(glove, output, matrix, order, words, options):
    report = compress_file(glove, output, keep=["🍟", "no", "the", "1.5"], keep_order=order, **options)
    kept = matrix[[WORDS.index(word) for word in words]]
    store = smallfry.open(output)
    assert list(store) == words
    np.testing.assert_array_equal(np.asarray(store), quantize(kept, **options).decode())
    assert (report.missing_words, report.missing_examples) == (1, "'no'")


def test_many_kept_rows_are_reordered_in_every_pass(tmp_path, output):
    rows = np.random.default_rng(0).standard_normal((5000, 600), np.float32)
    np.save(tmp_path / "m.npy", rows)
    (tmp_path / "m.txt").write_text("".join(f"w{i}\n" for i in range(5000)))
    order = np.random.default_rng(1).permutation(5000)[:4500]
    compress_file(tmp_path / "m.npy", output, 4, keep=[f"w{i}" for i in order], keep_order="list")
    np.testing.assert_array_equal(smallfry.open(output).table.codes, quantize(rows[order], 4).codes)


def test_order_of_a_list_that_is_not_given_is_rejected(glove, output):
    with pytest.raises(InputError, match="there is no list"):
        compress_file(glove, output, keep_order="list")
    with pytest.raises(InputError, match="'random', expected 'file' or 'list'"):
        compress_file(glove, output, keep=["the"], keep_order="random")


def test_output_cannot_be_the_list_of_words_to_keep(glove, tmp_path):
    (tmp_path / "keep").write_text("the\n")
    with pytest.raises(InputError, match="both input and output"):
        compress_file(glove, tmp_path / "keep", keep=tmp_path / "keep")


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
    with pytest.raises(InputError, match="nbit is 5, expected one of 1, 2, 3, 4, 8, 16, 32"):
        compress_file("missing.txt", output, 5)


def test_output_cannot_be_the_word_list_next_to_the_matrix(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((2, 3), np.float32))
    (tmp_path / "x.txt").write_text("a\nb\n")
    with pytest.raises(InputError, match=r"x\.txt is both input and output"):
        compress_file(tmp_path / "x.npy", tmp_path / "x.txt")


def test_output_cannot_be_the_shard_that_is_read(tmp_path):
    shard = tmp_path / "model-00001-of-00001.safetensors"
    save_file({"wte.weight": np.ones((2, 3), np.float32)}, shard)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"wte.weight": shard.name}}))
    with pytest.raises(InputError, match="both input and output"):
        compress_file(index, shard)
    compress_file(index, tmp_path / "x.sfq")
    source = {"name": shard.name, "sha256": hashlib.sha256(shard.read_bytes()).hexdigest()}
    assert json.loads(smallfry.open(tmp_path / "x.sfq").metadata["source"]) == source


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


def test_plain_matrix_is_read_again_from_its_file(tmp_path, matrix):
    path = tmp_path / "m.npy"
    np.save(path, matrix)
    with open_vectors(path) as source:
        assert source.region is not None
        with ScratchMatrix(tmp_path, source.dim, source.region) as scratch:
            assert spool(source, scratch) is None
            np.testing.assert_array_equal(np.concatenate(list(scratch)), matrix)
            for changed in (path.read_bytes() + b"more", path.read_bytes()[:-1]):
                path.write_bytes(changed)
                with pytest.raises(InputError, match=r"m\.npy changed while it was read"):
                    list(scratch)


@pytest.mark.parametrize("options", [{"skip_bad_lines": True}, {"words": "w", "keep": ["b"]}])
@pytest.mark.parametrize("change", [lambda x: x, np.asfortranarray])
def test_reordered_matrix_is_not_read_again_from_its_file(tmp_path, monkeypatch, matrix, options, change):
    monkeypatch.chdir(tmp_path)
    np.save("m.npy", change(matrix))
    (tmp_path / "w").write_text("a\nb\nc\nd\ne\n")
    with open_vectors("m.npy", **(options if change(matrix) is matrix else {})) as source:
        assert source.region is None


def test_compressed_matrix_is_not_read_again_from_its_file(tmp_path, matrix):
    with gzip.open(tmp_path / "m.npy.gz", "wb") as file:
        np.save(file, matrix)
    with open_vectors(tmp_path / "m.npy.gz") as source:
        assert source.region is None


def test_spooled_tokens_keep_their_order(tmp_path):
    with (
        open_vectors(io.BytesIO(b"the 1 2\nof 3 4\nthe 5 6\n1 7 8\n"), format="glove") as source,
        ScratchMatrix(tmp_path, source.dim) as scratch,
    ):
        tokens = spool(source, scratch)
    assert tokens.buf.tobytes() == b"theof1"
    assert tokens.offsets.tolist() == [0, 3, 5, 6]
    assert tokens.offsets.dtype == np.uint32
    assert os.listdir(tmp_path) == []


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
