import hashlib
import io
import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from smallfry.errors import InputError
from smallfry.readers import open_vectors
from smallfry.readers.formats import shards
from tests.helpers.readers import read

MATRIX = np.arange(12, dtype=np.float32).reshape(4, 3) / 8
EMBEDDINGS = "model.embed_tokens.weight"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@pytest.fixture
def index(tmp_path):
    """Return the index of a model of two shards."""
    tensors = {
        FIRST: {EMBEDDINGS: MATRIX, "model.layers.0.up.weight": MATRIX + 1},
        SECOND: {"model.layers.1.up.weight": MATRIX + 2, "lm_head.weight": MATRIX + 3},
    }
    for shard, held in tensors.items():
        save_file(held, tmp_path / shard, {"format": "pt"})
    return write_index(tmp_path, {name: shard for shard, held in tensors.items() for name in held})


def write_index(folder, weight_map, name="model.safetensors.index.json"):
    path = folder / name
    path.write_text(json.dumps({"metadata": {"total_size": 192}, "weight_map": weight_map}, indent=2))
    return path


@pytest.mark.parametrize(
    ("tensor", "shard", "added"),
    [(None, FIRST, 0), ("embed_tokens", FIRST, 0), ("lm_head.weight", SECOND, 3)],
)
def test_tensor_is_read_from_its_shard(index, tensor, shard, added):
    source = open_vectors(index, tensor=tensor)
    (_, vectors), *_ = source.chunks()
    np.testing.assert_array_equal(vectors, MATRIX + added)
    assert (source.name, source.format) == (shard, "safetensors")
    assert source.sha256 == hashlib.sha256((index.parent / shard).read_bytes()).hexdigest()


def test_tensor_that_was_chosen_is_reported(index):
    assert read(index)[2].notes() == [f"tensor read: {EMBEDDINGS}"]


def test_index_is_recognised_by_its_content(index):
    renamed = index.rename(index.with_name("weights.json"))
    np.testing.assert_array_equal(read(renamed)[1], MATRIX)


def test_index_with_a_byte_order_mark(index):
    index.write_bytes(b"\xef\xbb\xbf" + index.read_bytes())
    np.testing.assert_array_equal(read(index)[1], MATRIX)


def test_only_the_shard_of_the_tensor_is_needed(index):
    (index.parent / SECOND).unlink()
    np.testing.assert_array_equal(read(index)[1], MATRIX)
    with pytest.raises(
        InputError, match=rf"{SECOND}, the shard of tensor lm_head\.weight, is missing in the folder of model"
    ):
        read(index, tensor="lm_head")


def test_shard_is_a_file_of_its_own(index):
    np.testing.assert_array_equal(read(index.parent / SECOND, tensor="lm_head")[1], MATRIX + 3)
    np.testing.assert_array_equal(read(index.parent / FIRST)[1], MATRIX)


def test_shards_of_a_pytorch_checkpoint_are_rejected(tmp_path):
    with pytest.raises(InputError, match=r"names the shard 'pytorch_model\.bin', .* as safetensors"):
        read(write_index(tmp_path, {EMBEDDINGS: "pytorch_model.bin"}))


def test_head_of_a_shard_is_not_taken_for_the_embeddings(tmp_path):
    save_file({"lm_head.weight": MATRIX}, tmp_path / SECOND)
    write_index(tmp_path, {EMBEDDINGS: FIRST, "lm_head.weight": SECOND})
    with pytest.raises(
        InputError, match=r"0 are named as token embeddings: lm_head\..* It is a shard: please read"
    ):
        read(tmp_path / SECOND)
    np.testing.assert_array_equal(read(tmp_path / SECOND, tensor="lm_head")[1], MATRIX)


@pytest.mark.parametrize("tensor", [None, "embed_tokens"])
def test_shard_without_the_tensor_names_its_index(index, tensor):
    with pytest.raises(InputError, match=r"It is a shard: please read model\.safetensors\.index\.json"):
        read(index.parent / SECOND, tensor=tensor)


@pytest.mark.parametrize("shard", ["../x.safetensors", "/etc/passwd", "a/b", "..", ".", "", "a\\b", "a\0b"])
def test_shard_outside_the_folder_is_rejected(tmp_path, shard):
    path = write_index(tmp_path, {EMBEDDINGS: shard})
    with pytest.raises(InputError, match=r"expected a \.safetensors file in its own folder"):
        read(path)


@pytest.mark.parametrize(
    "text",
    [
        '{"weight_map": {"a": "b"',
        '{"weight_map": ["a"]}',
        '{"weight_map": {"a": 1}}',
        '{"metadata": {}}',
        '{"weight_map": ' + "[" * 100_000,
        '{"weight_map": 1' + "0" * 5000 + "}",
        '{"weight_map": {"\\ud800": "\xff"',
    ],
)
def test_damaged_index_is_rejected(tmp_path, text):
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(text)
    with pytest.raises(
        InputError, match=r"is a damaged index of shards: .* Please download it again"
    ) as raised:
        read(path)
    assert len(str(raised.value)) <= 500


def test_index_that_is_too_long_is_rejected(index, monkeypatch):
    monkeypatch.setattr(shards, "MAX_INDEX", 100)
    with pytest.raises(InputError, match="it has more than 100 bytes"):
        read(index)


def test_empty_index_is_rejected(tmp_path):
    with pytest.raises(InputError, match=r"has 0 tensors to choose from, .* token embeddings: none"):
        read(write_index(tmp_path, {}))


def test_index_without_a_path_is_rejected(index):
    with pytest.raises(
        InputError, match=r"is an index of shards, which lie next to it\. Please pass its path"
    ):
        open_vectors(io.BytesIO(index.read_bytes()))


def test_tensor_that_the_shard_lacks_is_rejected(index):
    write_index(index.parent, {"other.weight": FIRST})
    with pytest.raises(InputError, match=rf"{FIRST} has no tensor 'other\.weight'"):
        read(index)


def test_scale_in_another_shard(tmp_path):
    quantized = np.arange(-6, 6, dtype=np.int8).reshape(4, 3)
    save_file({EMBEDDINGS: quantized}, tmp_path / FIRST)
    save_file({f"{EMBEDDINGS}_scale": np.array([1, 2, 3, 4], np.float32)}, tmp_path / SECOND)
    path = write_index(tmp_path, {EMBEDDINGS: FIRST, f"{EMBEDDINGS}_scale": SECOND})
    for given in (path, tmp_path / FIRST):
        np.testing.assert_array_equal(read(given)[1], quantized * np.float32([[1], [2], [3], [4]]))
    (tmp_path / SECOND).unlink()
    with pytest.raises(InputError, match=rf"{SECOND}, the shard of tensor {EMBEDDINGS}_scale, is missing"):
        read(path)


def test_glove_text_that_begins_with_a_brace_is_no_index(tmp_path):
    (tmp_path / "v.txt").write_text("{ 1 2\n} 3 4\n")
    assert read(tmp_path / "v.txt")[0] == ["{", "}"]
