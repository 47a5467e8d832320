import pytest

from smallfry.errors import InputError
from smallfry.readers.formats.choice import choose_tensor

LLAMA = [
    "model.embed_tokens.weight",
    *(f"model.layers.{i}.self_attn.{p}_proj.weight" for i in range(4) for p in "qkvo"),
    "lm_head.weight",
]
MODELS = {
    "bert": (
        [
            "bert.embeddings.position_embeddings.weight",
            "bert.embeddings.token_type_embeddings.weight",
            "bert.embeddings.word_embeddings.weight",
            "bert.encoder.layer.0.attention.self.query.weight",
            "bert.pooler.dense.weight",
            "cls.predictions.decoder.weight",
        ],
        "bert.embeddings.word_embeddings.weight",
    ),
    "sentence-transformers": (
        ["embeddings.position_embeddings.weight", "embeddings.word_embeddings.weight", "pooler.dense.weight"],
        "embeddings.word_embeddings.weight",
    ),
    "modernbert": (
        ["model.embeddings.tok_embeddings.weight", "model.layers.0.attn.Wo.weight", "head.dense.weight"],
        "model.embeddings.tok_embeddings.weight",
    ),
    "gpt2": (["wte.weight", "wpe.weight", "h.0.attn.c_attn.weight"], "wte.weight"),
    "gpt-neox": (
        ["gpt_neox.embed_in.weight", "gpt_neox.layers.0.mlp.dense_h_to_4h.weight", "embed_out.weight"],
        "gpt_neox.embed_in.weight",
    ),
    "llama": (LLAMA, "model.embed_tokens.weight"),
    "gemma-3": (
        [
            "language_model.model.embed_tokens.weight",
            "vision_tower.vision_model.embeddings.position_embedding.weight",
            "vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight",
        ],
        "language_model.model.embed_tokens.weight",
    ),
    "deepseek-v3": (
        [*LLAMA, "model.layers.61.embed_tokens.weight", "model.layers.61.shared_head.head.weight"],
        "model.embed_tokens.weight",
    ),
    "t5": (
        [
            "shared.weight",
            "encoder.embed_tokens.weight",
            "decoder.embed_tokens.weight",
            "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
            "lm_head.weight",
        ],
        "shared.weight",
    ),
    "bart": (
        [
            "model.shared.weight",
            "model.encoder.embed_tokens.weight",
            "model.encoder.embed_positions.weight",
            "model.decoder.embed_tokens.weight",
        ],
        "model.shared.weight",
    ),
    "bloom": (["word_embeddings.weight", "h.0.mlp.dense_h_to_4h.weight"], "word_embeddings.weight"),
    "clip": (
        [
            "text_model.embeddings.position_embedding.weight",
            "text_model.embeddings.token_embedding.weight",
            "vision_model.embeddings.position_embedding.weight",
            "text_projection.weight",
        ],
        "text_model.embeddings.token_embedding.weight",
    ),
    "model2vec": (["embeddings", "projection"], "embeddings"),
    "static-embedding": (["embedding.weight", "dense.weight"], "embedding.weight"),
    "torchao": (["wte._weight_qdata", "h.0.mlp._weight_qdata"], "wte._weight_qdata"),
    "optimum-quanto": (["wte.weight._data", "h.0.mlp.weight._data"], "wte.weight._data"),
}


def choose(names, named=None, **options):
    tables = options.pop("tables", names)
    return choose_tensor(
        "f", dict.fromkeys(names, "F32"), named=named, tables=tables, readable=tables, **options
    )


@pytest.mark.parametrize("model", MODELS)
def test_token_embeddings_of_a_model_are_found(model):
    names, expected = MODELS[model]
    assert choose(names) == choose(names[::-1]) == expected


@pytest.mark.parametrize(
    ("named", "names"),
    [
        ("model.embed_tokens.weight", LLAMA),
        ("embed_tokens.weight", LLAMA),
        ("embed_tokens", LLAMA),
        ("model.embed_tokens", LLAMA),
        ("embed_tokens", ["x", "model.embed_tokens.weight._data"]),
        ("embed_tokens", ["embed_tokens", "model.embed_tokens.weight"]),
    ],
)
def test_tensor_is_named_by_its_end(named, names):
    expected = named if named in names else next(name for name in names if "embed_tokens" in name)
    assert choose(names, named) == expected


def test_name_ends_at_a_dot():
    with pytest.raises(
        InputError, match=r"f has no tensor 'tokens'\. It has model\.embed_tokens\.weight F32"
    ):
        choose(LLAMA, "tokens")


def test_end_of_several_names_is_rejected():
    names = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "x"]
    message = (
        "f has 2 tensors whose names end in 'embed_tokens': encoder.embed_tokens.weight F32, "
        "decoder.embed_tokens.weight F32. Please give more of the name with tensor= (--tensor)."
    )
    with pytest.raises(InputError) as raised:
        choose(names, "embed_tokens")
    assert str(raised.value) == message


def test_several_likely_tensors_are_listed_first():
    names = ["a.fc.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"]
    with pytest.raises(
        InputError,
        match=r"has 3 .* 2 are named as token embeddings: encoder\.\S+ F32, decoder\.\S+ F32, a\.fc",
    ):
        choose(names)


def test_only_matrix_needs_no_name():
    assert choose(["bias", "proj.weight"], tables=["proj.weight"]) == "proj.weight"


def test_similar_names_are_listed_first():
    names = [f"layers.{i}.weight" for i in range(500)] + ["model.embed_tokens.qweight"]
    with pytest.raises(InputError, match=r"no tensor 'embed_tokens'\. It has model\.embed_tokens\.qweight"):
        choose(names, "embed_tokens")


@pytest.mark.parametrize("named", [None, "weight", "missing", "n" * 3000, "a\nb"])
@pytest.mark.parametrize("name", ["blocks.{}.weight", "x" * 3000 + "{}.weight", "\n{}.weight"])
def test_message_for_many_tensors_is_short_and_one_line(name, named):
    with pytest.raises(InputError) as raised:
        choose([name.format(i) for i in range(2000)], named, hint="It is a shard: please read i.json.")
    message = str(raised.value)
    assert len(message) <= 450
    assert message.isprintable()
    assert " more" in message
