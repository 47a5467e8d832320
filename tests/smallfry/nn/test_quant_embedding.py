import inspect

import numpy as np
import pytest
import torch
import torch._dynamo.testing
from torch import nn

from smallfry.errors import InputError, NonFiniteError
from smallfry.nn import QuantEmbedding, QuantEmbeddingBag, TiedLinear
from smallfry.table import NBITS
from tests.helpers.tables import quantize_options


def embedding(nbit=4, rows=30, dim=11, **options):
    weight = torch.randn(rows, dim, generator=torch.Generator().manual_seed(0))
    weight[3] = 0
    return QuantEmbedding(rows, dim, _weight=weight, nbit=nbit, **quantize_options(nbit), **options)


@pytest.mark.parametrize("nbit", [1, 2, 4, 8, 16, 32])
def test_matrix_of_few_values_is_held_as_it_is(nbit):
    values = torch.randn(2 ** min(nbit, 8))
    weight = values[torch.randint(len(values), (40, 9))]
    module = QuantEmbedding(40, 9, _weight=weight, nbit=nbit)
    assert torch.equal(module(torch.arange(40)), weight)
    assert module.frobenius_error == 0


@pytest.mark.parametrize("nbit", NBITS)
def test_zero_rows_are_exact_zeros(nbit):
    module = embedding(nbit, padding_idx=3)
    rows = module(torch.tensor([3, 0]))
    assert not rows[0].any()
    assert rows[1].any()


@pytest.mark.parametrize(("padding", "normal"), [(None, None), (0, 0), (-1, 29)])
def test_padding_index_counts_from_either_end(padding, normal):
    assert embedding(padding_idx=padding).padding_idx == normal


def test_padding_index_outside_the_table_is_rejected():
    with pytest.raises(InputError, match="padding_idx is 30, expected a row of the 30"):
        embedding(padding_idx=30)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("nbit", NBITS)
def test_weight_of_any_floating_dtype_returns_rows_of_that_dtype(nbit, dtype):
    weight = torch.randn(30, 11).to(dtype)
    module = QuantEmbedding(30, 11, _weight=weight, nbit=nbit, **quantize_options(nbit))
    rows = module(torch.arange(30))
    assert rows.dtype == dtype
    single = QuantEmbedding(30, 11, _weight=weight.float(), nbit=nbit, **quantize_options(nbit))
    expected = single(torch.arange(30)).to(dtype)
    assert torch.equal(rows, expected)


def test_weight_may_be_a_parameter_or_a_strided_view():
    weight = torch.randn(11, 30).T
    expected = QuantEmbedding(30, 11, _weight=weight.contiguous(), nbit=4)
    for form in (weight, nn.Parameter(weight)):
        module = QuantEmbedding(30, 11, _weight=form, nbit=4)
        assert torch.equal(module.weight.clone(), expected.weight.clone())


@pytest.mark.parametrize("nbit", [4, 32])
def test_table_does_not_follow_the_weight_it_was_made_from(nbit):
    weight = torch.randn(30, 11)
    module = QuantEmbedding(30, 11, _weight=weight, nbit=nbit, **quantize_options(nbit))
    before = module.weight.clone()
    weight.zero_()
    assert torch.equal(module.weight, before)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_norm": 1.0}, "max_norm rescales rows"),
        ({"nbit": 5}, "nbit is 5, expected one of 1, 2, 3, 4, 8, 16, 32"),
        ({"nbit": 4.0, "_weight": torch.zeros(4, 6)}, "nbit is 4.0, expected one of 1, 2, 3, 4, 8, 16, 32"),
        ({"dtype": torch.int8}, r"dtype is torch\.int8, but the output of a packed module is floating"),
        ({"_weight": np.zeros((4, 6), np.float32)}, "is a ndarray, expected a tensor. .* torch.as_tensor"),
        ({"_weight": torch.zeros(4, 5)}, r"shape \[4, 5\], expected .* \[4, 6\]"),
        ({"_weight": torch.zeros(4, 6, dtype=torch.complex64)}, r"torch\.complex64 \[4, 6\], expected real"),
        ({"_weight": torch.zeros(4, 6), "embedding_file": "x"}, "please give one of them"),
    ],
)
def test_what_a_packed_table_cannot_have_is_rejected(options, words):
    with pytest.raises(InputError, match=words):
        QuantEmbedding(4, 6, **options)


