import pytest
import torch

from smallfry import quantize_embed
from tests.ecosystem.transformers.models import bert_mlm

# The tracer of transformers was removed in version 5.
tracing = pytest.importorskip("transformers.utils.fx")


def test_packed_modules_are_leaves_of_the_tracer_of_transformers():
    model = quantize_embed(bert_mlm(), 4).eval()
    traced = tracing.symbolic_trace(model, input_names=["input_ids"])
    calls = {node.target for node in traced.graph.nodes if node.op == "call_module"}
    assert {"bert.embeddings.word_embeddings", "cls.predictions.decoder"} <= calls
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(traced(ids)["logits"], model(ids).logits)
