import mmap
import os
import subprocess
import sys

import numpy as np
import pytest

import smallfry
from smallfry import cli, pages
from smallfry.errors import InputError, StoreClosedError
from smallfry.export import export_file
from smallfry.kernels.numpy.decode import Decoder as NumPyDecoder
from smallfry.pages import Map, Residency, drop_pages, page_ranges, sequential
from smallfry.sfq import file as sfq
from smallfry.sfq.verify import verify_file
from tests.helpers.sparse import write_sparse
from tests.helpers.tables import random_table

SIZE = 64 << 20
PAGE = mmap.PAGESIZE
DECODER_ARRAYS = "codes dim nbit codebook mean column_scale row_scale zero_rows paged_rows".split()


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * mmap.PAGESIZE


def flags(path):
    """Return the kernel's flags of the map of a file: rr for random reads, lo for locked."""
    with open("/proc/self/smaps") as file:
        lines = iter(file)
        next(line for line in lines if str(path) in line)
        return set(next(line for line in lines if line.startswith("VmFlags:")).split()[1:])


@pytest.fixture
def file(tmp_path):
    with open(tmp_path / "f", "wb+") as file:
        file.truncate(SIZE)
        yield file


@pytest.fixture
def sparse(tmp_path):
    """A paged table in a file of 64 MB, of which nothing is in memory but its ends."""
    write_sparse(tmp_path / "t.sfq", 16_000 * 682)
    return tmp_path / "t.sfq"


def test_pages_of_a_read_only_map_are_released_and_read_again(file):
    file.write(b"abc")
    file.flush()
    array = np.frombuffer(mmap.mmap(file.fileno(), SIZE, access=mmap.ACCESS_READ), np.uint8)[1:]
    assert array.sum() == 98 + 99
    before = resident()
    drop_pages(array)
    assert resident() < before - SIZE // 2
    assert array[:2].tolist() == [98, 99]


def test_changes_of_a_copy_on_write_map_stay(file):
    array = np.frombuffer(mmap.mmap(file.fileno(), SIZE, access=mmap.ACCESS_COPY), np.uint8)
    array[0] = 7
    array.flags.writeable = False
    drop_pages(array)
    assert array[0] == 7


def test_other_arrays_have_no_pages_to_drop():
    array = np.arange(3)
    drop_pages(array)
    with sequential(array):
        pages.advise_random(array)
    assert array.tolist() == [0, 1, 2]


def test_a_paged_table_is_mapped_for_random_access(sparse):
    store = smallfry.open(sparse)
    assert "rr" in flags(sparse)
    assert "rr" not in flags_of_plain(sparse.parent)
    store.close()


def flags_of_plain(folder):
    sfq.write(folder / "plain.sfq", random_table(10_000, 160, 2, "uniform"))
    with smallfry.open(folder / "plain.sfq") as store:
        assert len(store) == 10_000
        return flags(folder / "plain.sfq")


def test_reads_of_all_rows_read_ahead(sparse, monkeypatch):
    store = smallfry.open(sparse)
    parts = store.compute_mean()
    next(parts)
    assert "rr" not in flags(sparse)
    with sequential(store.table.codes):
        parts.close()
        assert "rr" not in flags(sparse)
    assert "rr" in flags(sparse)

    found = []

    def nearest(*_):
        found.append(flags(sparse))
        return np.zeros(0, np.int64), np.zeros(0, np.float32)

    monkeypatch.setattr("smallfry.kernels.nearest", nearest)
    store.neighbors(np.ones(store.dim))
    assert "rr" not in found[0]
    assert "rr" in flags(sparse)


