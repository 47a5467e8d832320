import pytest
import torch
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import nn

from smallfry import quantize_embed

IDS = torch.arange(12).view(3, 4)


class Language(nn.Module):
    def __init__(self, tied=True, padding_idx=None):
        super().__init__()
        self.embedding = nn.Embedding(50, 16, padding_idx=padding_idx)
        self.head = nn.Linear(16, 50)
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, ids):
        return self.head(torch.tanh(self.embedding(ids)))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("saved", "loaded"), [(0, 0), (0, None), (None, 0)])
def test_model_is_the_same_after_save_model_and_load_model(tmp_path, tied, saved, loaded):
    # A row of zeros, which padding_idx makes, is an optional part of the table.
    source, other = (quantize_embed(Language(tied, padding), 4) for padding in (saved, loaded))
    save_model(source, str(tmp_path / "model.safetensors"))
    assert load_model(other, tmp_path / "model.safetensors") == (set(), [])
    assert torch.equal(other(IDS), source(IDS))


@pytest.mark.parametrize("name", ["embedding.weight", "head.weight"])
def test_tied_float_file_loads_under_either_name(tmp_path, name):
    source, other = Language(), quantize_embed(Language(), 4)
    state = {"head.bias": source.head.bias.data, name: source.embedding.weight.data}
    save_file(state, tmp_path / "model.safetensors")
    assert load_model(other, tmp_path / "model.safetensors") == (set(), [])
    assert torch.equal(other(IDS), quantize_embed(source, 4)(IDS))


def test_float_file_of_save_model_loads(tmp_path):
    source, other = Language(), quantize_embed(Language(), 4)
    save_model(source, str(tmp_path / "model.safetensors"))
    assert load_model(other, tmp_path / "model.safetensors") == (set(), [])
    assert torch.equal(other(IDS), quantize_embed(source, 4)(IDS))


def test_untied_float_file_loads(tmp_path):
    source, other = Language(tied=False), quantize_embed(Language(tied=False), 4)
    save_model(source, str(tmp_path / "model.safetensors"))
    assert load_model(other, tmp_path / "model.safetensors") == (set(), [])
    assert torch.equal(other(IDS), quantize_embed(source, 4)(IDS))


def test_state_dict_has_no_shared_memory(tmp_path):
    state = quantize_embed(Language(), 4).state_dict()
    save_file(state, tmp_path / "model.safetensors")
    assert load_file(tmp_path / "model.safetensors").keys() == state.keys()


def test_a_module_with_several_names_is_saved_once_and_loaded(tmp_path):
    def build():
        model = nn.ModuleDict({"a": nn.Embedding(50, 8), "b": nn.Linear(8, 50)})
        model["c"] = model["a"]
        model["b"].weight = model["a"].weight
        return quantize_embed(model, 4)

    model, loaded = build(), build()
    save_model(model, tmp_path / "model.safetensors")
    assert load_model(loaded, tmp_path / "model.safetensors") == (set(), [])
    assert torch.equal(loaded["c"].weight, model["c"].weight)
