"""Per-layer embeddings of Gemma 3n, gathered from a file."""

import copy

import pytest
import torch
from torch import nn

from smallfry import QuantEmbedding, quantize
from smallfry.nn import StoreEmbedding
from smallfry.sfq import file as sfq

pytest.importorskip("transformers.models.gemma3n", reason="this version of transformers has no Gemma 3n")

from transformers import Gemma3nForCausalLM, Gemma3nTextConfig

ROWS, LAYERS, PER_LAYER = 300, 2, 16


def gemma3n():
    config = Gemma3nTextConfig(
        vocab_size=320,
        vocab_size_per_layer_input=ROWS,
        hidden_size=32,
        hidden_size_per_layer_input=PER_LAYER,
        intermediate_size=64,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        num_kv_shared_layers=0,
        activation_sparsity_pattern=[0.0] * LAYERS,
        layer_types=["sliding_attention", "full_attention"],
        altup_num_inputs=2,
        laurel_rank=4,
        pad_token_id=0,
    )
    return Gemma3nForCausalLM(config).eval()


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def models(tmp_path, request):
    """Return a model that gathers from a file, and one with the decoded table."""
    reference = gemma3n().to(request.param)
    embedding = reference.model.embed_tokens_per_layer
    table = quantize(embedding.weight.detach().float().numpy(), 3, codebook_kind="trellis", row_scale=True)
    sfq.write(tmp_path / "per_layer.sfq", table.paged())
    model = copy.deepcopy(reference)
    model.model.embed_tokens_per_layer = StoreEmbedding(
        tmp_path / "per_layer.sfq", dtype=request.param, **QuantEmbedding.float_options(embedding)
    )
    embedding.weight = nn.Parameter(torch.from_numpy(table.decode()).to(request.param))
    return model, reference


def test_model_computes_with_the_decoded_table_bit_for_bit(models):
    ids = torch.tensor([[3, 4, 5, 250], [7, 0, 299, 299]])
    model, reference = models
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, reference(input_ids=ids).logits)


def test_model_generates_the_same_tokens(models):
    ids = torch.tensor([[3, 4, 5]])
    tokens = [model.generate(ids, max_new_tokens=5, do_sample=False) for model in models]
    assert torch.equal(*tokens)


def test_saved_model_has_the_digest_in_place_of_the_table(models, tmp_path):
    model, reference = models
    model.save_pretrained(tmp_path / "saved")
    saved = sum(file.stat().st_size for file in (tmp_path / "saved").glob("*.safetensors"))
    table = reference.model.embed_tokens_per_layer.weight
    assert saved < sum(weight.nbytes for weight in reference.parameters()) - table.nbytes / 2
    fresh = gemma3n().to(model.dtype)
    fresh.model.embed_tokens_per_layer = copy.deepcopy(model.model.embed_tokens_per_layer)
    fresh.load_state_dict(model.state_dict())
    ids = torch.tensor([[3, 4, 5]])
    with torch.no_grad():
        assert torch.equal(fresh(input_ids=ids).logits, model(input_ids=ids).logits)
