import gzip
import json
import os

import numpy as np
import pytest

from smallfry.errors import InputError
from smallfry.readers.formats.selection import is_pattern, open_selection, select
from tests.helpers.tensors import FLOAT8, stored_as, write_model, write_tensors

SECOND = "model-00002-of-00002.safetensors"


def matrix(rows, dim=6, seed=0):
    return np.random.default_rng(seed).integers(-64, 64, (rows, dim)).astype(np.float32) / 8


@pytest.fixture
def index(tmp_path):
    """Return the index of a model whose tables are in two shards."""
    return write_model(
        tmp_path,
        {
            "ngram.10.weight": ("F32", matrix(3, seed=10)),
            "ngram.2.weight": ("BF16", stored_as("BF16", matrix(4, seed=2))),
            "up.weight": ("F32", matrix(2, 9)),
        },
        {
            "ngram.1.weight": ("F16", stored_as("F16", matrix(5, seed=1))),
            "ngram.3.weight": ("F64", stored_as("F64", matrix(1, seed=3))),
        },
    )


def rows_of(selection):
    return np.concatenate(list(selection))


def test_tensors_follow_each_other_in_natural_order(index):
    selection = open_selection(index, "ngram.*")
    assert selection.names == [f"ngram.{n}.weight" for n in (1, 2, 3, 10)]
    assert selection.offsets.tolist() == [0, 5, 9, 10, 13]
    assert selection.shape == (13, 6)
    expected = [matrix(5, seed=1), matrix(4, seed=2), matrix(1, seed=3), matrix(3, seed=10)]
    for _ in range(2):
        np.testing.assert_array_equal(rows_of(selection), np.concatenate(expected))


@pytest.mark.parametrize("first", range(13))
def test_rows_are_read_across_tensors(index, first):
    selection = open_selection(index, "ngram.*")
    out = np.empty((13 - first, 6), np.float32)
    selection.read(first, out)
    np.testing.assert_array_equal(out, rows_of(selection)[first:])


@pytest.mark.parametrize(
    ("row", "tensor", "number"), [(0, 1, 0), (4, 1, 4), (5, 2, 0), (9, 3, 0), (10, 10, 0), (12, 10, 2)]
)
def test_row_is_located_in_its_tensor(index, row, tensor, number):
    name, found = open_selection(index, "ngram.*").locate(row)
    assert (name.partition(":")[2], found) == (f"ngram.{tensor}.weight", number)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [("*", ["a.1", "a.2", "a[1]"]), ("a.?", ["a.1", "a.2"]), ("a.[2-9]", ["a.2"]), ("a[1]", ["a[1]"])],
)
def test_pattern_is_of_the_whole_name_and_never_of_a_scale(pattern, found):
    names = ["a.2", "a.1_scale", "a.1", "a[1]", "a.2_zero_point", "a.2.scale"]
    assert select("f", names, pattern) == found


@pytest.mark.parametrize(
    ("text", "expected"), [("*a", True), ("a?", True), ("[a]", True), ("a.b", False), (None, False)]
)
def test_pattern_has_a_special_character(text, expected):
    assert is_pattern(text) is expected


@pytest.mark.parametrize("shape", [(), (1,), (254,), (254, 1), (2, 3)])
@pytest.mark.parametrize("together", [True, False])
def test_fp8_is_multiplied_by_its_scale(tmp_path, shape, together):
    values = np.repeat(FLOAT8[:, None], 6, axis=1)
    scale = np.random.default_rng(0).uniform(0.1, 2, shape).astype(np.float32)
    weight, factors = {"n.weight": ("F8_E4M3", values)}, {"n.weight_scale": ("F32", scale)}
    path = write_model(tmp_path, weight | factors) if together else write_model(tmp_path, weight, factors)
    exponent, fraction = FLOAT8.astype(int) >> 3 & 15, FLOAT8 & 7
    magnitude = np.where(exponent, (8 + fraction) * 2.0 ** (exponent - 10), fraction * 2.0**-9)
    expected = np.where(FLOAT8 < 128, magnitude, -magnitude).astype(np.float32)[:, None]
    if scale.ndim == 2 and scale.shape[1] > 1:
        scale = np.kron(scale, np.ones((127, 2), np.float32))
    elif scale.size > 1:
        scale = scale.reshape(-1, 1)
    np.testing.assert_array_equal(
        rows_of(open_selection(path, "n*")), expected * scale * np.ones((1, 6), "f4")
    )


def test_no_match_lists_similar_names_first(index):
    with pytest.raises(InputError, match=r"no tensor that matches '\*ngrams\*'\. It has ngram\.") as raised:
        open_selection(index, "*ngrams*")
    assert "correct the pattern (--tensor)" in str(raised.value)
    assert len(str(raised.value)) <= 500


