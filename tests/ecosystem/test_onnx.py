"""``torch.onnx.export``, and the exported model under onnxruntime."""

import onnxruntime
import pytest
import torch
from torch import nn
from torch.export import Dim
from transformers import BertConfig, BertForMaskedLM

from smallfry.nn import QuantEmbedding, QuantEmbeddingBag, TiedLinear, quantize_embed

DYNAMIC = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}
TABLES = [
    *({"nbit": nbit, **options} for nbit in (1, 2, 4) for options in ({}, {"codebook_kind": "trellis"})),
    *({"nbit": nbit} for nbit in (8, 16, 32)),
    {"nbit": 3, "codebook_kind": "trellis", "trellis_state_bits": 12, "center": True},
    {"nbit": 4, "row_scale": True},
    {"nbit": 8, "center": True, "row_scale": True},
]
SCALED = {"nbit": 4, "embed_scale": 3.3}


# torch warns of its own exporters: of functions they call, and of the older one.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


class Each(nn.Module):
    """Calls every module on the same input; float32 outputs, since NumPy has no bfloat16."""

    def __init__(self, modules):
        super().__init__()
        self.modules_ = nn.ModuleList(modules)

    def forward(self, *inputs):
        return [module(*inputs).float() for module in self.modules_]


def matrix(rows=50, dim=13):
    """Return vectors whose rows do not fill their last byte, some of them zeros."""
    vectors = torch.randn(rows, dim)
    vectors[[3, 7, rows - 1]] = 0
    return vectors


def session(path, model, args, dynamic_shapes=None):
    torch.onnx.export(model.eval(), args, path, dynamo=True, dynamic_shapes=dynamic_shapes, verbose=False)
    return onnxruntime.InferenceSession(path)


def outputs(session, *inputs):
    names = [argument.name for argument in session.get_inputs()]
    arrays = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
    return [torch.from_numpy(array) for array in session.run(None, arrays)]


@pytest.mark.parametrize(
    "dtype, tables",
    [(torch.float32, [*TABLES, SCALED]), (torch.float16, TABLES[-4:]), (torch.bfloat16, TABLES[-4:])],
)
def test_rows_are_those_of_the_module(tmp_path, dtype, tables):
    vectors = matrix()
    model = Each(QuantEmbedding(50, 13, _weight=vectors, dtype=dtype, **table) for table in tables)
    exported = session(tmp_path / "m.onnx", model, (torch.zeros(2, 5, dtype=torch.int64),), [(DYNAMIC,)])
    for ids in (torch.arange(50).view(1, 50), torch.randint(0, 50, (4, 3))):
        for row, own, table in zip(outputs(exported, ids), model(ids), tables, strict=True):
            assert torch.equal(row.view(torch.int32), own.view(torch.int32)), table


def test_ids_may_be_int32(tmp_path):
    embedding = QuantEmbedding(50, 13, _weight=matrix(), nbit=2)
    ids = torch.randint(0, 50, (2, 5), dtype=torch.int32)
    (rows,) = outputs(session(tmp_path / "m.onnx", embedding, (ids,), (DYNAMIC,)), ids)
    assert torch.equal(rows, embedding(ids))


def bags():
    """Return a bag for each mode and for each way to exclude padding."""
    vectors = matrix()
    return Each(
        QuantEmbeddingBag(50, 13, _weight=vectors, nbit=4, mode=mode, padding_idx=padding_idx)
        for mode in ("sum", "mean", "max")
        for padding_idx in (None, 2)
    )


def test_bags_in_two_dimensions(tmp_path):
    model = bags()
    exported = session(tmp_path / "m.onnx", model, (torch.zeros(2, 5, dtype=torch.int64),), [(DYNAMIC,)])
    for ids in (torch.randint(0, 50, (4, 30)), torch.full((3, 2), 2)):
        for pooled, own in zip(outputs(exported, ids), model(ids), strict=True):
            torch.testing.assert_close(pooled, own)


