import numpy as np
import pytest

from smallfry.paging import Paging


@pytest.mark.parametrize("stride", [1, 20, 60, 62, 1000, 2046, 2047, 4094, 4095, 9000])
def test_no_record_that_fits_into_a_page_crosses_one(stride):
    paging = Paging(10_000, stride)
    starts = paging.starts(np.arange(10_000))
    ends = starts + paging.record
    if paging.record <= 4096:
        assert (starts // 4096 == (ends - 1) // 4096).all()
        assert paging.block == 4096
    assert (starts[1:] >= ends[:-1]).all()
    blocks, block = paging.shape
    assert ends[-1] <= blocks * block
    assert paging.padding == blocks * block - 10_000 * (stride + 2)


def test_records_of_62_bytes_leave_4_bytes_of_a_page():
    paging = Paging(66, 60)
    assert (paging.per_block, paging.padding) == (66, 4)


def test_rows_beyond_32_bits_start_beyond_32_bits():
    paging = Paging(2**40, 1)
    assert paging.starts(np.array([2**40 - 1])) == [(2**40 - 1) // 1365 * 4096 + (2**40 - 1) % 1365 * 3]


@pytest.mark.parametrize("stride", [3, 60, 3000, 5000])
@pytest.mark.parametrize("step", [1, 7, 100, 1000])
def test_filled_records_are_read_again(stride, step):
    rows = 300
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, (rows, stride), np.uint8)
    scale = rng.uniform(0.5, 2, rows).astype(np.float16)
    paging = Paging(rows, stride)
    blocks = np.zeros(paging.shape, np.uint8)
    for first in range(0, rows, step):
        paging.fill(blocks, first, codes[first : first + step], scale[first : first + step])
    ids = rng.integers(0, rows, 500)
    np.testing.assert_array_equal(paging.codes(blocks, ids), codes[ids])
    np.testing.assert_array_equal(paging.scales(blocks, ids), scale[ids])
    records = paging.records(blocks).reshape(-1, paging.record)
    np.testing.assert_array_equal(records[:rows, :stride], codes)
    assert not records[rows:].any()
    assert not blocks[:, paging.per_block * paging.record :].any()
