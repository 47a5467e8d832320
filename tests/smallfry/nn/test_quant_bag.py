import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import nn

from smallfry.errors import InputError
from smallfry.nn import QuantEmbeddingBag
from smallfry.nn.kernels import operators, torch_impl
from smallfry.table import NBITS
from tests.helpers.tables import quantize_options

MODES = ("sum", "mean", "max")


def pair(nbit=4, rows=50, dim=19, **options):
    """Return a packed bag and torch's over the same values."""
    weight = torch.randn(rows, dim)
    ours = QuantEmbeddingBag(rows, dim, _weight=weight, nbit=nbit, **quantize_options(nbit), **options)
    return ours, nn.EmbeddingBag(rows, dim, _weight=ours.weight.clone(), **options)


@pytest.mark.parametrize("nbit", NBITS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_offsets_cut_ids_into_bags(nbit, mode, dtype):
    ours, theirs = pair(nbit, mode=mode)
    ids, offsets = torch.randint(0, 50, (30,), dtype=dtype), torch.tensor([0, 0, 7, 30], dtype=dtype)
    torch.testing.assert_close(ours(ids, offsets), theirs(ids, offsets))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ({}, [torch.randint(0, 50, (6, 5))]),
        ({"padding_idx": 3}, [torch.tensor([[3, 3, 3], [3, 1, 2], [4, 5, 6]])]),
        ({"include_last_offset": True}, [torch.randint(0, 50, (20,)), torch.tensor([0, 4, 4, 20])]),
    ],
    ids=["two-dimensional", "padding", "last offset"],
)
def test_bags_are_those_of_torch(mode, options, arguments):
    ours, theirs = pair(mode=mode, **options)
    torch.testing.assert_close(ours(*arguments), theirs(*arguments))


@pytest.mark.parametrize("shape", [(6, 5), (30,)])
def test_per_sample_weights_scale_rows(shape):
    ours, theirs = pair(mode="sum")
    ids, weights = torch.randint(0, 50, shape), torch.randn(shape)
    offsets = None if len(shape) == 2 else torch.tensor([0, 9])
    torch.testing.assert_close(ours(ids, offsets, weights), theirs(ids, offsets, weights))


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 9), max_size=8),
    mode=st.sampled_from(MODES),
    nbit=st.sampled_from(NBITS),
    padding=st.sampled_from([None, 0, -1]),
)
def test_plain_path_pools_as_the_kernel_does(sizes, mode, nbit, padding):
    ours, _ = pair(nbit, mode=mode, padding_idx=padding)
    ids = torch.randint(0, 50, (sum(sizes),))
    offsets = torch.tensor([0, *sizes], dtype=torch.int64).cumsum(0)
    arguments = ids, offsets, None, ours.packed, mode, -1 if padding is None else padding % 50, True
    torch.testing.assert_close(torch_impl.bag(*arguments), operators.bag(*arguments))


