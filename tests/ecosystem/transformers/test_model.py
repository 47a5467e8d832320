"""Methods of `PreTrainedModel` on packed models."""

import copy

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast, pipeline

from smallfry import InputError, QuantEmbedding, quantize_embed
from smallfry.nn import TiedLinear
from tests.ecosystem.transformers import models
from tests.ecosystem.transformers.models import MODELS, assert_same, no_warnings, output


@pytest.mark.parametrize("name", MODELS)
def test_tying_and_initializing_change_nothing(name):
    model = quantize_embed(MODELS[name](), 4)
    expected = copy.deepcopy(model)
    model.tie_weights()
    model.init_weights()
    model.post_init()
    for module in model.modules():
        if isinstance(module, (QuantEmbedding, TiedLinear)):
            model._init_weights(module)
    assert_same(model, expected)


@pytest.mark.parametrize("name", ["GPT-2", "T5, tied", "BERT-MLM"])
def test_resizing_to_the_same_size_changes_nothing(name):
    model = quantize_embed(MODELS[name](), 4)
    expected = copy.deepcopy(model)
    with no_warnings():
        assert model.resize_token_embeddings(300) is model.get_input_embeddings()
        model.resize_token_embeddings()
        model.resize_token_embeddings(299, pad_to_multiple_of=100)
    assert_same(model, expected)
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("arguments", [(301,), (100,), (None, 256)])
def test_resizing_says_to_resize_the_float_model(arguments):
    model = quantize_embed(models.gpt2(), 4)
    expected = copy.deepcopy(model)
    with pytest.raises(InputError, match="Please resize the float model, and quantize it afterwards"):
        model.resize_token_embeddings(*arguments)
    assert_same(model, expected)


def test_a_copy_is_resized_for_itself():
    model = quantize_embed(models.gpt2(), 4)
    copied = copy.deepcopy(model)
    assert copied.resize_token_embeddings(300) is copied.transformer.wte


def test_embedding_accessors():
    model = quantize_embed(models.gpt2(), 4)
    assert model.get_input_embeddings() is model.transformer.wte
    assert model.get_output_embeddings() is model.lm_head
    other = QuantEmbedding(300, 32, _weight=torch.randn(300, 32), nbit=8)
    model.set_input_embeddings(other)
    assert model.get_input_embeddings() is other


def test_sizes_and_dtype():
    float_model = models.gpt2()
    tables = sum(
        weight.numel() for weight in (float_model.transformer.wte.weight, float_model.transformer.wpe.weight)
    )
    parameters, footprint = float_model.num_parameters(), float_model.get_memory_footprint()
    model = quantize_embed(float_model, 8)
    assert model.num_parameters() == parameters - tables
    assert footprint - 4 * tables < model.get_memory_footprint() < footprint - 2 * tables
    assert model.dtype == torch.float32


@pytest.mark.parametrize("loaded", [False, True])
def test_conversion_to_other_dtypes(loaded, tmp_path):
    model = quantize_embed(models.gpt2(), 4)
    if loaded:
        model.save_pretrained(tmp_path)
        model = type(model).from_pretrained(tmp_path)
    for convert, dtype in [("half", torch.float16), ("bfloat16", torch.bfloat16), ("float", torch.float32)]:
        getattr(model, convert)()
        assert model.dtype == dtype == output(model).dtype


@pytest.mark.parametrize("search", [{}, {"num_beams": 3}, {"do_sample": True}])
def test_generate(search):
    model = quantize_embed(models.gpt2(), 4).eval()
    reference = models.gpt2().eval()
    reference.load_state_dict(_float_state(model))
    arguments = {"inputs": torch.tensor([[5, 7, 9]]), "max_new_tokens": 5, "pad_token_id": 0} | search
    torch.manual_seed(0)
    expected = reference.generate(**arguments)
    torch.manual_seed(0)
    assert torch.equal(model.generate(**arguments), expected)


def _float_state(model):
    """Return the state dict of the float model with the decoded tables."""
    state = {name: tensor for name, tensor in model.state_dict().items() if not _is_part(name)}
    for name, module in model.named_modules():
        if isinstance(module, (QuantEmbedding, TiedLinear)):
            state[f"{name}.weight"] = module.weight.clone()
    return state


def _is_part(name):
    return name.rpartition(".")[2] in ("codes", "codebook", "mean", "column_scale", "row_scale", "zero_rows")


@pytest.mark.parametrize("name", ["GPT-2", "BERT"])
def test_gradient_checkpointing(name):
    gradients = []
    model = quantize_embed(MODELS[name](), 4).train()
    for checkpointing in (False, True):
        if checkpointing and hasattr(model, "activation_checkpointing_enable"):
            model.activation_checkpointing_enable()
        elif checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.zero_grad()
        torch.manual_seed(0)
        model(torch.tensor([[5, 7, 9]]))[0].pow(3).sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters() if parameter.grad is not None])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(checkpointed, plain)


def test_enable_input_require_grads():
    model = quantize_embed(models.gpt2(), 4)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model.enable_input_require_grads()
    logits = model(torch.tensor([[5, 7, 9]])).logits
    assert logits.requires_grad
    logits.sum().backward()
    model.disable_input_require_grads()
    assert not model(torch.tensor([[5, 7, 9]])).logits.requires_grad


@pytest.fixture
def tokenizer():
    vocabulary = {"[UNK]": 0, "[PAD]": 1} | {f"w{i}": i for i in range(2, 300)}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]")


def test_text_generation_pipeline(tokenizer):
    model = quantize_embed(models.gpt2(), 4)
    generate = pipeline("text-generation", model=model, tokenizer=tokenizer, device="cpu")
    [answer] = generate("w5 w7 w9", max_new_tokens=4, do_sample=False)
    assert len(answer["generated_text"]) > len("w5 w7 w9")


def test_feature_extraction_pipeline_of_a_saved_model(tokenizer, tmp_path):
    model = quantize_embed(models.bert(), 4)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    extract = pipeline("feature-extraction", model=str(tmp_path), tokenizer=tokenizer, device="cpu")
    with torch.no_grad():
        expected = model.eval()(torch.tensor([[5, 7, 9]])).last_hidden_state
    torch.testing.assert_close(torch.tensor(extract("w5 w7 w9")), expected, rtol=0, atol=0)
