"""Embeddings that multiply their rows by ``embed_scale`` are packed with their scale."""

import copy
import importlib
import re
from pathlib import Path

import pytest
import torch
import transformers
from torch import nn
from transformers import BartConfig, BartForConditionalGeneration, T5Config, T5ForConditionalGeneration

from smallfry import QuantEmbedding, quantize_embed
from smallfry.errors import InputError
from smallfry.nn import TiedLinear

ROWS, DIM, SCALE = 60, 8, 768**0.5  # no half-precision number
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def scaled_classes():
    """Return the name of each class and of its module, without importing the hundreds of models."""
    for path in sorted((Path(transformers.__file__).parent / "models").glob("*/modeling_*.py")):
        for name in re.findall(r"^class (\w+ScaledWordEmbedding)\(", path.read_text("utf-8"), re.MULTILINE):
            yield name, f"transformers.models.{path.parent.name}.{path.stem}"


CLASSES = dict(scaled_classes())
# Replaces one of its rows by another parameter.
OTHER = {"T5Gemma2TextScaledWordEmbedding"}


def scaled_embedding(name, device=None):
    with torch.device(device or "cpu"):
        return getattr(importlib.import_module(CLASSES[name]), name)(ROWS, DIM, 0, embed_scale=SCALE)


def unpacked(packed, embedding):
    """Return ``embedding`` with the decoded table of ``packed``."""
    embedding = copy.deepcopy(embedding)
    embedding.weight = nn.Parameter(packed.weight.clone())
    return embedding


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", sorted(CLASSES.keys() - OTHER))
def test_rows_are_those_of_the_class_bit_for_bit(name, dtype):
    ids = torch.arange(ROWS)
    embedding = scaled_embedding(name)
    converted = quantize_embed(embedding, 4).to(dtype)
    assert torch.equal(converted(ids), unpacked(converted, embedding.to(dtype))(ids))
    packed = quantize_embed(embedding, 4)
    assert packed.packed.dtype == dtype
    assert torch.equal(packed(ids), unpacked(packed, embedding)(ids))


@pytest.mark.parametrize("name", sorted(CLASSES.keys() - OTHER))
def test_scale_is_recognized_on_the_meta_device(name):
    embedding = scaled_embedding(name, "meta")
    if isinstance(embedding.embed_scale, torch.Tensor) and not hasattr(embedding, "scalar_embed_scale"):
        with pytest.raises(InputError, match="has its own forward"):  # transformers 4 has no number
            QuantEmbedding.float_options(embedding)
    else:
        expected = QuantEmbedding.float_options(scaled_embedding(name))
        assert QuantEmbedding.float_options(embedding) == expected


def test_only_classes_that_do_more_than_scale_stay():
    model = quantize_embed(nn.ModuleDict({name: scaled_embedding(name) for name in CLASSES}))
    stay = {name for name, module in model.items() if not isinstance(module, QuantEmbedding)}
    assert stay == CLASSES.keys() & OTHER


SIZES = {
    "vocab_size": 300,
    "max_position_embeddings": 20,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def bart():
    layers = {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    config = BartConfig(
        d_model=24, scale_embedding=True, decoder_start_token_id=1, **layers, **heads, **SIZES
    )
    return BartForConditionalGeneration(config)


def gemma3():
    config = transformers.Gemma3TextConfig(
        hidden_size=24,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=12,
        **SIZES,
    )
    return transformers.Gemma3ForCausalLM(config)


def t5():
    config = T5Config(
        vocab_size=300, d_model=24, d_kv=12, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0
    )
    return T5ForConditionalGeneration(config)


def logits(model, ids):
    inputs = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model(input_ids=ids, **inputs).logits


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("build", [bart, gemma3, t5])
def test_model_computes_with_the_decoded_table(build, dtype):
    model = build().to(dtype).eval()
    reference = copy.deepcopy(model)
    quantize_embed(model, 4)
    packed = model.get_input_embeddings()
    assert isinstance(packed, QuantEmbedding)
    assert isinstance(model.get_output_embeddings(), TiedLinear)
    with torch.no_grad():
        reference.get_input_embeddings().weight.copy_(packed.weight.clone())
    ids = torch.tensor([[3, 4, 5, 250]])
    torch.testing.assert_close(logits(model, ids), logits(reference, ids))


@pytest.mark.parametrize("build", [bart, gemma3])
def test_state_dict_has_no_scale(build):
    assert not [name for name in quantize_embed(build()).state_dict() if "scale" in name]


class Shifted(nn.Embedding):
    embed_scale = SCALE

    def forward(self, ids):
        return super().forward(ids) * self.embed_scale + 1


class OddRow(nn.Embedding):
    embed_scale = SCALE

    def forward(self, ids):
        rows = super().forward(ids) * self.embed_scale
        rows[ids == ROWS - 1] = 0
        return rows


@pytest.mark.parametrize("kind", [Shifted, OddRow])
def test_class_that_changes_rows_in_another_way_is_rejected(kind):
    with pytest.raises(InputError, match="has its own forward"):
        QuantEmbedding.from_float(kind(ROWS, DIM), 4)
