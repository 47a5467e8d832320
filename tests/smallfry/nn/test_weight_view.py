import copy
import io
import multiprocessing
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.backends.common import aot_autograd
from torch.nn import functional
from torch.utils import dlpack

from smallfry.nn import QuantEmbedding, QuantEmbeddingBag
from smallfry.nn.kernels import operators, products
from smallfry.table import NBITS
from tests.helpers.tables import quantize_options

assert_close = partial(torch.testing.assert_close, rtol=0, atol=1e-5)


@pytest.fixture(params=NBITS)
def module(request):
    return QuantEmbedding(
        30, 11, _weight=torch.randn(30, 11), nbit=request.param, **quantize_options(request.param)
    )


@pytest.fixture
def decoded_rows(monkeypatch):
    """Return a list that grows by the number of rows of each decoding."""
    counts = []

    def counting(ids, packed, decode=operators.decode):
        counts.append(ids.numel())
        return decode(ids, packed)

    monkeypatch.setattr(operators, "decode", counting)
    return counts


def operators_of(graph):
    return {str(node.target) for node in graph.nodes if node.op == "call_function"}


@pytest.fixture
def compiled_operators():
    """Return a function that compiles another and returns its result and the operators of its graph."""

    def run(function, *arguments):
        found = set()

        def record(graph_module, inputs):
            found.update(operators_of(graph_module.graph))
            return graph_module

        torch._dynamo.reset()
        backend = aot_autograd(fw_compiler=record)
        return torch.compile(function, fullgraph=True, backend=backend)(*arguments), found

    return run


class Reader(nn.Module):
    """Applies a function to the weight of an embedding."""

    def __init__(self, embedding, function):
        super().__init__()
        self.embedding = embedding
        self.function = function

    def forward(self, *arguments):
        return self.function(self.embedding.weight, *arguments)


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
        (lambda w: nn.functional.embedding_bag(torch.tensor([[1, 2], [1, 3]]), w), 0),
        (lambda w: w[3, 4], 1),
        (lambda w: w[5:8, ::2], 3),
        (lambda w: w[torch.tensor([1, 2]), torch.tensor([3, 4])], 30),
        (lambda w: w[torch.tensor([1, 2]), 3], 30),
        (lambda w: w[torch.arange(330).view(30, 11) % 3 == 0], 30),
        (lambda w: w[:, 2], 30),
        (lambda w: w[..., 0], 30),
        (lambda w: w[None, 2], 30),
        (lambda w: w[True], 30),
        (lambda w: w[[1, 2]], 2),
        (lambda w: w[np.array([1, 2])], 2),
        (lambda w: w[3:3], 0),
        (lambda w: w[7:3], 0),
        (lambda w: w[-5::2], 3),
        (lambda w: w.narrow(0, 4, 3), 3),
        (lambda w: w.select(0, -2), 1),
    ],
)
def test_picking_rows_decodes_no_others(module, pick, rows, decoded_rows):
    expected = pick(module.weight.clone())
    decoded_rows.clear()
    assert_close(pick(module.weight), expected)
    assert sum(decoded_rows) == rows


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
        lambda w: nn.init.normal_(w),
        lambda w: nn.init.zeros_(tensor=w),
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


@pytest.mark.parametrize("options", [{"center": True}, {"row_scale": True}, {"codebook_kind": "trellis"}])
def test_reading_the_weight_of_every_kind_of_table_compiles(options, compiled_operators):
    matrix = torch.randn(30, 11)
    matrix[7] = 0
    module = QuantEmbedding(30, 11, _weight=matrix, nbit=4, **options)
    x, ids = torch.randn(2, 11), torch.tensor([7, 29])
    product, rows = compiled_operators(
        lambda: (x @ module.weight.T, functional.embedding(ids, module.weight))
    )[0]
    assert torch.equal(product, x @ module.weight.clone().T)
    assert torch.equal(rows, module.weight[ids])


def test_an_index_out_of_range_raises_as_in_torch(module):
    for key in (30, -31, (30, 2), torch.tensor([30]), torch.tensor([-31]), slice(None, None, -1)):
        for weight in (module.weight, module.weight.clone()):
            with pytest.raises((IndexError, ValueError)):
                weight[key]


