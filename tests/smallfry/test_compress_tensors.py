"""Several tensors of a model become one paged table."""

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections import namedtuple

import numpy as np
import pytest

import smallfry
from smallfry.cli import terminal
from smallfry.compress import compress_file, quantize
from smallfry.errors import InputError, NonFiniteError
from smallfry.estimate import Estimate
from smallfry.quantization.options import Options
from smallfry.sfq.verify import verify
from tests.helpers.memory import growing
from tests.helpers.tensors import stored_as, write_model, write_tensors

TRELLIS = {"codebook_kind": "trellis", "row_scale": True}


def table(rows, dim=24, seed=0):
    x = np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)
    return (x.view(np.uint32) & 0xFFFF0000).view(np.float32)  # exact in bfloat16


@pytest.fixture
def index(tmp_path):
    return write_model(
        tmp_path,
        {"ngram.0": ("F32", table(300)), "ngram.2": ("BF16", stored_as("BF16", table(200, seed=2)))},
        {"ngram.1": ("F64", stored_as("F64", table(100, seed=1))), "up": ("F32", table(4, 3))},
    )


@pytest.fixture
def output(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "t.sfq"


def whole():
    return np.concatenate([table(300), table(100, seed=1), table(200, seed=2)])


@pytest.mark.parametrize("options", [TRELLIS, {}, {"center": True}, {"codebook_kind": "trellis"}])
@pytest.mark.parametrize("nbit", [2, 4])
def test_tensors_become_the_paged_table_of_their_rows(index, output, nbit, options):
    report = compress_file(index, output, nbit, tensor="*ngram*", **options)
    assert (report.rows, report.notes()) == (600, ["tensor read: 3: ngram.0, ngram.1, ngram.2"])
    verify(output)
    with smallfry.open(output) as store:
        expected = quantize(whole(), nbit, **options)
        np.testing.assert_array_equal(store.table.codes, expected.paged().codes)
        assert store.table.paged_rows == 600
        assert store.table.head_offsets is None
        assert '"tensor": "*ngram*"' in store.metadata["source"]


def test_heads_are_the_tensors(index, output):
    compress_file(index, output, 3, tensor="*ngram*", heads=True, **TRELLIS)
    with smallfry.open(output) as store:
        assert store.table.head_offsets.tolist() == [0, 300, 400, 600]


def test_one_tensor_is_paged_on_request_or_by_a_pattern(index, output):
    for tensor, paged in (("ngram.1", False), ("ngram.1", True), ("ngram.[1]", False)):
        compress_file(index, output, 4, tensor=tensor, paged=paged)
        with smallfry.open(output) as store:
            is_paged = paged or tensor == "ngram.[1]"
            assert (store.table.rows, store.table.paged_rows is not None) == (100, is_paged)


def test_bits_are_chosen_by_the_size_of_the_paged_table(index, output):
    compress_file(index, output, tensor="*ngram*", max_nbytes=4096 * 3 + 4 * 2**4 - 1)
    with smallfry.open(output) as store:
        assert (store.table.nbit, store.table.nbytes["codes"]) == (2, 4096 * 2)


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("options", [TRELLIS, {}])
def test_value_that_is_not_finite_is_named_with_its_tensor_and_row(tmp_path, output, dtype, bad, options):
    x = table(50)
    x[7, 3] = bad
    index = write_model(tmp_path, {"n.0": ("F32", table(60))}, {"n.1": (dtype, stored_as(dtype, x))})
    with pytest.raises(
        NonFiniteError, match=rf"model-00002-of-00002\.safetensors:n\.1 holds {bad} at row 7, column 3"
    ):
        compress_file(index, output, 2, tensor="n.*", **options)
    assert os.listdir(output.parent) == []


def test_nan_of_fp8_or_its_scale_is_named(tmp_path, output):
    values = np.full((20, 8), 0x38, np.uint8)
    values[11, 2] = 0x7F
    scale = np.ones(20, np.float32)
    path = write_tensors(tmp_path / "m.safetensors", {"n": ("F8_E4M3", values)})
    with pytest.raises(NonFiniteError, match=r"m\.safetensors:n holds nan at row 11, column 2"):
        compress_file(path, output, 2, tensor="n*", **TRELLIS)
    values[11, 2], scale[9] = 0, np.nan
    write_tensors(path, {"n": ("F8_E4M3", values), "n_scale": ("F32", scale)})
    with pytest.raises(NonFiniteError, match=r"m\.safetensors:n holds nan at row 9, column 0"):
        compress_file(path, output, 2, tensor="n*", **TRELLIS)


@pytest.mark.parametrize(
    ("reading", "name"),
    [({"words": "w"}, "words"), ({"limit": 3}, "limit"), ({"skip_bad_lines": True}, "skip_bad_lines")],
)
def test_option_of_words_and_lines_is_rejected(index, output, reading, name):
    with pytest.raises(InputError, match=rf"{name} is set, and does not apply to tensors that a pattern"):
        compress_file(index, output, 2, tensor="*ngram*", **reading)


def test_pattern_needs_a_path(index, output):
    for source in ("-", index.open("rb"), index.parent):
        with pytest.raises(InputError, match=r"which needs the path of a \.safetensors file"):
            compress_file(source, output, 2, tensor="*ngram*")
        if hasattr(source, "close"):
            source.close()


def test_heads_need_a_pattern(index, output):
    with pytest.raises(InputError, match="heads need a pattern"):
        compress_file(index, output, 2, tensor="ngram.0", heads=True)


def test_words_cannot_be_paged(tmp_path, output):
    (tmp_path / "v.txt").write_text("a 1 2\nb 3 4\n")
    with pytest.raises(InputError, match=r"v\.txt has words, and a paged table has row numbers only"):
        compress_file(tmp_path / "v.txt", output, 2, paged=True)


def test_32_bits_cannot_be_paged(index, output):
    with pytest.raises(InputError, match="32 bits a value cannot be paged"):
        compress_file(index, output, 32, tensor="*ngram*")


def test_output_cannot_be_a_shard(index):
    shard = index.parent / "model-00002-of-00002.safetensors"
    with pytest.raises(InputError, match="both input and output"):
        compress_file(index, shard, 2, tensor="*ngram*")


def test_missing_output_folder_is_an_error(index, tmp_path):
    with pytest.raises(FileNotFoundError, match="No such folder to write to"):
        compress_file(index, tmp_path / "missing" / "t.sfq", 2, tensor="*ngram*")


def test_size_is_estimated_before_the_import(index, output):
    seen = []
    compress_file(index, output, 3, tensor="*ngram*", estimate=seen.append, **TRELLIS)
    assert seen == [Estimate(600, 24, 3, Options(**TRELLIS), True, 3)]
    with smallfry.open(output) as store:
        assert seen[0].nbytes == sum(store.table.nbytes.values())
        assert seen[0].padding == store.table.paging.padding


def test_small_disk_is_noticed_before_the_import(index, output, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(1000))
    with pytest.raises(
        OSError,
        match=r"needs 24,704 bytes there, half of them .* and 1,000 are free",
    ):
        compress_file(index, output, 4, tensor="*ngram*", progress=lambda *call: pytest.fail("it was read"))


def test_more_rows_than_row_numbers_must_be_paged(tmp_path, output):
    rows = 2**32
    path = tmp_path / "m.safetensors"
    header = b'{"n": {"dtype": "F8_E4M3", "shape": [%d, 1], "data_offsets": [0, %d]}}' % (rows, rows)
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    os.truncate(path, 8 + len(header) + rows)
    with pytest.raises(InputError, match=r"4,294,967,296 rows, at most 4,294,967,294 unless it is paged"):
        compress_file(path, output, 2, tensor="n")


def test_memory_does_not_grow_with_the_rows(tmp_path, output):
    rows, dim = 5_000_000, 32
    path = tmp_path / "m.safetensors"
    size = rows * dim
    header = b'{"n": {"dtype": "F8_E4M3", "shape": [%d, %d], "data_offsets": [0, %d]}}' % (rows, dim, size)
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    os.truncate(path, 8 + len(header) + size)
    with growing() as growth:
        compress_file(path, output, 8, tensor="n*", paged=True)
    assert growth.peak < 140_000_000 < output.stat().st_size


@pytest.mark.parametrize("cost", [0, 1 << 60])
def test_sample_is_the_same_read_at_random_or_in_a_pass(index, output, monkeypatch, cost):
    monkeypatch.setattr("smallfry.quantization.chunks._ROW_COST", cost)
    compress_file(index, output, 3, tensor="*ngram*", **TRELLIS)
    with smallfry.open(output) as store:
        np.testing.assert_array_equal(store.table.codes, quantize(whole(), 3, **TRELLIS).paged().codes)


def command(index, output, **options):
    words = ["-m", "smallfry", "compress", index, "--tensor", "*ngram*", "-o", output, "--nbit", "8"]
    return subprocess.run([sys.executable, *map(str, words)], capture_output=True, check=False, **options)


def test_full_disk_leaves_the_old_file_and_names_the_bytes_it_needs(index, output):
    output.write_bytes(b"old")
    done = command(index, output, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)))
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"File too large; the vectors need 16,384 bytes or more of temporary space there" in done.stderr
    assert done.stderr.count(b"\n") == 1
    assert output.read_bytes() == b"old"
    assert os.listdir(output.parent) == ["t.sfq"]


