"""`from_pretrained(quantization_config=SmallfryConfig(…))` on float checkpoints."""

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM

from smallfry import InputError, quantize_embed
from smallfry.transformers import SmallfryConfig
from tests.ecosystem.transformers import models
from tests.ecosystem.transformers.models import MODELS, assert_same, no_warnings


@pytest.mark.parametrize("name", ["GPT-2", "Llama, untied", "T5, tied", "BERT-MLM", "RoBERTa"])
def test_equals_quantizing_the_loaded_model(name, tmp_path):
    model = MODELS[name]()
    model.save_pretrained(tmp_path / "float")
    with no_warnings():
        packed = type(model).from_pretrained(tmp_path / "float", quantization_config=SmallfryConfig(nbit=4))
    assert_same(packed, quantize_embed(model, 4))
    with no_warnings():
        packed.save_pretrained(tmp_path / "packed")
        assert_same(type(model).from_pretrained(tmp_path / "packed"), packed)


def test_a_model_without_embeddings_loads_and_is_saved(tmp_path):
    models.vit().save_pretrained(tmp_path / "float")
    model = AutoModel.from_pretrained(tmp_path / "float", quantization_config=SmallfryConfig(nbit=4))
    model.save_pretrained(tmp_path / "saved")
    pixels = torch.randn(1, 3, 32, 32)
    assert torch.equal(AutoModel.from_pretrained(tmp_path / "saved")(pixels)[0], model(pixels)[0])


def test_options_and_dtype(tmp_path):
    model = models.gpt2()
    model.save_pretrained(tmp_path)
    options = {"codebook_kind": "trellis", "trellis_state_bits": 12, "center": True, "row_scale": True}
    config = SmallfryConfig(nbit={"transformer.wte": 3}, **options)
    packed = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=config, dtype=torch.bfloat16)
    model.to(torch.bfloat16)
    assert_same(packed, quantize_embed(model, config.nbit, **options))
    assert isinstance(packed.transformer.wpe, torch.nn.Embedding)


def test_device_map(tmp_path):
    model = models.gpt2()
    model.save_pretrained(tmp_path)
    config = SmallfryConfig(nbit=4)
    packed = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=config, device_map="auto")
    assert_same(packed, quantize_embed(model, 4))


def test_a_distributed_model_is_an_error(tmp_path):
    models.gpt2().save_pretrained(tmp_path)
    devices = {"transformer.wte": "cpu", "transformer.wpe": "cpu", "transformer.h": "disk"}
    devices |= {"transformer.ln_f": "cpu", "lm_head": "cpu"}
    with pytest.raises(InputError, match="on cpu, disk, but quantizing while loading needs one device"):
        AutoModelForCausalLM.from_pretrained(
            tmp_path,
            quantization_config=SmallfryConfig(nbit=4),
            device_map=devices,
            offload_folder=tmp_path / "offload",
        )


def test_an_unknown_embedding_is_an_error(tmp_path):
    models.gpt2().save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"nbit names wte, which is not an embedding of the model"):
        AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=SmallfryConfig({"wte": 4}))