def test_bags_of_the_weight_decode_no_rows_and_keep_gradients_of_their_weights(module, decoded_rows):
    ids, offsets = torch.tensor([1, 2, 2, 7]), torch.tensor([0, 3])
    bag = partial(functional.embedding_bag, ids, offsets=offsets)
    for options in ({"mode": "mean"}, {"mode": "max"}, {"mode": "sum", "padding_idx": 2}):
        expected = bag(module.weight.clone(), **options)
        decoded_rows.clear()
        assert_close(bag(module.weight, **options), expected)
        assert decoded_rows == []
    ours, theirs = (torch.ones(4, requires_grad=True) for _ in range(2))
    bag(module.weight, mode="sum", per_sample_weights=ours).sum().backward()
    bag(module.weight.clone(), mode="sum", per_sample_weights=theirs).sum().backward()
    assert_close(ours.grad, theirs.grad)


def test_linear_with_the_weight_decodes_chunks_of_rows(monkeypatch, compiled_operators):
    module = QuantEmbedding(30, 11, _weight=torch.randn(30, 11), nbit=4)
    monkeypatch.setattr(products, "_CHUNK_VALUES", 44)
    x, bias = torch.randn(2, 11, requires_grad=True), torch.randn(30)
    expected = functional.linear(x, module.weight.clone(), bias)
    assert_close(functional.linear(x, module.weight, bias), expected)
    out, found = compiled_operators(lambda x: functional.linear(x, module.weight, bias), x.detach())
    assert_close(out, expected)
    assert "smallfry.linear.default" in found
    assert not found & {"smallfry.decode.default"}


def test_linear_treats_dtypes_as_torch_does(module):
    with pytest.raises(RuntimeError, match="same dtype"):
        functional.linear(torch.zeros(2, 11, dtype=torch.float64), module.weight)
    with torch.autocast("cpu"):
        x = torch.randn(2, 11)
        out = functional.linear(x, module.weight)
        assert torch.equal(out, functional.linear(x, module.weight.clone()))
        assert out.dtype == torch.bfloat16


SELECTIONS = [
    lambda w, ids: functional.embedding(ids, w),
    lambda w, ids: w[ids],
    lambda w, ids: w[ids - 30],
    lambda w, ids: w[3],
    lambda w, ids: w[2 : len(ids) + 2],
    lambda w, ids: w.data[ids],
]


@pytest.mark.parametrize("select", SELECTIONS)
def test_compiled_selections_decode_no_other_rows(select, decoded_rows, compiled_operators):
    module, ids = QuantEmbedding(30, 11, _weight=torch.randn(30, 11), nbit=4), torch.tensor([[1, 2], [5, 29]])
    out, found = compiled_operators(lambda ids: select(module.weight, ids), ids)
    assert torch.equal(out, select(module.weight, ids))
    assert "smallfry.decode.default" in found
    assert max(decoded_rows) < 30
    _, bag = compiled_operators(lambda ids: functional.embedding_bag(ids, module.weight), ids)
    assert "smallfry.bag.default" in bag
    assert "smallfry.decode.default" not in bag


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("select", SELECTIONS)
def test_exported_selections_decode_no_other_rows(select, strict):
    module, ids = QuantEmbedding(30, 11, _weight=torch.randn(30, 11), nbit=4), torch.tensor([[1, 2], [5, 29]])
    program = torch.export.export(Reader(module, select), (ids,), strict=strict)
    assert torch.equal(program.module()(ids), select(module.weight, ids))
    (decoding,) = (node for node in program.graph.nodes if node.target is torch.ops.smallfry.decode.default)
    assert decoding.meta["val"].shape == select(module.weight, ids).shape


