import pytest
import torch
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model

from smallfry import quantize_embed
from smallfry.nn import QuantEmbedding, TiedLinear
from tests.ecosystem.transformers.models import bert_mlm, gpt2

# peft calls what transformers deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")

IDS = torch.arange(12).view(3, 4)
MODELS = {"GPT-2": gpt2, "BERT": bert_mlm}


@pytest.fixture(params=MODELS)
def name(request):
    return request.param


def packed(name):
    torch.manual_seed(0)
    return quantize_embed(MODELS[name](), 8)


def lora(name, *targets, **options):
    layers = {"GPT-2": ["c_attn"], "BERT": ["query", "value"]}[name]
    return LoraConfig(target_modules=[*layers, *targets], fan_in_fan_out=name == "GPT-2", **options)


def prompt_tuning(name):
    return PromptTuningConfig(
        task_type="CAUSAL_LM" if name == "GPT-2" else "FEATURE_EXTRACTION", num_virtual_tokens=3
    )


def logits(model):
    return model(input_ids=IDS).logits


def train(model):
    """Make a step that changes every trainable value; return the names of those that had a gradient."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    logits(model).square().mean().backward()
    optimizer.step()
    return {name for name, parameter in model.named_parameters() if parameter.grad is not None}


def test_lora_trains_saves_loads_and_merges(tmp_path, name):
    model = get_peft_model(packed(name), lora(name))
    before = logits(model.eval())
    assert all("lora" in parameter for parameter in train(model.train()))
    trained = logits(model.eval())
    assert not torch.equal(trained, before)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(packed(name), tmp_path).eval()
    assert torch.equal(logits(loaded), trained)
    merged = loaded.merge_and_unload()
    torch.testing.assert_close(logits(merged), trained)
    assert isinstance(merged.get_input_embeddings(), QuantEmbedding)
    assert isinstance(merged.get_output_embeddings(), TiedLinear)
    assert merged.config.tie_word_embeddings


def test_prompt_tuning_trains_saves_and_loads(tmp_path, name):
    model = get_peft_model(packed(name), prompt_tuning(name))
    model.word_embeddings = model.get_input_embeddings()
    before = logits(model.eval())
    assert {parameter.split(".")[0] for parameter in train(model.train())} == {"prompt_encoder"}
    trained = logits(model.eval())
    assert not torch.equal(trained, before)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(packed(name), tmp_path).eval()
    loaded.word_embeddings = loaded.get_input_embeddings()
    assert torch.equal(logits(loaded), trained)


@pytest.mark.parametrize("part", ["embedding", "head"])
def test_lora_on_a_packed_table_raises(name, part):
    model = packed(name)
    table = model.get_input_embeddings() if part == "embedding" else model.get_output_embeddings()
    target = next(name for name, module in model.named_modules() if module is table)
    with pytest.raises(ValueError, match=f"Target module {type(table).__name__}.* is not supported"):
        get_peft_model(model, lora(name, target))


def test_packed_module_to_save_stays_constant(tmp_path, name):
    saved = "wte" if name == "GPT-2" else "word_embeddings"
    model = get_peft_model(packed(name), lora(name, modules_to_save=[saved]))
    assert all("lora" in parameter for parameter in train(model))
    trained = logits(model.eval())
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(PeftModel.from_pretrained(packed(name), tmp_path).eval()), trained)
    assert torch.equal(model.get_input_embeddings().codes, packed(name).get_input_embeddings().codes)
