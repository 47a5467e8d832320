"""Options that contradict each other, and the choice of the bit width by error or by size."""

import numpy as np
import pytest

from smallfry import cli, store
from smallfry.compress import compress_file
from smallfry.errors import InputError
from smallfry.quantization.options import (
    BEST,
    Options,
    largest_nbit_within,
    smallest_within_error,
    table_nbytes,
)
from smallfry.quantization.quantize import quantize, quantize_matrix

X = np.random.default_rng(0).standard_normal((300, 10)).astype(np.float32)


@pytest.mark.parametrize(
    ("nbit", "options", "message"),
    [
        (3, {}, "3 bits need a trellis codebook"),
        (3, {"center": True}, "3 bits need a trellis codebook"),
        (0, {}, "nbit is 0"),
        (2, {"rounding": "up"}, "rounding is 'up'"),
        (2, {"seed": -1}, "seed is -1"),
        (2, {"clip": 0.0}, "clip is 0"),
        (8, {"codebook_kind": "trellis"}, "supports 1, 2, 3, 4 bits, not 8"),
        (2, {"codebook_kind": "magic"}, "codebook_kind is 'magic'"),
        (
            2,
            {"codebook_kind": "trellis", "trellis_state_bits": 9},
            "trellis_state_bits is 9, expected one of 8, 12",
        ),
        (2, {"rotate": "left"}, "rotate is 'left', expected one of False, True"),
        (2, {"rotate": True}, "need a trellis codebook"),
        (2, {"trellis_state_bits": 12}, "need a trellis codebook"),
        (32, {"center": True}, "32 bits keep every value"),
        (
            2,
            {"codebook_kind": "trellis", "rounding": "stochastic"},
            "rounding and clip need a uniform codebook",
        ),
    ],
)
def test_invalid_options_are_rejected(nbit, options, message):
    with pytest.raises(InputError, match=message):
        quantize(X, nbit, **options)


@pytest.mark.parametrize(("max_error", "nbit"), [(0.9, 1), (0.4, 2), (0.2, 4), (0.01, 8), (0.001, 16)])
def test_max_error_takes_the_fewest_bits_within_it(max_error, nbit):
    assert smallest_within_error(max_error, 10, Options(), lambda n: quantize(X, n)).nbit == nbit


def test_max_error_below_that_of_every_width_is_rejected():
    options = Options("trellis")
    with pytest.raises(
        InputError, match=r"at 4 bits, the most that these options support, and max_error is 0\.001"
    ):
        smallest_within_error(0.001, 10, options, lambda n: quantize_matrix(X, n, options))


@pytest.mark.parametrize("max_error", [-1.0, float("nan")])
def test_negative_or_nan_max_error_is_rejected(max_error):
    with pytest.raises(InputError, match="at least 0"):
        smallest_within_error(max_error, 10, Options(), lambda n: quantize(X, n))


@pytest.mark.parametrize(("nbytes", "nbit"), [(1_000, 1), (1_500, 2), (10_000, 8), (10**6, 32)])
def test_max_nbytes_takes_the_most_bits_that_fit(nbytes, nbit):
    assert largest_nbit_within(nbytes, 300, 10, 300, Options()) == nbit


def test_max_nbytes_too_small_for_every_width_is_rejected():
    with pytest.raises(InputError, match="908 bytes with their vocabulary at 1 bits, and the limit is 800"):
        largest_nbit_within(800, 300, 10, 300, Options())


def test_widths_too_narrow_for_a_window_are_not_chosen():
    options = Options(**BEST)
    assert smallest_within_error(0.9, 10, options, lambda n: quantize_matrix(X, n, options)).nbit == 2
    assert largest_nbit_within(10**6, 300, 3, 0, options) == 4


def test_rows_too_short_for_a_window_at_every_width_are_rejected():
    options = Options(**BEST)
    with pytest.raises(InputError, match="rows of 2 values have 8 bits at 4 bits a value"):
        smallest_within_error(0.9, 2, options, lambda n: quantize_matrix(X[:, :2], n, options))
    with pytest.raises(InputError, match="rows of 2 values have 8 bits at 4 bits a value"):
        largest_nbit_within(10**6, 300, 2, 0, options)


@pytest.mark.parametrize("options", [Options(), Options("trellis"), Options(**BEST)])
@pytest.mark.parametrize("nbit", [2, 4])
def test_predicted_size_is_the_size_of_the_table(nbit, options):
    table = quantize_matrix(X, nbit, options)
    assert table_nbytes(300, 10, nbit, options) == sum(table.nbytes.values())


def test_compress_file_keeps_to_max_nbytes(tmp_path):
    np.save(tmp_path / "m.npy", X)
    compress_file(tmp_path / "m.npy", tmp_path / "m.sfq", max_nbytes=1_500)
    with store.open(tmp_path / "m.sfq") as opened:
        assert opened.nbit == 2
        assert opened.nbytes["total"] <= 1_500


def test_compress_file_rejects_max_nbytes_with_max_error(tmp_path):
    np.save(tmp_path / "m.npy", X)
    with pytest.raises(InputError, match="Please pass one of them"):
        compress_file(tmp_path / "m.npy", tmp_path / "m.sfq", max_nbytes=1_500, max_error=0.1)


def test_cli_takes_max_error_with_all_options(tmp_path, capsys):
    np.save(tmp_path / "m.npy", X)
    options = "--max-error 0.2 --codebook trellis --center --rotate --row-scale".split()
    assert cli.main(["compress", str(tmp_path / "m.npy"), "-o", str(tmp_path / "m.sfq"), *options]) == 0
    assert "trellis" in capsys.readouterr().out
    with store.open(tmp_path / "m.sfq") as opened:
        assert (opened.nbit, opened.table.codebook_kind, len(opened.table.codebook)) == (3, "trellis", 256)
        assert opened.nbytes["rotation"] == 400


@pytest.mark.parametrize(
    ("options", "nbit"),
    [([], 2), (["--nbit", "3"], 3), (["--max-error", "0.1"], 3), (["--target-mb", "0.03"], 4)],
)
def test_best_chooses_all_options_but_the_bits(tmp_path, capsys, options, nbit):
    vectors = np.random.default_rng(0).standard_normal((100, 20)).astype(np.float32)
    np.save(tmp_path / "m.npy", vectors)
    assert (
        cli.main(["compress", str(tmp_path / "m.npy"), "-o", str(tmp_path / "m.sfq"), "--best", *options])
        == 0
    )
    assert "vectors are in the principal basis; dot products are unchanged" in capsys.readouterr().out
    with store.open(tmp_path / "m.sfq") as opened:
        expected = quantize(vectors, nbit, **BEST)
        np.testing.assert_array_equal(opened.table.codes, expected.codes)


def test_best_excludes_the_options_that_it_chooses(tmp_path, capsys):
    command = [
        "compress",
        "m.npy",
        "-o",
        str(tmp_path / "m.sfq"),
        "--best",
        "--center",
        "--codebook-kind",
        "uniform",
    ]
    assert cli.main(command) == 1
    assert "--best chooses --codebook-kind, --center itself" in capsys.readouterr().err


@pytest.mark.parametrize("megabytes", ["nan", "inf", "-1", "0", "much"])
def test_cli_rejects_an_invalid_target_size(megabytes, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["compress", "v.npy", "-o", "v.sfq", "--target-mb", megabytes])
    assert "argument --target-mb" in capsys.readouterr().err
