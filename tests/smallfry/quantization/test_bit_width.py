import numpy as np
import pytest

from smallfry import cli, store
from smallfry.compress import compress_file
from smallfry.errors import InputError
from smallfry.quantization.bit_width import by_error, by_size, matrix_nbytes
from smallfry.quantization.learned import Options
from smallfry.quantization.quantize import quantize

X = np.random.default_rng(0).standard_normal((300, 10)).astype(np.float32)


@pytest.mark.parametrize(("max_error", "nbit"), [(0.9, 1), (0.4, 2), (0.2, 4), (0.01, 8), (0.001, 16)])
def test_the_fewest_bits_within_the_error_are_taken(max_error, nbit):
    assert by_error(max_error, Options(), lambda n: quantize(X, n)).nbit == nbit


def test_an_error_that_no_width_of_the_options_reaches_is_refused():
    options = Options(codebook="grouped")
    with pytest.raises(
        InputError, match=r"at 4 bits, the most that these options allow, and may be 0\.001 at most"
    ):
        by_error(0.001, options, lambda n: quantize(X, n, codebook="grouped"))


@pytest.mark.parametrize("max_error", [-1.0, float("nan")])
def test_an_error_below_zero_is_refused(max_error):
    with pytest.raises(InputError, match="at least 0"):
        by_error(max_error, Options(), lambda n: quantize(X, n))


@pytest.mark.parametrize(("nbytes", "nbit"), [(1_000, 1), (1_500, 2), (10_000, 8), (10**6, 32)])
def test_the_most_bits_that_fit_are_taken(nbytes, nbit):
    assert by_size(nbytes, 300, 10, 300, Options()) == nbit


def test_a_size_that_nothing_fits_is_refused():
    with pytest.raises(InputError, match="908 bytes with their vocabulary even at 1 bits, and may take 800"):
        by_size(800, 300, 10, 300, Options())


@pytest.mark.parametrize(
    "options", [{}, {"codebook": "grouped", "center": True, "rotate": "principal", "row_scale": True}]
)
@pytest.mark.parametrize("nbit", [1, 2, 4])
def test_the_size_foretold_is_the_size_of_the_table(nbit, options):
    table = quantize(X, nbit, **options)
    assert matrix_nbytes(300, 10, nbit, Options(**options)) == sum(table.nbytes.values())


def test_a_file_is_compressed_to_the_size_asked(tmp_path):
    np.save(tmp_path / "m.npy", X)
    report = compress_file(tmp_path / "m.npy", tmp_path / "m.sfq", max_nbytes=1_500)
    assert report.nbit == 2
    assert report.nbytes["total"] <= 1_500


def test_two_ways_to_choose_are_one_too_many(tmp_path):
    np.save(tmp_path / "m.npy", X)
    with pytest.raises(InputError, match="give one of them"):
        compress_file(tmp_path / "m.npy", tmp_path / "m.sfq", max_nbytes=1_500, max_error=0.1)


def test_the_command_line_takes_an_error_and_better_bits(tmp_path, capsys):
    np.save(tmp_path / "m.npy", np.random.default_rng(0).standard_normal((9000, 10)).astype(np.float32))
    options = [
        "--max-error",
        "0.2",
        "--codebook",
        "grouped",
        "--center",
        "--rotate",
        "principal",
        "--row-scale",
    ]
    assert cli.main(["compress", str(tmp_path / "m.npy"), "-o", str(tmp_path / "m.sfq"), *options]) == 0
    assert "grouped" in capsys.readouterr().out
    assert cli.main(["info", str(tmp_path / "m.sfq")]) == 0
    assert "principal 0" in capsys.readouterr().out
    with store.open(tmp_path / "m.sfq") as opened:
        assert (opened.nbit, opened.table.kind, opened.metadata["rotation"]) == (4, "grouped", "principal 0")
        assert opened.nbytes["rotation"] == 400


@pytest.mark.parametrize("megabytes", ["nan", "inf", "-1", "0", "much"])
def test_what_is_no_size_is_refused(megabytes, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["compress", "v.npy", "-o", "v.sfq", "--target-mb", megabytes])
    assert "is no number of million bytes above 0" in capsys.readouterr().err