@pytest.mark.parametrize("stage", ["scan", "encode"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_killed_import_leaves_nothing_and_can_be_repeated(index, output, stage, number):
    code = (
        "import os, sys\n"
        "from smallfry.compress import compress_file\n"
        "index, output, stage, number = sys.argv[1:]\n"
        "def kill(name, *rows):\n"
        "    if name == stage: os.kill(os.getpid(), int(number))\n"
        "compress_file(index, output, 2, tensor='*ngram*', row_scale=True, progress=kill)\n"
    )
    words = [index, output, stage, str(int(number))]
    done = subprocess.run([sys.executable, "-c", code, *words], check=False, stderr=subprocess.DEVNULL)
    assert done.returncode == -number
    assert os.listdir(output.parent) == []
    compress_file(index, output, 2, tensor="*ngram*", row_scale=True)
    verify(output)


def test_size_is_printed_on_a_terminal_only(index, output, monkeypatch, capsys):
    estimate = Estimate(600, 24, 3, Options(**TRELLIS), True, 3)
    terminal.announce(estimate)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(terminal.sys.stderr, "isatty", lambda: True)
    terminal.announce(estimate)
    text = "3 tensors, 600 rows of 24 values at 3 bits: 9.31 kB, 15.5 bytes a row, padding 17.1%\n"
    assert capsys.readouterr().err == text
