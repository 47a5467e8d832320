import json
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from smallfry import store
from smallfry.errors import InputError
from smallfry.nn import QuantEmbedding, QuantEmbeddingBag


@pytest.fixture
def module():
    return QuantEmbedding(30, 11, padding_idx=2, _weight=torch.randn(30, 11).bfloat16(), nbit=4)


def test_saved_folder_loads_as_it_was(module, tmp_path):
    module.save_pretrained(tmp_path / "saved")
    loaded = QuantEmbedding.from_pretrained(tmp_path / "saved")
    assert loaded.mapped
    assert (loaded.padding_idx, loaded.nbit, loaded.packed.dtype) == (2, 4, torch.bfloat16)
    assert torch.equal(loaded.weight, module.weight)


def test_options_of_the_call_win_over_those_saved(module, tmp_path):
    module.save_pretrained(tmp_path)
    assert QuantEmbedding.from_pretrained(str(tmp_path), padding_idx=None).padding_idx is None


def test_embedding_keeps_its_scale(tmp_path):
    scaled = QuantEmbedding(30, 11, _weight=torch.randn(30, 11), nbit=2, embed_scale=3.3, round_scale=True)
    scaled.save_pretrained(tmp_path)
    loaded = QuantEmbedding.from_pretrained(tmp_path)
    assert (loaded.embed_scale, loaded.round_scale) == (3.3, True)
    assert torch.equal(loaded(torch.arange(30)), scaled(torch.arange(30)))


def test_bag_keeps_its_mode(tmp_path):
    bag = QuantEmbeddingBag(30, 11, mode="max", _weight=torch.randn(30, 11), nbit=2)
    bag.save_pretrained(tmp_path)
    assert QuantEmbeddingBag.from_pretrained(tmp_path).mode == "max"


def test_saved_weights_are_safetensors_and_a_table_with_tokens(module, tmp_path):
    module.save_pretrained(tmp_path, tokens=[f"w{row}" for row in range(30)])
    state = safetensors.torch.load_file(tmp_path / "model.safetensors")
    assert torch.equal(state["codes"], module.codes)
    assert store.open(tmp_path / "model.safetensors").find(["w7"]) == [7]


def test_configuration_describes_the_module(module, tmp_path):
    module.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()) == {
        "library_name": "smallfry",
        "architectures": ["QuantEmbedding"],
        "num_embeddings": 30,
        "embedding_dim": 11,
        "nbit": 4,
        "dtype": "bfloat16",
        "padding_idx": 2,
        "embed_scale": None,
        "round_scale": False,
    }


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("{", "is not valid JSON"),
        ('{"library_name": "other"}', "does not describe a packed embedding"),
        ("[]", "does not describe a packed embedding"),
        ('{"library_name": "smallfry", "dtype": "nn"}', "names the dtype 'nn'"),
        ('{"library_name": "smallfry", "dtype": "int8"}', "names the dtype 'int8'"),
        ('{"library_name": "smallfry", "padding_idx": "2"}', "padding_idx '2', expected int or null"),
        ('{"library_name": "smallfry", "round_scale": 1}', "round_scale 1, expected bool"),
        ('{"library_name": "smallfry"}' + " " * (1 << 20), "bytes, expected at most"),
        ("[" * 100_000, "is not valid JSON"),
    ],
)
def test_configuration_of_something_else_is_rejected(module, tmp_path, config, words):
    module.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(InputError, match=words):
        QuantEmbedding.from_pretrained(tmp_path)


def test_repository_is_fetched_by_name(module, tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    module.save_pretrained(tmp_path)
    downloads = []

    def download(repo_id, filename, **options):
        downloads.append((repo_id, filename, options))
        return str(tmp_path / filename)

    monkeypatch.setattr(hub, "hf_hub_download", download)
    loaded = QuantEmbedding.from_pretrained("someone/vectors", revision="v1", token="secret")
    options = {"revision": "v1", "cache_dir": None, "token": "secret"}
    assert downloads == [("someone/vectors", name, options) for name in ("config.json", "model.safetensors")]
    assert torch.equal(loaded.weight, module.weight)


def test_what_is_saved_is_pushed(module, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    made, pushed = [], {}

    def create(self, repo_id, **options):
        made.append((repo_id, options))

    def upload(self, *, repo_id, folder_path, revision, commit_message):
        pushed.update({path.name: path.read_bytes() for path in Path(folder_path).iterdir()}, to=repo_id)

    monkeypatch.setattr(hub.HfApi, "create_repo", create)
    monkeypatch.setattr(hub.HfApi, "upload_folder", upload)
    module.push_to_hub("someone/vectors", private=True)
    assert made == [("someone/vectors", {"private": True, "exist_ok": True})]
    assert pushed.keys() == {"config.json", "model.safetensors", "to"}
    assert torch.equal(safetensors.torch.load(pushed["model.safetensors"])["codes"], module.codes)


def test_folder_needs_no_hub(module, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    module.save_pretrained(tmp_path)
    QuantEmbedding.from_pretrained(tmp_path)
    with pytest.raises(ImportError, match=r"pip install 'smallfry\[hub\]'"):
        QuantEmbedding.from_pretrained("someone/vectors")
