import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from smallfry.nn import QuantEmbedding, QuantEmbeddingBag
from smallfry.nn.kernels import operators
from smallfry.table import NBITS


@pytest.fixture(params=NBITS)
def module(request):
    return QuantEmbedding(30, 11, _weight=torch.randn(30, 11), nbit=request.param)


@pytest.fixture
def decoded_rows(monkeypatch):
    """Return a list that grows by the number of rows of each decoding."""
    counts = []

    def counting(ids, packed, decode=operators.decode):
        counts.append(ids.numel())
        return decode(ids, packed)

    monkeypatch.setattr(operators, "decode", counting)
    return counts


def test_shape_dtype_and_device_decode_nothing(decoded_rows):
    weight = QuantEmbedding(30, 11, nbit=2, dtype=torch.float16).weight
    assert (weight.shape, weight.dtype, weight.device) == ((30, 11), torch.float16, torch.device("cpu"))
    assert (weight.numel(), weight.element_size(), weight.requires_grad) == (330, 2, False)
    assert decoded_rows == []


def test_device_follows_the_module():
    assert QuantEmbedding(30, 11, nbit=2, device="meta").weight.device.type == "meta"


def test_values_are_those_of_the_module(module):
    expected = module(torch.arange(30))
    assert torch.equal(module.weight, expected)
    assert type(module.weight.clone()) is torch.Tensor
    assert np.array_equal(module.weight.numpy(), expected.numpy())
    assert np.array_equal(np.asarray(module.weight), expected.numpy())
    assert module.weight.tolist() == expected.tolist()
    assert repr(module.weight) == repr(expected)


@pytest.mark.parametrize(
    ("pick", "rows"),
    [
        (lambda w: w[3], 1),
        (lambda w: w[-1], 1),
        (lambda w: w[4:20:3], 6),
        (lambda w: w[torch.tensor([[1, -2], [3, 4]])], 4),
        (lambda w: w[torch.arange(30) > 27], 2),
        (lambda w: w.index_select(0, torch.tensor([5, 5])), 2),
        (lambda w: nn.functional.embedding(torch.tensor([[1, 2]]), w), 2),
        (lambda w: w[torch.tensor([1, 2]), torch.tensor([3, 4])], 30),
        (lambda w: w[:, 2], 30),
    ],
)
def test_picking_rows_decodes_no_others(module, pick, rows, decoded_rows):
    expected = pick(module.weight.clone())
    decoded_rows.clear()
    assert torch.equal(pick(module.weight), expected)
    assert decoded_rows[-1] == rows


def test_gradient_passes_through_a_product_with_the_weight(module):
    ours, theirs = (torch.ones(2, 11, requires_grad=True) for _ in range(2))
    nn.functional.linear(ours, module.weight).sum().backward()
    nn.functional.linear(theirs, module.weight.clone()).sum().backward()
    assert torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize(
    "write",
    [
        lambda w: w.zero_(),
        lambda w: w.copy_(torch.zeros(30, 11)),
        lambda w: w.data.normal_(),
        lambda w: w.detach().fill_(1),
        lambda w: w.__setitem__(0, 1.0),
        lambda w: setattr(w, "data", torch.zeros(30, 11)),
        lambda w: nn.init.xavier_uniform_(w),
        lambda w: torch.add(torch.zeros(30, 11), 1, out=w),
    ],
)
def test_writing_to_it_raises_and_says_why(module, write):
    before = module.weight.clone()
    with pytest.raises(RuntimeError, match=r"cannot be written to.*from_pretrained"):
        write(module.weight)
    assert torch.equal(module.weight, before)


@pytest.mark.parametrize("value", [torch.zeros(30, 11), nn.Parameter(torch.zeros(30, 11)), None])
@pytest.mark.parametrize("kind", [QuantEmbedding, QuantEmbeddingBag])
def test_setting_it_raises_and_says_why(kind, value):
    module = kind(30, 11, nbit=2)
    with pytest.raises(AttributeError, match="cannot be written to"):
        module.weight = value
    assert list(module.parameters()) == []


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda w: pickle.loads(pickle.dumps(w))])
def test_copies_are_ordinary_tensors(module, twin):
    made = twin(module.weight)
    assert type(made) is torch.Tensor
    assert torch.equal(made, module.weight)


def test_reading_it_compiles(module):
    compiled = torch.compile(lambda x: x @ module.weight.T, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 11)
    assert torch.equal(compiled(x), x @ module.weight.clone().T)