@pytest.mark.parametrize(
    "read",
    [
        lambda store, path: np.asarray(store),
        lambda store, path: store.mean,
        lambda store, path: store.neighbors(0),
        lambda store, path: store.table.unpaged(),
        lambda store, path: export_file(store, path.with_suffix(".npy")),
        lambda store, path: verify_file(sfq.map(path)),
        lambda store, path: cli.main(["evaluate", f"{path}.npy", f"{path}"]),
    ],
    ids=["array", "mean", "neighbors", "unpaged", "export", "verify", "evaluate"],
)
def test_what_reads_all_rows_reads_ahead(tmp_path, monkeypatch, read):
    table = random_table(100, 16, 2, "uniform")
    sfq.write(tmp_path / "t.sfq", table.paged())
    np.save(tmp_path / "t.sfq.npy", table.decode())
    scans = []
    monkeypatch.setattr(Map, "_advise", lambda scanned: scans.append(len(scanned._scans)))
    store = smallfry.open(tmp_path / "t.sfq")
    read(store, tmp_path / "t.sfq")
    assert scans[0] == scans[-1] == 0 and max(scans) >= 1


def test_residency_counts_the_pages_in_memory(sparse):
    store = smallfry.open(sparse)
    store.rows([0])
    before = store.residency()
    assert before.total == sparse.stat().st_size
    store.rows([5_000_000])
    assert store.residency() == Residency(before.resident + PAGE, before.total)
    assert int(np.asarray(store.table.codes).max()) == 0  # reads all
    assert store.residency() == Residency(before.total, before.total)


def test_residency_of_a_sample_is_an_estimate(sparse):
    store = smallfry.open(sparse)
    assert store.residency(1024).resident < store.residency().total // 4
    assert int(store.table.codes[:8000].max()) == 0
    estimate = store.residency(4096)
    assert estimate.resident == pytest.approx(estimate.total / 2, rel=0.1)
    assert store.residency(10**9) == store.residency()


def test_residency_that_the_system_hides_is_an_error(sparse, monkeypatch):
    store = smallfry.open(sparse)
    ticket = store.prefetch([0])
    monkeypatch.setattr("os.geteuid", lambda: sparse.stat().st_uid + 1)
    monkeypatch.setattr("os.access", lambda *_: False)
    for ask in (store.residency, ticket.resident):
        with pytest.raises(PermissionError, match="only to the owner") as error:
            ask()
        assert error.value.filename == os.fspath(sparse)


def test_a_locked_store_is_in_memory_until_it_is_closed(tmp_path):
    sfq.write(tmp_path / "t.sfq", random_table(3000, 16, 2, "uniform").paged())
    store = smallfry.open(tmp_path / "t.sfq")
    codes = store.table.codes
    store.lock()
    assert {"lo", "rr"} <= flags(tmp_path / "t.sfq")
    assert store.residency().resident == store.residency().total
    store.close()
    assert "lo" not in flags(tmp_path / "t.sfq")
    assert len(codes)


def test_a_lock_beyond_the_limit_names_it(sparse):
    program = (
        "import contextlib, os, resource, sys, smallfry\n"
        "store = smallfry.open(sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))\n"
        "with contextlib.suppress(OSError):\n"  # of users that are not root, who have a limit anyway
        "    os.setresuid(65534, 65534, 65534)\n"
        "try:\n"
        "    store.lock()\n"
        "except OSError as error:\n"
        "    print(error)\n"
        "print('lo' in open('/proc/self/smaps').read().split(sys.argv[1])[1].split('VmFlags:')[1].split())\n"
    )
    command = [sys.executable, "-c", program, sparse]
    message, locked = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    size = sparse.stat().st_size
    assert f"cannot lock {size:,} bytes in memory: the limit RLIMIT_MEMLOCK is 0 bytes" in message
    assert "ulimit -l" in message and str(sparse) in message
    assert locked == "False"


def test_a_closed_store_has_no_pages(sparse):
    store = smallfry.open(sparse)
    store.close()
    for call in (store.residency, store.lock):
        with pytest.raises(StoreClosedError):
            call()


def test_advice_holds_until_the_last_scan_ends(file):
    scans = Map(file.fileno(), SIZE, access=mmap.ACCESS_READ)
    scans.advise_random()
    with scans.sequential():
        with scans.sequential():
            assert "rr" not in flags(file.name)
        assert "rr" not in flags(file.name)
    assert "rr" in flags(file.name)


