import copy

import pytest
import torch
from torch import nn

from smallfry.nn import QuantEmbedding, RemoteEmbedding, quantize_embed


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(30, 8)
        self.bag = nn.EmbeddingBag(30, 8)
        self.head = nn.Linear(8, 30)
        self.head.weight = self.words.weight

    def forward(self, ids, offsets):
        return self.head(self.words(ids)), self.bag(ids), self.bag(ids.reshape(-1), offsets)


def test_packed_modules_are_leaves():
    model = quantize_embed(Model(), 4)
    traced = torch.fx.symbolic_trace(model)
    calls = [node.target for node in traced.graph.nodes if node.op == "call_module"]
    assert calls == ["words", "head", "bag", "bag"]
    assert traced.words is model.words
    inputs = torch.tensor([[1, 2], [3, 4]]), torch.tensor([0, 3])
    for graph in (traced, copy.deepcopy(traced)):
        for ours, expected in zip(graph(*inputs), model(*inputs), strict=True):
            assert torch.equal(ours, expected)


def test_a_remote_embedding_is_a_leaf(tmp_path):
    QuantEmbedding(30, 8, _weight=torch.randn(30, 8), nbit=4).to_sfq(tmp_path / "table.sfq")
    model = nn.Sequential(RemoteEmbedding(f"file://{tmp_path}/table.sfq"), nn.Linear(8, 2))
    traced, ids = torch.fx.symbolic_trace(model), torch.tensor([[1, 2]])
    assert [node.target for node in traced.graph.nodes if node.op == "call_module"] == ["0", "1"]
    assert torch.equal(traced(ids), model(ids))


def test_tracing_a_packed_module_itself_raises():
    with pytest.raises(TypeError, match="trace a model that contains it"):
        torch.fx.symbolic_trace(QuantEmbedding(30, 8, nbit=4))