@pytest.mark.parametrize("kind", [QuantEmbedding, QuantEmbeddingBag])
def test_options_of_the_gradient_are_attributes_without_effect(kind):
    options = {"norm_type": 1.0, "scale_grad_by_freq": True, "sparse": True}
    weight = torch.randn(4, 6)
    ids = torch.tensor([[0, 3]])
    packed = kind(4, 6, _weight=weight, nbit=4, **options)
    assert {name: getattr(packed, name) for name in options} == options
    assert torch.equal(packed(ids), kind(4, 6, _weight=weight, nbit=4)(ids))
    again = kind.from_float(kind.FLOAT(4, 6, _weight=weight, **options), nbit=4)
    assert {name: getattr(again, name) for name in options} == options


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("round_scale", [False, True])
def test_scale_multiplies_rows_but_not_the_weight(dtype, round_scale):
    options = {"embed_scale": 1.1, "round_scale": round_scale}
    packed = QuantEmbedding(99, 6, _weight=torch.randn(99, 6), nbit=4, **options).to(dtype)
    factor = torch.tensor(1.1, dtype=dtype) if round_scale else 1.1
    ids = torch.arange(99)
    assert torch.equal(packed(ids), packed.weight[ids] * factor)
    states = torch.randn(3, 6, dtype=dtype)
    torch.testing.assert_close(TiedLinear(packed)(states), states @ packed.weight[ids].T)


def test_embedding_that_does_more_than_look_up_is_rejected():
    hooked = nn.Embedding(4, 6)
    hooked.register_forward_hook(lambda module, ids, rows: rows * 2)
    with pytest.raises(InputError, match="Embedding has forward hooks, which a packed module would not run"):
        QuantEmbedding.from_float(hooked, nbit=4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_weight_that_is_not_finite_is_rejected_by_row_and_column(dtype):
    weight = torch.zeros(4, 6, dtype=dtype)
    weight[2, 5] = float("nan")
    with pytest.raises(NonFiniteError, match="row 2, column 5"):
        QuantEmbedding(4, 6, _weight=weight, nbit=2)


def test_module_without_vectors_returns_zeros():
    module = QuantEmbedding(4, 6, nbit=2, dtype=torch.bfloat16)
    rows = module(torch.arange(4))
    assert rows.dtype == torch.bfloat16
    assert not rows.any()


def test_attributes_are_those_of_torch():
    ours, theirs = embedding(padding_idx=1), nn.Embedding(30, 11, padding_idx=1)
    names = (
        "num_embeddings",
        "embedding_dim",
        "padding_idx",
        "max_norm",
        "norm_type",
        "scale_grad_by_freq",
        "sparse",
    )
    assert {name: getattr(ours, name) for name in names} == {name: getattr(theirs, name) for name in names}


def test_representation_shows_bits_and_bytes():
    module = embedding(2, padding_idx=1)
    assert repr(module) == f"QuantEmbedding(30, 11, nbit=2, padding_idx=1, bytes={30 * 3 + 4 * 4 + 8})"


def test_table_is_no_parameter():
    module = embedding()
    assert list(module.parameters()) == []
    assert {name for name, _ in module.named_buffers()} == {"codes", "codebook", "zero_rows"}
    assert not module(torch.tensor([0])).requires_grad


def test_from_float_keeps_options_dtype_and_training():
    source = nn.Embedding(30, 11, padding_idx=2).to(torch.bfloat16).eval()
    module = QuantEmbedding.from_float(source, 8)
    assert (module.padding_idx, module.packed.dtype, module.training) == (2, torch.bfloat16, False)
    torch.testing.assert_close(module(torch.arange(30)), source(torch.arange(30)), atol=0.02, rtol=0.02)


def test_from_float_rejects_another_kind():
    with pytest.raises(InputError, match="QuantEmbedding replaces Embedding, not EmbeddingBag"):
        QuantEmbedding.from_float(nn.EmbeddingBag(3, 2), 2)


def test_from_pretrained_takes_a_matrix_as_torch_does():
    weight = torch.randn(30, 11)
    module = QuantEmbedding.from_pretrained(weight, nbit=4, padding_idx=0)
    assert module.padding_idx == 0
    assert torch.equal(module.weight.clone(), QuantEmbedding(30, 11, _weight=weight, nbit=4).weight.clone())
    with pytest.raises(InputError, match="freeze=False requests training"):
        QuantEmbedding.from_pretrained(weight, freeze=False)


@pytest.mark.parametrize("nbit", NBITS)
def test_compiles_to_one_graph(nbit):
    module, ids = embedding(nbit), torch.randint(0, 30, (4, 5))
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(ids), module(ids))