def test_page_ranges_are_distinct_sorted_and_merged():
    begins = np.array([7 * PAGE + 5, PAGE + 1, 2 * PAGE - 1, 3 * PAGE, PAGE + 9, 8 * PAGE])
    expected = [[PAGE, 3 * PAGE], [7 * PAGE, 2 * PAGE]]
    assert page_ranges([(begins, 2)]).tolist() == expected
    assert page_ranges([(begins[:1], 2), (begins[1:], 2)]).tolist() == expected
    assert page_ranges([(begins[:1], 2 * PAGE)]).tolist() == [[7 * PAGE, 3 * PAGE]]
    assert page_ranges([(begins[:0], 2)]).tolist() == []


def test_prefetch_asks_for_each_page_once(sparse):
    store = smallfry.open(sparse)
    assert store.prefetch([0, 1, 681, 681, 0]).pages == 1
    assert store.prefetch([681, 682]).pages == 2
    ids = np.random.default_rng(0).integers(0, len(store), (100, 3))
    prefetch = store.prefetch(ids)
    assert prefetch.pages == len(np.unique(ids // 682))
    store.gather(ids)
    assert prefetch.resident() == prefetch.pages
    assert store.prefetch(np.empty((0, 4), np.int32)).pages == 0


def test_prefetched_pages_get_into_memory(sparse):
    store = smallfry.open(sparse)
    store.gather([0])
    before = store.residency().resident
    prefetch = store.prefetch(np.arange(2000, 12_000, 10) * 682)
    store.gather(np.arange(2000, 12_000, 10) * 682)
    assert (prefetch.pages, prefetch.resident()) == (1000, 1000)
    assert store.residency().resident == before + 1000 * PAGE


@pytest.mark.parametrize("paged", [True, False])
@pytest.mark.parametrize("dim", [16, 3000, 40_000])
def test_prefetch_is_the_same_without_the_native_module(dim, paged):
    table = random_table(1000 if dim == 16 else 40, dim, 2, "uniform", parts=("row_scale",))
    table = table.paged() if paged else table
    ids = np.random.default_rng(0).integers(0, table.rows, 50)
    ranges = table.decoder.prefetch(ids, None)
    fallback = NumPyDecoder(*(getattr(table, name) for name in DECODER_ARRAYS))
    assert np.array_equal(fallback.prefetch(ids, None), ranges)
    assert (ranges % PAGE == 0).all() and (np.diff(ranges[:, 0].astype(np.int64)) > 0).all()
    addresses = [table.codes.ctypes.data + int(start) for start in starts_of(table, ids)]
    assert all(any(begin <= at < begin + size for begin, size in ranges.tolist()) for at in addresses)


def starts_of(table, ids):
    return ids * table.stride if table.paging is None else table.paging.starts(ids)


def test_prefetch_takes_the_ids_of_gather(tmp_path):
    table = random_table(3000, 16, 2, "uniform")
    sfq.write(tmp_path / "t.sfq", table.paged(head_offsets=[0, 1000, 3000]))
    store = smallfry.open(tmp_path / "t.sfq")
    per_page = store.table.paging.per_block
    assert store.prefetch([[999, 0], [0, 1999]]).pages == len(
        {0, 999 // per_page, 1000 // per_page, 2999 // per_page}
    )
    for ids in ([[1000, 0]], [[0, 2000]], [[-1, 0]]):
        with pytest.raises(IndexError) as gathered:
            store.gather(ids)
        with pytest.raises(IndexError) as prefetched:
            store.prefetch(ids)
        assert str(prefetched.value) == str(gathered.value)
    for ids in ([0, 1, 2], np.zeros((1, 2), np.float32), np.zeros((2, 2), np.int64)[:, ::-1]):
        with pytest.raises(InputError):
            store.prefetch(ids)
    store.close()
    with pytest.raises(StoreClosedError):
        store.prefetch([[0, 0]])


def test_prefetch_keeps_the_map_of_a_closed_store(sparse):
    store = smallfry.open(sparse)
    store.gather([0])
    prefetch = store.prefetch([0])
    store.close()
    assert prefetch.resident() == 1
    assert repr(prefetch) == "<Prefetch pages=1>"
