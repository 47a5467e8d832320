"""Every function of the C library, through ctypes."""

import ctypes
import errno
import os
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import smallfry
from smallfry import kernels
from smallfry.sfq import file as sfq
from smallfry.table import Table
from tests.helpers.c_library import (
    DTYPES,
    INVALID_ARGUMENT,
    INVALID_FILE,
    IO_ERROR,
    LIBRARY,
    OK,
    OUT_OF_RANGE,
    CError,
    CTable,
    bfloat16,
    folder,
)
from tests.helpers.crafted_files import Crafted, rewrite_as_version
from tests.helpers.sparse import write_sparse
from tests.helpers.tables import KINDS, PARTS, random_table

pytestmark = pytest.mark.skipif(not kernels.native, reason="the C library needs a compiler")


def rounded(values, dtype):
    """Return float32 values in another type."""
    if dtype == "bfloat16":
        return bfloat16(values)
    with np.errstate(over="ignore"):
        return values.astype(dtype)


@pytest.mark.parametrize("parts", [(), PARTS, (*PARTS, "bfloat16")])
@pytest.mark.parametrize(("nbit", "kind"), [(nbit, kind) for nbit in KINDS for kind in KINDS[nbit]])
def test_gather_has_the_values_of_python(tmp_path, nbit, kind, parts):
    path, rng = tmp_path / "t.sfq", np.random.default_rng(nbit)
    for dim in (5, 301):
        table = random_table(70, dim, nbit, kind, parts=parts)
        for layout in (table, *([table.paged()] if nbit != 32 else [])):
            sfq.write(path, layout)
            ids = rng.integers(0, 70, (40, 3))
            expected = table.decode(ids.reshape(-1)).reshape(40, 3, table.dim)
            with CTable(path) as opened:
                assert (opened.rows, opened.dim, opened.heads) == (70, table.dim, 0)
                for dtype in DTYPES:
                    np.testing.assert_array_equal(opened.gather(ids, dtype), rounded(expected, dtype))
                np.testing.assert_array_equal(opened.gather(np.arange(70)), table.decode())
                assert opened.gather([]).shape == (0, table.dim)


def with_heads(table: Table, *offsets: int) -> Table:
    """Return a table with heads."""
    return replace(table, head_offsets=np.array(offsets, np.uint64))


@pytest.mark.parametrize("paged", [False, True])
def test_ids_are_local_to_their_heads(tmp_path, paged):
    table = random_table(50, 7, 4, "uniform", parts=("row_scale",))
    table = with_heads(table.paged() if paged else table, 0, 20, 20, 50)
    sfq.write(tmp_path / "t.sfq", table)
    with CTable(tmp_path / "t.sfq") as opened:
        assert opened.heads == 3
        with pytest.raises(CError, match=r"5 ids.*multiple of .*3 heads") as caught:
            opened.gather([0] * 5)
        assert caught.value.status == INVALID_ARGUMENT
        with pytest.raises(CError, match=r"id 0 .*head 1 of 0 rows") as caught:
            opened.gather([[0, 0, 0]])
        assert caught.value.status == OUT_OF_RANGE
    table = with_heads(table, 0, 20, 50)
    sfq.write(tmp_path / "t.sfq", table)
    ids = np.stack([np.arange(20), np.arange(20, 0, -1)], axis=1)
    with CTable(tmp_path / "t.sfq") as opened:
        expected = table.decode(np.add(ids, [0, 20]).reshape(-1)).reshape(20, 2, 7)
        np.testing.assert_array_equal(opened.gather(ids), expected)
        np.testing.assert_array_equal(opened.gather(ids), smallfry.open(tmp_path / "t.sfq").gather(ids))
        assert opened.prefetch(ids) >= 1
        for wrong in (20, -1):
            with pytest.raises(CError, match=rf"id {wrong} .*head 0 of 20 rows"):
                opened.gather([[0, 0], [wrong, 30]])
            with pytest.raises(CError, match=rf"id {wrong} .*head 0 of 20 rows"):
                opened.prefetch([[0, 0], [wrong, 30]])


@pytest.mark.parametrize("wrong", [-1, 4, 2**62, -(2**63)])
def test_an_id_out_of_range_is_named_and_nothing_is_written(tmp_path, wrong):
    path = tmp_path / "t.sfq"
    path.write_bytes(Crafted().raw())
    ids, out = np.array([0, wrong, 9]), np.full((3, 5), 7, np.float32)
    with CTable(path) as opened:
        pointers = ids.ctypes.data, 3, out.ctypes.data
        assert LIBRARY.smallfry_gather(opened.handle, *pointers, 0) == OUT_OF_RANGE
        message = LIBRARY.smallfry_last_error().decode()
        assert message.startswith(f"{path}: ") and f" {wrong} " in message and " 4 rows" in message
        assert (out == 7).all()
        assert LIBRARY.smallfry_prefetch(opened.handle, *pointers[:2], None) == OUT_OF_RANGE