def test_bags_with_offsets(tmp_path):
    model = bags()
    example = torch.zeros(6, dtype=torch.int64), torch.tensor([0, 2, 4])
    exported = session(tmp_path / "m.onnx", model, example, [({0: Dim.DYNAMIC}, {0: Dim.DYNAMIC})])
    ids, offsets = torch.randint(0, 50, (20,)), torch.tensor([0, 0, 3, 11, 20])
    for pooled, own in zip(outputs(exported, ids, offsets), model(ids, offsets), strict=True):
        torch.testing.assert_close(pooled, own)


def test_weighted_bags_with_the_last_offset(tmp_path):
    bag = QuantEmbeddingBag(50, 13, _weight=matrix(), nbit=4, mode="sum", include_last_offset=True)
    inputs = torch.randint(0, 50, (20,)), torch.tensor([0, 3, 11, 17]), torch.rand(20)
    exported = session(tmp_path / "m.onnx", bag, inputs)
    torch.testing.assert_close(outputs(exported, *inputs)[0], bag(*inputs))


def test_tied_heads(tmp_path):
    vectors = matrix(50, 16)
    embeddings = [QuantEmbedding(50, 16, _weight=vectors, nbit=nbit) for nbit in (2, 16, 32)]
    model = Each(
        nn.Sequential(embedding, nn.Linear(16, 16), TiedLinear(embedding, nn.Parameter(torch.randn(50))))
        for embedding in embeddings
    )
    exported = session(tmp_path / "m.onnx", model, (torch.zeros(2, 5, dtype=torch.int64),), [(DYNAMIC,)])
    ids = torch.randint(0, 50, (3, 4))
    for logits, own in zip(outputs(exported, ids), model(ids), strict=True):
        torch.testing.assert_close(logits, own.detach())


def test_file_is_as_small_as_the_table(tmp_path):
    vectors = matrix(20_000, 64)
    embedding = QuantEmbedding(20_000, 64, _weight=vectors, nbit=2)
    model = nn.Sequential(embedding, TiedLinear(embedding))
    ids = torch.randint(0, 20_000, (2, 5))
    exported = session(tmp_path / "m.onnx", model, (ids,), (DYNAMIC,))
    torch.testing.assert_close(outputs(exported, ids)[0], model(ids), atol=1e-4, rtol=1e-4)
    assert embedding.nbytes < 330_000 < vectors.nbytes // 15
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < embedding.nbytes + 100_000


def test_exported_program_that_was_saved(tmp_path):
    embedding = QuantEmbedding(50, 13, _weight=matrix(), nbit=2)
    ids = torch.randint(0, 50, (2, 5))
    torch.export.save(torch.export.export(embedding, (ids,)), tmp_path / "m.pt2")
    torch.onnx.export(torch.export.load(tmp_path / "m.pt2"), (), tmp_path / "m.onnx", verbose=False)
    (rows,) = outputs(onnxruntime.InferenceSession(tmp_path / "m.onnx"), ids)
    assert torch.equal(rows, embedding(ids))


def test_bert(tmp_path):
    config = BertConfig(
        vocab_size=500,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=32,
    )
    model = quantize_embed(BertForMaskedLM(config), nbit=4)
    ids = torch.randint(0, 500, (2, 5))
    exported = session(tmp_path / "m.onnx", model, (ids, torch.ones_like(ids)), (DYNAMIC, DYNAMIC))
    ids = torch.randint(0, 500, (3, 11))
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    logits = model(ids, mask).logits.detach()
    torch.testing.assert_close(outputs(exported, ids, mask)[0], logits)


def test_torchscript_exporter_names_the_operator(tmp_path):
    model = nn.Sequential(QuantEmbedding(50, 13, _weight=matrix(), nbit=2))
    ids = torch.zeros(2, 5, dtype=torch.int64)
    with pytest.raises(torch.onnx.errors.UnsupportedOperatorError, match="smallfry::decode"):
        torch.onnx.export(model, (ids,), tmp_path / "m.onnx", dynamo=False)
