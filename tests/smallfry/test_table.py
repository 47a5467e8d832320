"""Table: sizes by part, and arrays that do not belong together."""

import dataclasses

import numpy as np
import pytest

from smallfry.errors import InputError
from smallfry.table import Table

KINDS_OF_2 = "expected one of uniform, exact, trellis at nbit 2"


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
