"""Table: sizes by part, and arrays that do not belong together."""

import dataclasses

import numpy as np
import pytest

from smallfry.errors import InputError
from smallfry.table import Table
from tests.helpers.tables import PARTS, random_table

KINDS_OF_2 = "expected one of uniform, exact, trellis at nbit 2"


PAGED = {"paged_rows": 4, "row_scale": None, "zero_rows": np.empty(0, np.uint32)}


def table(**changes):
    parts = {
        "codes": np.zeros((4, 2), np.uint8),
        "dim": 5,
        "nbit": 2,
        "codebook_kind": "uniform",
        "codebook": np.arange(4, dtype=np.float32),
        "clip": 3.0,
        "mean": np.zeros(5, np.float32),
        "row_scale": np.ones(4, np.float16),
        "zero_rows": np.array([1, 3], np.uint32),
    }
    return Table(**{**parts, **changes})


def test_bytes_are_told_by_part():
    absent = {"column_scale": 0, "rotation": 0, "head_offsets": 0}
    assert table().nbytes == {"codes": 8, "codebook": 16, "mean": 20, "row_scale": 8, "zero_rows": 8} | absent
    assert table(mean=None).nbytes["mean"] == 0


def test_stride_rounds_up_to_whole_bytes():
    assert (table().rows, table().stride) == (4, 2)
    assert Table(np.zeros((2, 5), np.float32), 5, 32, "float", None, 0.0).stride == 20


TRELLIS = {"codebook_kind": "trellis", "codebook": np.zeros(256, np.float32)}


def test_parts_that_fit_are_accepted():
    table().verify_shapes()
    basis = np.eye(5, dtype=np.float32)
    table(**TRELLIS, column_scale=np.ones(5, np.float32), rotation=basis).verify_shapes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nbit": 5}, "nbit is 5, expected one of 1, 2, 3, 4, 8, 16, 32"),
        ({"nbit": 3}, "codebook kind is 'uniform', expected one of trellis at nbit 3"),
        ({"codebook_kind": "best"}, "codebook kind is 'best', " + KINDS_OF_2),
        ({"codebook_kind": "float"}, "codebook kind is 'float', " + KINDS_OF_2),
        (
            {"nbit": 8, "codebook_kind": "trellis"},
            "codebook kind is 'trellis', expected one of uniform, exact at nbit 8",
        ),
        ({"dim": 0}, "dim is 0, expected 1 or more"),
        ({"dim": 9}, "codes is uint8 [4, 2], expected uint8 [4, 3]"),
        ({"codes": np.zeros((4, 2), np.int8)}, "codes is int8 [4, 2], expected uint8 [4, 2]"),
        ({"codebook": None}, "codebook is NoneType, expected an array of float32"),
        ({"codebook": np.zeros(5, np.float32)}, "codebook is float32 [5], expected float32 [4]"),
        (
            {"codebook_kind": "trellis"},
            "the trellis codebook has 4 values, expected a power of two from 256 to 65536.",
        ),
        (
            {"codebook_kind": "trellis", "codebook": np.zeros(2048, np.float32)},
            "rows of 5 values have 10 bits at 2 bits a value; a trellis code of 2048 values needs 11. "
            "Use more bits, or a uniform codebook.",
        ),
        (
            TRELLIS | {"column_scale": np.ones(4, np.float32)},
            "column_scale is float32 [4], expected float32 [5]",
        ),
        (
            TRELLIS | {"rotation": np.ones((5, 4), np.float32)},
            "rotation is float32 [5, 4], expected float32 [5, 5]",
        ),
        (
            {"column_scale": np.ones(5, np.float32)},
            "a uniform table has column_scale, expected a trellis one",
        ),
        (
            {"rotation": np.ones((5, 5), np.float32)},
            "a uniform table has rotation, expected a trellis one",
        ),
        ({"mean": np.zeros(4, np.float32)}, "mean is float32 [4], expected float32 [5]"),
        ({"row_scale": np.ones(4, np.float32)}, "row_scale is float32 [4], expected float16 [4]"),
        ({"zero_rows": np.array([1], np.int64)}, "zero_rows is int64 [1], expected uint32 [1]"),
        ({"zero_rows": np.array([2, 2], np.uint32)}, "zero_rows is not strictly increasing"),
        ({"zero_rows": np.array([4], np.uint32)}, "zero_rows names row 4, and the table has 4 rows"),
        (
            {"paged_rows": 4},
            "a paged table has row_scale or zero_rows, expected none: scales are next to the codes",
        ),
        (PAGED | {"paged_rows": -1}, "paged_rows is -1, expected a number of rows"),
        (PAGED, "codes is uint8 [4, 2], expected uint8 [1, 4096]"),
        (
            {"head_offsets": np.array([0, 4])},
            "head_offsets is int64 [2], expected uint64 [2]",
        ),
        (
            {"head_offsets": np.array([0, 5], np.uint64)},
            "head_offsets does not increase from 0 to the number of rows, 4.",
        ),
    ],
)
def test_parts_that_do_not_fit_are_rejected(changes, message):
    with pytest.raises(InputError) as caught:
        table(**changes).verify_shapes()
    assert str(caught.value) == message


def test_decoding_a_table_that_does_not_fit_is_rejected():
    with pytest.raises(InputError, match="codebook is float32"):
        table(codebook=np.zeros(5, np.float32)).decode([0])


def test_parts_cannot_be_replaced():
    with pytest.raises(dataclasses.FrozenInstanceError):
        table().nbit = 4


def test_paged_table_has_the_rows_of_the_table():
    plain = random_table(300, 21, 3, "trellis", parts=PARTS)
    paged = plain.paged()
    ids = [299, 0, 5, 5]
    assert (paged.rows, paged.paged()) == (300, paged)
    np.testing.assert_array_equal(paged.decode(ids), plain.decode(ids))
    np.testing.assert_array_equal(paged.gather_codes([*ids, -1]), plain.gather_codes([*ids, -1]))
    scales = np.where(np.isin(ids, plain.zero_rows), 0, plain.scales(ids))
    np.testing.assert_array_equal(paged.scales(ids), scales)
    for back in (paged.unpaged(), plain.unpaged()):
        np.testing.assert_array_equal(back.decode(), plain.decode())
        np.testing.assert_array_equal(back.zero_rows, plain.zero_rows)
        assert back.paged_rows is None


@pytest.mark.parametrize("nbit", [2, 32])
def test_selected_rows_are_a_table_in_their_order(nbit):
    plain = random_table(50, 9, nbit, "uniform" if nbit == 2 else "float", parts=PARTS)
    np.testing.assert_array_equal(plain.select([3, 49, 3]).decode(), plain.decode([3, 49, 3]))


def test_paged_table_without_scales_has_those_of_1():
    np.testing.assert_array_equal(random_table(5, 9, 2, "uniform").paged().scales([0, 4]), [1, 1])


def test_table_of_32_bits_cannot_be_paged():
    with pytest.raises(InputError, match="32 bits a value cannot be paged"):
        random_table(5, 9, 32, "float").paged()


def test_heads_of_a_paged_table():
    table = random_table(5, 9, 2, "uniform").paged([0, 2, 5])
    assert table.head_offsets.dtype == np.uint64 and table.head_offsets.tolist() == [0, 2, 5]
    for offsets in ([0, 6], [0, 3, 2, 5], [1, 5], [-1, 5], [0], [0.5, 5], [[0, 5]]):
        with pytest.raises(InputError, match="head_offsets"):
            random_table(5, 9, 2, "uniform").paged(offsets)
