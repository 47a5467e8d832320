import os
from functools import cache

import numpy as np
import pytest

from smallfry.errors import InputError
from smallfry.quantization.options import Options
from smallfry.quantization.quantize import quantize_matrix

CHOICES = [
    Options(),
    Options(row_scale=True),
    Options(center=True),
    Options(codebook_kind="trellis"),
    Options(codebook_kind="trellis", row_scale=True, center=True, rotate=True),
]


def matrix(rows=700, dim=24):
    x = np.random.default_rng(0).standard_normal((rows, dim), np.float32)
    x[5] = x[-1] = 0
    return x


@cache
def table_of(nbit, options):
    return quantize_matrix(matrix(), nbit, options)


@pytest.mark.parametrize("options", CHOICES)
@pytest.mark.parametrize("nbit", [1, 2, 4])
@pytest.mark.parametrize("in_file", [False, True])
def test_paged_rows_are_those_of_the_table_paged_later(tmp_path, options, nbit, in_file):
    folder = tmp_path if in_file else None
    table = table_of(nbit, options)
    paged = quantize_matrix(matrix(), nbit, options, paged=True, folder=folder)
    expected = table.paged()
    np.testing.assert_array_equal(paged.codes, expected.codes)
    assert (paged.rows, paged.row_scale, len(paged.zero_rows)) == (700, None, 0)
    assert paged.frobenius_error == table.frobenius_error
    np.testing.assert_array_equal(paged.decode(), table.decode())


def test_paged_rows_do_not_depend_on_the_chunks(monkeypatch):
    whole = quantize_matrix(matrix(), 3, CHOICES[-1], paged=True)
    monkeypatch.setattr("smallfry.quantization.chunks._BLOCK_VALUES", 100)
    monkeypatch.setattr("smallfry.quantization.chunks._CHUNK_VALUES", 500)
    chunked = quantize_matrix(matrix(), 3, CHOICES[-1], paged=True)
    np.testing.assert_array_equal(whole.codes, chunked.codes)


@pytest.mark.parametrize("options", CHOICES)
def test_table_in_unnamed_files_is_the_one_in_memory(tmp_path, options):
    held, filed = (
        quantize_matrix(matrix(), 2, options),
        quantize_matrix(matrix(), 2, options, folder=tmp_path),
    )
    np.testing.assert_array_equal(held.codes, filed.codes)
    np.testing.assert_array_equal(held.zero_rows, filed.zero_rows)
    np.testing.assert_array_equal(held.decode(), filed.decode())
    assert os.listdir(tmp_path) == []


def test_table_of_32_bits_cannot_be_paged():
    with pytest.raises(InputError, match="32 bits a value cannot be paged"):
        quantize_matrix(matrix(), 32, Options(), paged=True)
