"""Packed modules under the tools that torch has for any module."""

import io

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.utils.flop_counter import FlopCounterMode

from smallfry.nn import QuantEmbedding, QuantEmbeddingBag, TiedLinear, quantize_embed


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(50, 16)
        self.bags = nn.EmbeddingBag(50, 16)
        self.middle = nn.Linear(16, 16)
        self.head = nn.Linear(16, 50)
        self.head.weight = self.words.weight

    def forward(self, ids):
        return self.head(self.middle(self.words(ids) + self.bags(ids).unsqueeze(1)))


@pytest.fixture
def model():
    return quantize_embed(Model(), nbit=4).eval()


IDS = torch.arange(12).view(3, 4)
OTHER_IDS = torch.arange(20, 50).view(5, 6)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_traced_model_takes_other_sizes_and_is_saved(model):
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(model, (IDS,)), file)
    file.seek(0)
    assert torch.equal(torch.jit.load(file)(OTHER_IDS), model(OTHER_IDS))


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_scripting_raises(model):
    for module, name in ((model, "QuantEmbedding"), (model.head, "TiedLinear")):
        with pytest.raises(NotImplementedError, match=f"cannot compile {name}.*torch.jit.trace"):
            torch.jit.script(module)


# torch 2.11 warns of the bytes that it has read itself.
@pytest.mark.filterwarnings("ignore:The given buffer is not writable:UserWarning")
def test_saved_program_takes_other_sizes(model):
    sizes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    file = io.BytesIO()
    torch.export.save(torch.export.export(model, (IDS,), dynamic_shapes=(sizes,)), file)
    file.seek(0)
    assert torch.equal(torch.export.load(file).module()(OTHER_IDS), model(OTHER_IDS))


def test_operations_of_a_tied_head_are_counted(model):
    frozen = Model()
    frozen.words.requires_grad_(False)
    frozen.bags.requires_grad_(False)
    counts = []
    for each in (frozen, model):
        with FlopCounterMode(display=False) as counter:
            each(IDS).sum().backward()
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1]


@pytest.mark.filterwarnings("ignore:.*quantization:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*quantize:UserWarning")
def test_dynamic_quantization_leaves_packed_modules(model):
    other = torch.ao.quantization.quantize_dynamic(model, {nn.Linear, nn.Embedding, nn.EmbeddingBag})
    kinds = [type(module) for module in (other.words, other.bags, other.head)]
    assert kinds == [QuantEmbedding, QuantEmbeddingBag, TiedLinear]
    assert type(other.middle) is not nn.Linear
    torch.testing.assert_close(other(IDS), model(IDS), atol=0.3, rtol=0.1)


@pytest.mark.parametrize("name", ["words", "head"])
@pytest.mark.parametrize(
    "change",
    [
        lambda module: parametrize.register_parametrization(module, "weight", nn.Identity()),
        lambda module: prune.l1_unstructured(module, "weight", 0.5),
        lambda module: parametrizations.weight_norm(module, "weight"),
        lambda module: parametrizations.spectral_norm(module, "weight"),
    ],
    ids=["parametrization", "pruning", "weight norm", "spectral norm"],
)
def test_change_of_the_weight_raises_and_leaves_the_module(model, name, change):
    expected = model(IDS)
    with pytest.raises((ValueError, TypeError), match="weight"):
        change(model.get_submodule(name))
    assert torch.equal(model(IDS), expected)


def test_model_trains_with_clipped_gradients(model):
    optimizer = torch.optim.AdamW(model.parameters())
    table = model.words.weight.clone()
    for _ in range(2):
        optimizer.zero_grad()
        model(IDS).square().mean().backward()
        assert nn.utils.clip_grad_norm_(model.parameters(), 1.0, error_if_nonfinite=True) > 0
        optimizer.step()
    assert torch.equal(model.words.weight, table)


def test_model_runs_in_data_parallel_on_cpu(model):
    assert torch.equal(nn.DataParallel(model)(IDS), model(IDS))
