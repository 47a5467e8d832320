import copy
import io
import pickle

import pytest
import torch
from torch import nn

from smallfry.nn import QuantEmbedding, TiedLinear, checkpoint, quantize_embed


class Language(nn.Module):
    """A model whose head has the embedding's weight."""

    def __init__(self, tied=True):
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        self.head = nn.Linear(16, 50)
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, ids):
        return self.head(torch.tanh(self.embedding(ids)))


class HeadFirst(Language):
    """The same model with the head registered before the embedding."""

    def __init__(self):
        super().__init__()
        self.embedding = self._modules.pop("embedding")


@pytest.fixture(params=[Language, HeadFirst])
def model(request):
    return quantize_embed(request.param(), 4)


IDS = torch.arange(12).view(3, 4)


def test_embedding_is_no_submodule_of_the_head(model):
    assert model.head.embedding is model.embedding
    assert list(model.head.state_dict()) == ["bias"]
    assert set(model.state_dict()) == {"embedding.codes", "embedding.codebook", "head.bias"}
    assert {name for name, _ in model.named_modules()} == {"", "embedding", "head"}


def saved(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model)), saved],
    ids=["deepcopy", "pickle", "save"],
)
def test_copy_of_a_model_has_one_table(model, copied):
    other = copied(model)
    assert other.head.embedding is other.embedding is not model.embedding
    assert torch.equal(other(IDS), model(IDS))
    assert other.double().head(torch.ones(16, dtype=torch.float64)).dtype == torch.float64


def test_functional_call_replaces_the_table_of_the_head(model):
    state = {name: value.clone() for name, value in model.state_dict().items()}
    state["embedding.codebook"] *= 2
    expected = copy.deepcopy(model)
    expected.load_state_dict(state)
    assert torch.equal(torch.func.functional_call(model, state, (IDS,)), expected(IDS))


@pytest.mark.parametrize("strict", [True, False])
def test_model_exports(model, strict):
    program = torch.export.export(model, (IDS,), strict=strict)
    assert set(program.state_dict) == set(model.state_dict())
    torch.testing.assert_close(program.module()(IDS), model(IDS))


@pytest.mark.parametrize("strict", [True, False])
def test_head_without_its_model_exports(strict):
    head, states = TiedLinear(QuantEmbedding(50, 16, _weight=torch.randn(50, 16), nbit=4)), torch.randn(3, 16)
    program = torch.export.export(head, (states,), strict=strict)
    torch.testing.assert_close(program.module()(states), head(states))


def test_forward_hooks_of_the_embedding_do_not_apply_to_the_head(model):
    states = torch.randn(3, 16)
    expected = model.head(states)
    model.embedding.register_forward_hook(lambda module, args, rows: rows + 1)
    assert torch.equal(model.head(states), expected)


def test_replaced_forward_of_the_embedding_applies_to_the_head(model):
    states = torch.randn(3, 16)
    expected, forward, calls = model.head(states), model.embedding.forward, []
    model.embedding.forward = lambda *args, **kwargs: calls.append(args) or forward(*args, **kwargs)
    assert torch.equal(model.head(states), expected)
    assert len(calls) == 1


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("names", [["embedding"], ["head"], ["embedding", "head"]])
@pytest.mark.parametrize("kind", [Language, HeadFirst])
def test_weight_of_a_tied_float_checkpoint_is_quantized_once(monkeypatch, kind, names, assign):
    source, model = kind(), quantize_embed(kind(), 4)
    expected = quantize_embed(copy.deepcopy(source), 4)
    state = source.state_dict()
    for name in {"embedding", "head"} - set(names):
        del state[f"{name}.weight"]
    calls, quantize = [], checkpoint.quantize_tensor
    monkeypatch.setattr(checkpoint, "quantize_tensor", lambda *args: calls.append(args) or quantize(*args))
    model.load_state_dict(state, assign=assign)
    assert torch.equal(model(IDS), expected(IDS))
    assert len(calls) == 1


def test_weight_that_no_module_of_a_tied_checkpoint_has_is_missing(model):
    with pytest.raises(RuntimeError, match=r'Missing key\(s\).*"embedding.codes", "embedding.codebook"'):
        model.load_state_dict({"head.bias": torch.zeros(50)})


def test_each_load_reports_what_it_misses(model):
    model.load_state_dict(Language().state_dict())
    assert model.load_state_dict({}, strict=False).missing_keys == list(model.state_dict())


def test_weight_of_another_shape_names_the_head(model):
    with pytest.raises(
        RuntimeError, match=r"head: weight is torch.float32 \[49, 16\], expected .* \[50, 16\]"
    ):
        model.load_state_dict({"head.weight": torch.zeros(49, 16)}, strict=False)


def test_unknown_entry_of_a_head_is_unexpected(model):
    with pytest.raises(RuntimeError, match=r'Unexpected key\(s\) in state_dict: "head.scale"'):
        model.load_state_dict({**Language().state_dict(), "head.scale": torch.zeros(1)})


def test_untied_float_checkpoint_loads_into_an_untied_model():
    source = Language(tied=False)
    model = quantize_embed(Language(tied=False), 4)
    model.load_state_dict(source.state_dict())
    assert torch.equal(model(IDS), quantize_embed(source, 4)(IDS))


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("padded", [(True, False), (False, True)])
def test_optional_parts_are_those_of_the_checkpoint(padded, assign):
    source, model = (language(zero_row) for zero_row in padded)
    model.load_state_dict(source.state_dict(), assign=assign)
    assert torch.equal(model(IDS), source(IDS))
    assert (model.embedding.zero_rows is None) == (source.embedding.zero_rows is None)


def language(zero_row):
    model = Language()
    if zero_row:
        model.embedding.weight.data[3] = 0
        return quantize_embed(model, 4, center=True, row_scale=True)
    return quantize_embed(model, 4)