def test_plain_path_pools_over_several_chunks(monkeypatch):
    monkeypatch.setattr(torch_impl, "_CHUNK_VALUES", 19 * 4)
    ours, theirs = pair(mode="mean")
    ids, offsets = torch.randint(0, 50, (30,)), torch.tensor([0, 13])
    torch.testing.assert_close(
        torch_impl.bag(ids, offsets, None, ours.packed, "mean", -1, False), theirs(ids, offsets)
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("nbit", [4, 32])
def test_bags_have_the_dtype_of_the_table(nbit, dtype):
    ours, theirs = pair(nbit, mode="sum", padding_idx=3)
    ours, theirs = ours.to(dtype), theirs.to(dtype)
    ids, weights = torch.tensor([[3, 1, 2], [4, 5, 49]]), torch.rand(2, 3)
    pooled = ours(ids, None, weights)
    assert pooled.dtype == dtype
    torch.testing.assert_close(pooled, theirs(ids, None, weights.to(dtype)), atol=0.05, rtol=0)


@pytest.mark.parametrize("nbit", [4, 32])
def test_ids_after_the_last_offset_are_in_no_bag(nbit):
    ours, _ = pair(nbit, mode="sum", include_last_offset=True)
    ids, weights = torch.tensor([1, 2, 3, 99]), torch.rand(4)
    pooled = ours(ids, torch.tensor([0, 1, 3]), weights)
    assert torch.equal(pooled, ours(ids[:3], torch.tensor([0, 1, 3]), weights[:3]))


@pytest.mark.parametrize("nbit", [4, 32])
def test_ids_and_weights_need_not_be_contiguous(nbit):
    ours, theirs = pair(nbit, mode="sum")
    ids, weights = torch.randint(0, 50, (5, 6)).T, torch.rand(5, 6).T
    torch.testing.assert_close(ours(ids, None, weights), theirs(ids, None, weights))
    offsets = torch.tensor([0, 1, 3, 5])[::2]
    torch.testing.assert_close(ours(ids[:, 0], offsets), theirs(ids[:, 0], offsets))


def test_no_bags_give_no_rows():
    ours, _ = pair()
    none = torch.zeros(0, dtype=torch.int64)
    assert ours(none, none).shape == (0, 19)
    assert ours(none.reshape(0, 4)).shape == (0, 19)


def test_half_bag_sums_in_float32():
    ours, _ = pair(mode="sum")
    ids = torch.zeros(1, 4096, dtype=torch.int64)
    expected = ours(ids).half()
    assert torch.equal(ours.half()(ids), expected.to(torch.float16))


@pytest.mark.parametrize("nbit", [4, 32])
@pytest.mark.parametrize("bad", [-1, 50])
def test_id_out_of_range_is_an_index_error(nbit, bad):
    ours, _ = pair(nbit)
    with pytest.raises(IndexError, match="out of range"):
        ours(torch.tensor([[0, bad]]))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((torch.zeros(2, 2, dtype=torch.int64), torch.tensor([0])), "offsets go with one-dimensional"),
        ((torch.zeros(2, dtype=torch.int64),), "needs one-dimensional offsets"),
        ((torch.zeros(1, 1, 1, dtype=torch.int64),), "expected 1 or 2"),
        (
            (torch.zeros(2, dtype=torch.int64), torch.tensor([1])),
            r"offsets\[0\] is 1, but",
        ),
        (
            (torch.zeros(2, dtype=torch.int64), torch.tensor([0, 3])),
            r"\[1\] is 3, but .* exceed the 2 ids",
        ),
        ((torch.zeros(2, 2, dtype=torch.int64), None, torch.ones(2)), "give one for each id"),
    ],
)
def test_input_that_is_no_bags_is_rejected(arguments, words):
    ours, _ = pair(mode="sum")
    with pytest.raises(ValueError, match=words):
        ours(*arguments)


def test_per_sample_weights_go_with_sums_only():
    ours, _ = pair(mode="mean")
    with pytest.raises(ValueError, match="mode 'sum', not 'mean'"):
        ours(torch.zeros(2, 2, dtype=torch.int64), None, torch.ones(2, 2))


def test_gradient_of_per_sample_weights_is_rejected():
    ours, _ = pair(mode="sum")
    weights = torch.ones(2, 2, requires_grad=True)
    with pytest.raises(NotImplementedError, match="per_sample_weights require a gradient"):
        ours(torch.zeros(2, 2, dtype=torch.int64), None, weights)
    with torch.no_grad():
        assert ours(torch.zeros(2, 2, dtype=torch.int64), None, weights).shape == (2, 19)


def test_unknown_mode_is_rejected():
    with pytest.raises(InputError, match="mode is 'min', expected 'sum', 'mean' or 'max'"):
        QuantEmbeddingBag(5, 3, mode="min")


# torch scripts its forward derivatives when the first one is computed.
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_derivatives_of_weights_are_rejected():
    (bag, _), ids, weights = pair(mode="sum"), torch.arange(4).view(2, 2), torch.ones(2, 2)
    for derive in (
        lambda pool: torch.func.grad(pool)(weights),
        lambda pool: torch.func.jvp(pool, (weights,), (weights,)),
    ):
        with pytest.raises(NotImplementedError, match="per_sample_weights require a gradient"):
            derive(lambda weights: bag(ids, None, weights).sum())