def test_compiled_for_changing_shapes_it_is_compiled_once():
    module = embedding()
    counted = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(module, fullgraph=True, backend=counted, dynamic=True)
    for size in (3, 4, 9):
        assert torch.equal(compiled(torch.arange(size)), module(torch.arange(size)))
    assert counted.frame_count == 1


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("nbit", [2, 16, 32])
def test_exports_with_a_free_batch_size(nbit, strict):
    module = embedding(nbit)
    batch = torch.export.Dim("batch")
    program = torch.export.export(
        module, (torch.arange(6).reshape(3, 2),), dynamic_shapes=({0: batch},), strict=strict
    )
    ids = torch.randint(0, 30, (7, 2))
    assert torch.equal(program.module()(ids), module(ids))


@pytest.mark.parametrize("ids", [[1, 2], np.array([1, 2]), 1, None], ids=lambda ids: type(ids).__name__)
def test_ids_that_are_no_tensor_are_rejected(ids):
    with pytest.raises(TypeError, match=f"the input is a {type(ids).__name__}, expected a tensor"):
        embedding()(ids)


def test_bits_may_be_counted_by_numpy():
    assert type(embedding(np.int64(4)).nbit) is int


def test_matrix_to_be_pretrained_from_has_rows_and_columns():
    with pytest.raises(InputError, match=r"shape \[6\], expected \[rows, dim\]"):
        QuantEmbedding.from_pretrained(torch.zeros(6), nbit=2)


@pytest.mark.parametrize(
    ("ours", "theirs"), [(QuantEmbedding, nn.Embedding), (QuantEmbeddingBag, nn.EmbeddingBag)]
)
def test_arguments_have_the_names_and_positions_of_torch(ours, theirs):
    positional = [
        name
        for name, parameter in inspect.signature(ours.__init__).parameters.items()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    assert positional == list(inspect.signature(theirs.__init__).parameters)
    matrix, bags = torch.randn(4, 6), torch.tensor([[1, 2], [3, 3]])
    names = inspect.signature(theirs.from_pretrained).parameters
    options = {"padding_idx": 1, "mode": "sum", "include_last_offset": False}
    values = [options.get(name, parameter.default) for name, parameter in names.items()][1:]
    expected = theirs.from_pretrained(matrix, *values)
    for module in (
        ours.from_pretrained(matrix, *values),
        ours.from_pretrained(embeddings=matrix, padding_idx=1),
    ):
        assert module.padding_idx == expected.padding_idx == 1
    assert torch.equal(ours.from_pretrained(matrix, *values)(bags), expected(bags))
    with pytest.raises(TypeError, match="positional arguments, expected at most"):
        ours.from_pretrained(matrix, *values, True)
    with pytest.raises(InputError, match="freeze=False requests training"):
        ours.from_pretrained(matrix, False)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int16, torch.uint8, torch.bool])