def test_rows_of_different_lengths_are_rejected_with_both_names(index):
    with pytest.raises(
        InputError, match=r"ngram\.1\.weight has shape \[5, 6\] and .*up\.weight \[2, 9\], expected rows"
    ):
        open_selection(index, "*")


def test_tensor_that_is_no_matrix_is_rejected(tmp_path):
    path = write_model(tmp_path, {"n.1": ("F32", matrix(2)), "n.bias": ("F32", matrix(1)[0])})
    with pytest.raises(InputError, match=r"n\.bias has shape \[6\], expected a floating-point matrix"):
        open_selection(path, "n.*")


def test_missing_shard_is_named(index):
    (index.parent / SECOND).unlink()
    with pytest.raises(InputError, match=rf"{SECOND}, the shard of tensor ngram\.1\.weight, is missing"):
        open_selection(index, "ngram.*")


def test_shard_shorter_than_its_header_declares_is_rejected(index):
    shard = index.parent / SECOND
    size = shard.stat().st_size
    os.truncate(shard, size - 1)
    with pytest.raises(
        InputError, match=rf"{SECOND} has {size - 1} bytes, and its header declares {size}\. .* again"
    ):
        open_selection(index, "ngram.*")


def test_tensor_that_its_shard_lacks_is_named(index):
    places = json.loads(index.read_text())["weight_map"] | {"ngram.4.weight": SECOND}
    index.write_text(json.dumps({"weight_map": places}))
    with pytest.raises(InputError, match=rf"{SECOND}:ngram\.4\.weight is missing, but listed in the index"):
        open_selection(index, "ngram.*")


def test_scale_that_its_shard_lacks_is_named(tmp_path):
    path = write_model(tmp_path, {"n": ("F8_E4M3", FLOAT8[:, None]), "n_scale": ("F32", np.ones(1, "f4"))})
    write_tensors(tmp_path / "model-00001-of-00001.safetensors", {"n": ("F8_E4M3", FLOAT8[:, None])})
    with pytest.raises(InputError, match=r"n_scale is missing, but listed in the index"):
        open_selection(path, "n*")


def test_scale_of_one_tensor_only_is_rejected(tmp_path):
    values = FLOAT8[:, None]
    tensors = {"n.1": ("F8_E4M3", values), "n.1_scale": ("F32", np.ones(1, "f4")), "n.2": ("F8_E4M3", values)}
    with pytest.raises(InputError, match=r"n\.2 has no scale, and .*:n\.1 has one"):
        open_selection(write_model(tmp_path, tensors), "n.*")


def test_scale_of_another_shape_is_rejected(tmp_path):
    tensors = {"n": ("F8_E4M3", FLOAT8[:, None]), "n_scale": ("F32", np.ones(3, "f4"))}
    with pytest.raises(InputError, match=r"n_scale is a scale of shape \[3\], expected one value, \[254\]"):
        open_selection(write_model(tmp_path, tensors), "n*")


def test_shard_is_read_only_if_it_has_all_tensors_that_match(index):
    shard = index.parent / SECOND
    assert open_selection(shard, "ngram.3*").shape == (1, 6)
    with pytest.raises(
        InputError, match=rf"{SECOND} is a shard, and others have 2 more .* model\.safetensors\.index\.json"
    ):
        open_selection(shard, "ngram.*")


def test_file_of_another_format_or_compressed_is_rejected(tmp_path):
    np.save(tmp_path / "m.npy", matrix(2))
    path = write_tensors(tmp_path / "m.safetensors", {"n": ("F32", matrix(2))})
    (tmp_path / "m.gz").write_bytes(gzip.compress(path.read_bytes()))
    for name in ("m.npy", "m.gz"):
        with pytest.raises(InputError, match=r"is not an uncompressed \.safetensors file, or an index"):
            open_selection(tmp_path / name, "n*")


def test_compressed_shard_is_rejected(index):
    shard = index.parent / SECOND
    shard.write_bytes(gzip.compress(shard.read_bytes()))
    with pytest.raises(InputError, match=rf"{SECOND} is compressed\. Please decompress it"):
        open_selection(index, "ngram.*")


@pytest.mark.parametrize("change", [lambda p: os.truncate(p, 300), lambda p: os.utime(p, (1, 1)), os.unlink])
def test_file_that_changes_between_passes_is_noticed(index, change):
    selection = open_selection(index, "ngram.*")
    rows_of(selection)
    change(index.parent / SECOND)
    with pytest.raises((InputError, FileNotFoundError), match=rf"{SECOND}"):
        rows_of(selection)
