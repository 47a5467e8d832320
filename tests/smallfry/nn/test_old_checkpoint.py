import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from smallfry.errors import InputError
from smallfry.nn import QuantEmbedding, QuantEmbeddingBag, checkpoint


def pack_words(codes, nbit):
    """Pack codes as HazyResearch/smallfry did: 64 / nbit in an int64, the first in the high bits."""
    each = 64 // nbit
    rows, dim = codes.shape
    words = torch.zeros(rows, -(-dim // each), dtype=torch.int64)
    for j in range(dim):
        words[:, j // each] |= codes[:, j] << (64 - nbit * (j % each + 1))
    return words


@settings(max_examples=60, deadline=None)
@given(nbit=st.sampled_from([1, 2, 4, 8, 16]), dim=st.integers(1, 100), data=st.data())
def test_words_hold_the_codes_they_were_packed_from(nbit, dim, data):
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**32)))
    codes = torch.randint(0, 2**nbit, (7, dim), generator=generator)
    values = torch.randn(2**nbit, generator=generator)
    module = QuantEmbedding(7, dim, nbit=nbit)
    module.load_state_dict({"weight": pack_words(codes, nbit), "value_list": values})
    assert torch.equal(module(torch.arange(7)), values[codes])


@pytest.mark.parametrize("kind", [QuantEmbedding, QuantEmbeddingBag])
@pytest.mark.parametrize("assign", [True, False])
def test_old_checkpoint_loads_in_a_model(kind, assign):
    codes, values = torch.randint(0, 4, (9, 5)), torch.tensor([-3.0, -1.0, 1.0, 3.0])
    model = torch.nn.Sequential(kind(9, 5, nbit=2, device="meta" if assign else "cpu"))
    model.load_state_dict({"0.weight": pack_words(codes, 2), "0.value_list": values}, assign=assign)
    assert torch.equal(model[0].weight, values[codes])


def test_short_value_list_is_enough_for_its_codes():
    codes, values = torch.randint(0, 3, (9, 5)), torch.tensor([-3.0, -1.0, 1.0])
    module = QuantEmbedding(9, 5, nbit=2)
    module.load_state_dict({"weight": pack_words(codes, 2), "value_list": values})
    assert torch.equal(module(torch.arange(9)), values[codes])


@pytest.mark.parametrize("nbit", [2, 32])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_float_weight_is_quantized_on_the_way_in(nbit, dtype):
    weight = torch.randn(9, 5).to(dtype)
    module = QuantEmbedding(9, 5, nbit=nbit)
    module.load_state_dict(torch.nn.Embedding(9, 5, _weight=weight).state_dict())
    expected = QuantEmbedding(9, 5, _weight=weight, nbit=nbit)
    assert module(torch.arange(9)).dtype == torch.float32
    assert torch.equal(module(torch.arange(9)).to(dtype), expected(torch.arange(9)))


@pytest.mark.parametrize(
    ("nbit", "entries", "words"),
    [
        (2, {"weight": torch.zeros(9, 1, dtype=torch.int64)}, "the value_list is absent"),
        (32, {"weight": torch.zeros(9, 1, dtype=torch.int64), "value_list": torch.zeros(4)}, "nbit is 32"),
        (2, {"weight": torch.zeros(9, 2, dtype=torch.int64), "value_list": torch.zeros(4)}, r"\[9, 2\]"),
        (2, {"weight": torch.zeros(8, 1, dtype=torch.int64), "value_list": torch.zeros(4)}, r"\[8, 2\]"),
        (2, {"weight": torch.zeros(9, 1, dtype=torch.int64), "value_list": torch.zeros(5)}, "1 to 4 values"),
        (2, {"weight": torch.zeros(9, 6)}, r"\[9, 6\], expected .* \[9, 5\]"),
        (2, {"weight": torch.full((9, 5), float("nan"))}, "row 0, column 0"),
    ],
)
def test_checkpoint_that_does_not_fit_is_rejected(nbit, entries, words):
    with pytest.raises(InputError, match=words):
        checkpoint.read(entries, 9, 5, nbit)
    with pytest.raises(RuntimeError, match=words):
        QuantEmbedding(9, 5, nbit=nbit).load_state_dict(entries)