def test_a_matrix_of_integers_gives_a_table_of_floats(dtype):
    matrix = torch.arange(-10, 14).reshape(4, 6).to(dtype)
    module = QuantEmbedding.from_pretrained(matrix)
    assert module.weight.dtype == torch.get_default_dtype()
    assert torch.equal(module.weight, matrix.to(torch.float32))
    assert torch.equal(QuantEmbedding.from_pretrained(matrix, nbit=8).weight, matrix.to(torch.float32))
    half = QuantEmbedding.from_pretrained(matrix, nbit=4, dtype=torch.float16)
    assert half(torch.tensor([1])).dtype == torch.float16


@pytest.mark.parametrize("nbit", NBITS)
def test_an_empty_table_works_as_in_torch(nbit):
    matrix, no_ids = torch.empty(0, 6), torch.empty(2, 0, dtype=torch.int64)
    module = QuantEmbedding.from_pretrained(matrix, nbit=nbit, **quantize_options(nbit))
    assert module(no_ids).shape == nn.Embedding.from_pretrained(matrix)(no_ids).shape == (2, 0, 6)
    assert module.weight.shape == module.weight.clone().shape == (0, 6)
    assert torch.equal(QuantEmbeddingBag(0, 6, nbit=nbit)(no_ids), torch.zeros(2, 6))
    module.load_state_dict({"weight": matrix})
    QuantEmbedding(0, 6, nbit=nbit).load_state_dict(module.state_dict())
    with pytest.raises((IndexError, RuntimeError), match=r"out of range|should be positive"):
        module(torch.tensor([0]))


@pytest.mark.parametrize("nbit", [4, 32])
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage")
def test_nested_ids_give_nested_rows(nbit, layout):
    module = embedding(nbit)
    ids = torch.nested.nested_tensor([torch.tensor([1, 2]), torch.tensor([3, 4, 29])], layout=layout)
    expected = nn.Embedding.from_pretrained(module.weight.clone())(ids)
    for rows in (module(ids), nn.functional.embedding(ids, module.weight)):
        assert rows.layout == layout
        for part, expected_part in zip(rows.unbind(), expected.unbind(), strict=True):
            assert torch.equal(part, expected_part)
    if layout == torch.jagged:
        assert (module(ids) + expected).shape == expected.shape
        compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
        assert torch.equal(compiled(ids).values(), expected.values())


def test_nested_ids_are_bags():
    module = QuantEmbeddingBag(30, 11, _weight=torch.randn(30, 11), nbit=4)
    ids = torch.nested.nested_tensor([torch.tensor([1, 2]), torch.tensor([3, 4, 29])], layout=torch.jagged)
    expected = nn.EmbeddingBag.from_pretrained(module.weight.clone())(ids)
    torch.testing.assert_close(module(ids), expected)


def test_it_is_not_an_instance_of_nn_embedding():
    assert not isinstance(embedding(), nn.Embedding)
    assert not isinstance(QuantEmbeddingBag(30, 11), nn.EmbeddingBag)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torch_quantization_skips_it():
    config = torch.ao.quantization.float_qparams_weight_only_qconfig
    model = nn.Sequential(embedding())
    quantized = torch.ao.quantization.quantize_dynamic(model, {nn.Embedding: config, QuantEmbedding: config})
    assert type(quantized[0]) is QuantEmbedding
    model.qconfig = config
    torch.ao.quantization.prepare(model, inplace=True)
    torch.ao.quantization.convert(model, inplace=True)
    assert type(model[0]) is QuantEmbedding
    assert torch.equal(model(torch.tensor([1])), embedding()(torch.tensor([1])))
