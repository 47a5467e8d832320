"""Paged tables of more than 2**32 rows in files of more than 4 GiB, which are mostly holes."""

import subprocess
import sys

import numpy as np
import pytest

import smallfry
from tests.helpers.sparse import DIM, NBIT, codebook, write_sparse

ROWS = 2**32 + 5000
ENDS = [0, 1, 681, 682, 2**31 - 1, 2**31, 2**32 - 1, 2**32, ROWS - 2, ROWS - 1]


@pytest.fixture(scope="module")
def records():
    rng = np.random.default_rng(0)
    return dict(zip(ENDS, rng.integers(0, 256, (len(ENDS), DIM * NBIT // 8), np.uint8), strict=True))


@pytest.fixture(scope="module")
def path(tmp_path_factory, records):
    path = tmp_path_factory.mktemp("large") / "t.sfq"
    write_sparse(path, ROWS, records)
    yield path
    path.unlink()


def decode(codes):
    ring = np.unpackbits(codes, bitorder="little")
    windows = ring[(np.arange(DIM)[:, None] * NBIT + np.arange(8)) % ring.size]
    return codebook()[windows @ (1 << np.arange(8))]


def test_the_file_is_large_and_takes_little_of_the_disk(path):
    status = path.stat()
    assert status.st_size > 2**32
    assert status.st_blocks * 512 < 1 << 20


def test_rows_from_both_ends(path, records):
    store = smallfry.open(path)
    assert len(store) == ROWS
    assert np.array_equal(store.rows(ENDS), np.stack([decode(records[row]) for row in ENDS]))
    assert np.array_equal(store.codes(ENDS), np.stack([records[row] for row in ENDS]))
    assert not store.rows([2, ROWS - 3, 2**32 + 1]).any()
    for call in (store.rows, store.gather, store.prefetch):
        with pytest.raises(IndexError, match=str(ROWS)):
            call([0, ROWS])


def test_gathered_and_prefetched_rows_from_both_ends(path):
    store = smallfry.open(path)
    prefetch = store.prefetch(ENDS)
    assert np.array_equal(store.gather(ENDS), store.rows(ENDS))
    assert prefetch.pages == prefetch.resident() == len({row // 682 for row in ENDS})


def test_opening_reads_no_rows(path):
    before = smallfry.open(path).residency()
    program = (
        "import sys, smallfry\n"
        "store = smallfry.open(sys.argv[1])\n"
        "before = store.residency()\n"
        "store.rows([len(store) // 3])\n"
        "store.describe(), store.nbytes, store.baseline_nbytes, len(store)\n"
        "peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM:'))\n"
        "print(before.resident, before.total, peak.split()[1])\n"
    )
    command = [sys.executable, "-c", program, path]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    resident, total, peak_kb = map(int, output.split())
    assert (resident, total) == (before.resident, before.total)
    assert total == path.stat().st_size
    assert resident < 1 << 20
    assert peak_kb < 200_000
