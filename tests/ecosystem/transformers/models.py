"""Small models of transformers with random weights."""

import contextlib
import logging
from collections.abc import Iterator

import torch
import transformers
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    BertLMHeadModel,
    BertModel,
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    EncoderDecoderModel,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MarianConfig,
    MarianMTModel,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTModel,
)

_SIZES = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
_T5 = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}
_BART = {
    "d_model": 32,
    **{f"{side}_layers": 1 for side in ("encoder", "decoder")},
    **{f"{side}_attention_heads": 2 for side in ("encoder", "decoder")},
    **{f"{side}_ffn_dim": 64 for side in ("encoder", "decoder")},
}


def gpt2() -> GPT2LMHeadModel:
    config = GPT2Config(
        vocab_size=300, n_positions=32, n_embd=32, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    return GPT2LMHeadModel(config)


def llama(tied: bool) -> LlamaForCausalLM:
    return LlamaForCausalLM(LlamaConfig(vocab_size=300, tie_word_embeddings=tied, **_SIZES))


def t5(tied: bool) -> T5ForConditionalGeneration:
    return T5ForConditionalGeneration(T5Config(vocab_size=300, tie_word_embeddings=tied, **_T5))


def bert() -> BertModel:
    return BertModel(BertConfig(vocab_size=300, **_SIZES))


def bert_mlm() -> BertForMaskedLM:
    model = BertForMaskedLM(BertConfig(vocab_size=300, **_SIZES))
    torch.nn.init.normal_(model.cls.predictions.bias)
    return model


def roberta() -> RobertaModel:
    return RobertaModel(RobertaConfig(vocab_size=300, **_SIZES))


def bart(scaled: bool) -> BartForConditionalGeneration:
    config = BartConfig(vocab_size=300, max_position_embeddings=32, scale_embedding=scaled, **_BART)
    return BartForConditionalGeneration(config)


def marian() -> MarianMTModel:
    return MarianMTModel(
        MarianConfig(vocab_size=300, pad_token_id=0, decoder_start_token_id=0, forced_eos_token_id=0, **_BART)
    )


def gemma3() -> Gemma3ForCausalLM:
    config = Gemma3TextConfig(vocab_size=300, head_dim=16, num_key_value_heads=1, **_SIZES)
    return Gemma3ForCausalLM(config)


def llava() -> LlavaForConditionalGeneration:
    vision = CLIPVisionConfig(image_size=32, patch_size=16, projection_dim=32, **_SIZES)
    text = LlamaConfig(vocab_size=300, **_SIZES)
    options = {"image_token_index": 299, "vision_feature_layer": -1}
    config = LlavaConfig(vision_config=vision, text_config=text, **options)
    return LlavaForConditionalGeneration(config)


def clip() -> CLIPModel:
    text = {"vocab_size": 300, "max_position_embeddings": 32, **_SIZES}
    vision = {"image_size": 32, "patch_size": 16, **_SIZES}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))


def vit() -> ViTModel:
    return ViTModel(ViTConfig(image_size=32, patch_size=16, **_SIZES))


def encoder_decoder() -> EncoderDecoderModel:
    config = BertConfig(vocab_size=300, is_decoder=True, add_cross_attention=True, **_SIZES)
    return EncoderDecoderModel(encoder=bert(), decoder=BertLMHeadModel(config))


MODELS = {
    "GPT-2": gpt2,
    "Llama, tied": lambda: llama(tied=True),
    "Llama, untied": lambda: llama(tied=False),
    "T5, tied": lambda: t5(tied=True),
    "T5, untied": lambda: t5(tied=False),
    "BERT": bert,
    "BERT-MLM": bert_mlm,
    "RoBERTa": roberta,
    "BART": lambda: bart(scaled=False),
    "BART, scaled": lambda: bart(scaled=True),
    "Marian": marian,
    "Gemma 3": gemma3,
}


def output(model: PreTrainedModel) -> torch.Tensor:
    """Return the logits, or the last hidden state, of a few tokens."""
    ids = torch.tensor([[5, 2, 3, 0, 299]])
    inputs = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model.eval()(ids, **inputs)[0]


def assert_same(model: PreTrainedModel, expected: PreTrainedModel) -> None:
    """Compare state dicts and outputs bit for bit."""
    state, expected_state = model.state_dict(), expected.state_dict()
    assert list(state) == list(expected_state)
    for name, tensor in expected_state.items():
        assert state[name].dtype == tensor.dtype, name
        assert torch.equal(state[name], tensor), name
    assert torch.equal(output(model), output(expected))


@contextlib.contextmanager
def no_warnings() -> Iterator[None]:
    """Raise if transformers or smallfry logs a warning."""
    records = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = records.append
    loggers = [transformers.logging.get_logger("transformers"), logging.getLogger("smallfry")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
    assert not [record.getMessage() for record in records]