def test_arguments_are_checked(tmp_path):
    path = tmp_path / "t.sfq"
    path.write_bytes(Crafted().raw())
    ids, out = np.array([0]), np.empty(5, np.float32)
    with CTable(path) as opened:
        for table, rows, count, to, dtype in (
            (None, ids.ctypes.data, 1, out.ctypes.data, 0),
            (opened.handle, None, 1, out.ctypes.data, 0),
            (opened.handle, ids.ctypes.data, 1, None, 0),
            (opened.handle, ids.ctypes.data, 1, out.ctypes.data, 3),
            (opened.handle, ids.ctypes.data, 1, out.ctypes.data, -1),
            (opened.handle, ids.ctypes.data, 2**61, out.ctypes.data, 0),
        ):
            assert LIBRARY.smallfry_gather(table, rows, count, to, dtype) == INVALID_ARGUMENT
            assert LIBRARY.smallfry_last_error()
        assert LIBRARY.smallfry_gather(opened.handle, None, 0, None, 0) == OK
        assert LIBRARY.smallfry_prefetch(None, ids.ctypes.data, 1, None) == INVALID_ARGUMENT
        assert LIBRARY.smallfry_prefetch(opened.handle, None, 1, None) == INVALID_ARGUMENT
    handle = ctypes.c_void_p(1)
    assert LIBRARY.smallfry_open(None, ctypes.byref(handle)) == INVALID_ARGUMENT and handle.value is None
    assert LIBRARY.smallfry_open(b"t.sfq", None) == INVALID_ARGUMENT
    LIBRARY.smallfry_close(None)


def test_a_file_that_cannot_be_opened_is_named(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, reason in (
        (tmp_path / "missing", os.strerror(errno.ENOENT)),
        (tmp_path, "not a regular file, expected a .sfq file"),
        (tmp_path / "pipe", "not a regular file, expected a .sfq file"),
        (tmp_path / ("a" * 300), os.strerror(errno.ENAMETOOLONG)),
    ):
        with pytest.raises(CError) as caught:
            CTable(path)
        assert caught.value.status == IO_ERROR and str(caught.value) == f"{path}: {reason}"


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "t.sfq").write_bytes(Crafted(tail=b"x").raw())
    with pytest.raises(CError, match=r"the tensors end at data byte 352, and the file has 353") as caught:
        CTable(tmp_path / "t.sfq")
    assert caught.value.status == INVALID_FILE


@pytest.mark.parametrize("paged", [False, True])
def test_later_minor_version_with_unknown_tensors_and_metadata_reads_the_same(tmp_path, paged):
    table = random_table(50, 7, 4, "uniform", parts=("row_scale",))
    sfq.write(tmp_path / "t.sfq", table.paged() if paged else table)
    rewrite_as_version(tmp_path / "t.sfq", "2.1")
    with CTable(tmp_path / "t.sfq") as opened:
        np.testing.assert_array_equal(opened.gather(np.arange(50)), table.decode())


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("1", r"version 1, .* reads version 2\. Please compress the vectors again"),
        ("3", r"version 3, .* reads version 2\. Please upgrade smallfry"),
        ("3.1", r"version 3\.1, .* Please upgrade smallfry"),
        ("2.", r"'version' is '2\.', expected MAJOR or MAJOR\.MINOR"),
        ("0.2", r"'version' is '0\.2', expected"),
        ("2.1.0", r"'version' is '2\.1\.0', expected"),
    ],
)
def test_other_version_is_rejected(tmp_path, version, message):
    crafted = Crafted()
    crafted.metadata["version"] = version
    (tmp_path / "t.sfq").write_bytes(crafted.raw())
    with pytest.raises(CError, match=message) as caught:
        CTable(tmp_path / "t.sfq")
    assert caught.value.status == INVALID_FILE


def test_unknown_instruction_set_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "t.sfq").write_bytes(Crafted().raw())
    code = (
        "import sys; from tests.helpers.c_library import CError, CTable\n"
        "try: CTable(sys.argv[1])\n"
        "except CError as error: print(error)\n"
    )
    monkeypatch.setenv("SMALLFRY_SIMD", "mmx")
    run = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "t.sfq"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "SMALLFRY_SIMD is 'mmx'" in run.stdout


def test_prefetch_counts_each_page_once(tmp_path):
    table = random_table(4000, 160, 2, "uniform", parts=("row_scale",)).paged()
    sfq.write(tmp_path / "t.sfq", table)
    assert table.paging.per_block == 97
    with CTable(tmp_path / "t.sfq") as opened:
        assert opened.prefetch([]) == 0
        assert opened.prefetch([0, 96, 5, 0]) == 1
        assert opened.prefetch([96, 97, 3999, 3999]) == 3
        assert opened.prefetch(np.arange(4000)) == len(table.codes)


def test_rows_beyond_32_bits_of_a_sparse_file(tmp_path):
    path, rows = tmp_path / "t.sfq", 2**32 + 2**20
    ids = np.array([0, 1, 2**31, 2**32 - 1, 2**32, 2**32 + 7, rows - 1])
    codes = np.random.default_rng(0).integers(0, 256, (len(ids), 4), np.uint8)
    paging = write_sparse(path, rows, dict(zip(ids, codes, strict=True)))
    assert path.stat().st_size > 2**34
    expected = smallfry.open(path).table.decode(ids)
    with CTable(path) as opened:
        assert opened.rows == rows
        np.testing.assert_array_equal(opened.gather(ids), expected)
        assert len(np.unique(expected)) > len(ids)
        assert not opened.gather([2**32 + 2]).any()
        assert opened.prefetch(ids) == len(np.unique(paging.starts(ids) // 4096)) == 4
        with pytest.raises(CError, match=f" {rows} "):
            opened.gather([rows])


def test_library_exports_only_the_functions_of_the_header():
    header = (folder() / "include" / "smallfry.h").read_text()
    declared = set(re.findall(r"^SMALLFRY_API .*?(smallfry_\w+)\(", header, re.M))
    library = folder() / "libsmallfry.so"
    output = subprocess.run(
        ["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True
    )
    assert {line.split()[-1] for line in output.stdout.splitlines()} == declared
    assert {name for name in declared if hasattr(LIBRARY, name)} == declared


def test_version_is_that_of_the_package():
    assert LIBRARY.smallfry_version().decode() == smallfry.__version__