@pytest.mark.parametrize(
    "read",
    [
        lambda w, x: x @ w.T,
        lambda w, x: 2 * w - w.mean(0),
        lambda w, x: torch.cat([w, x]),
        lambda w, x: x.new_zeros(w.shape).to(w.dtype)[: w.size(1)],
        lambda w, x: functional.linear(x, w),
        lambda w, x: w[2, 3],
        lambda w, x: w.detach().clone(),
    ],
)
def test_other_reads_compile_and_export(read, compiled_operators):
    module, x = QuantEmbedding(30, 11, _weight=torch.randn(30, 11), nbit=4), torch.randn(2, 11)
    expected = read(module.weight.clone(), x)
    assert_close(compiled_operators(lambda x: read(module.weight, x), x)[0], expected)
    for strict in (True, False):
        program = torch.export.export(Reader(module, read), (x,), strict=strict)
        assert_close(program.module()(x), expected)


@pytest.mark.skipif(torch.__version__ < "2.13", reason="older compilers read the storage of arguments")
def test_a_compiled_function_takes_and_returns_it(module, compiled_operators):
    ids = torch.tensor([3, 4])
    assert torch.equal(compiled_operators(lambda: module.weight)[0], module.weight)
    assert torch.equal(compiled_operators(lambda w: w[ids], module.weight)[0], module.weight[ids])


def test_returning_it_from_an_exported_program_raises(module):
    with pytest.raises(RuntimeError, match=r"weight\.clone\(\)"):
        torch.export.export(Reader(module, lambda w: w), ())


def test_dlpack_exports_the_decoded_values(module):
    expected = module.weight.clone()
    assert np.array_equal(np.from_dlpack(module.weight), expected.numpy())
    assert torch.equal(torch.from_dlpack(module.weight), expected)
    assert torch.equal(torch.utils.dlpack.from_dlpack(module.weight.__dlpack__()), expected)
    assert module.weight.__dlpack_device__() == expected.__dlpack_device__()
    # Consumers that do not find it call __dlpack__.
    assert not hasattr(type(module.weight), "__dlpack_c_exchange_api__")


@pytest.mark.parametrize(
    "access",
    [
        lambda w: w.data_ptr(),
        lambda w: torch.Tensor.data_ptr(w),
        lambda w: w.untyped_storage(),
        lambda w: w.storage(),
        lambda w: w.share_memory_(),
        lambda w: w.detach().share_memory_(),
        dlpack.to_dlpack,
    ],
)
def test_its_memory_cannot_be_accessed(module, access):
    with pytest.raises(RuntimeError, match=r"no memory of its own|Cannot access data pointer"):
        access(module.weight)
    assert not module.weight.is_shared()


def test_it_cannot_require_a_gradient(module):
    weight = module.weight
    weight.requires_grad_(False).requires_grad = False
    for require in (weight.requires_grad_, partial(setattr, weight, "requires_grad", True)):
        with pytest.raises(RuntimeError, match="cannot require a gradient"):
            require()
    with pytest.raises(RuntimeError, match="cannot require a gradient"):
        nn.Parameter(weight)


def test_saving_sending_and_collating_it_gives_ordinary_tensors(module):
    expected = module.weight.clone()
    file = io.BytesIO()
    torch.save(module.weight, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=True), expected)
    queue = multiprocessing.get_context("spawn").SimpleQueue()
    queue.put(module.weight)
    assert torch.equal(queue.get(), expected)
    batch = torch.utils.data.default_collate([module.weight, module.weight])
    assert torch.equal(batch, torch.stack([expected, expected]))


def test_every_method_of_tensor_is_right_or_raises():
    """Runs in another process, because a null pointer would end it."""
    script = Path(__file__).with_name("weight_methods.py")
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, ""), run.stderr


def test_a_slice_has_a_dynamic_size():
    module = QuantEmbedding(30, 11, _weight=torch.randn(30, 11), nbit=4)
    positions = Reader(module, lambda w, x: w[: x.shape[0]])
    compiled = torch.compile(positions, dynamic=True, fullgraph=True, backend="aot_eager")
    sizes = ({0: torch.export.Dim("rows", max=30)},)
    programs = [
        torch.export.export(positions, (torch.zeros(4),), dynamic_shapes=(sizes,), strict=strict).module()
        for strict in (True, False)
    ]
    for call in (compiled, *programs):
        for rows in (5, 9):
            assert torch.equal(call(torch.zeros(rows)), module.weight[:rows])
