"""Texts on `/lookup` and `/v1/embeddings`, for models with a tokenizer."""

import base64
import json

import numpy as np
import pytest
import safetensors.numpy

import smallfry
from service.routes.embeddings import MAX_TEXTS
from service.routes.formats import JSON_CHUNK
from service.routes.texts import INLINE, PIECE
from smallfry.media_types import PACKED, RAW, SAFETENSORS
from tests.helpers.errors import error_of
from tests.helpers.metrics import difference
from tests.helpers.servers import write_sfq
from tests.helpers.text_models import TEXTS, write_text_model

#: More characters than the event loop encodes at once, and several pieces of them.
LONG = ["the cat " * (INLINE // 100), "", "dogs " * (PIECE // 50)] * 7


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    return {
        "text": write_text_model(folder / "text.sfq"),
        "shared": write_text_model(folder / "shared.sfq", "unigram", rows=20, dim=300, nbit=4, max_tokens=16),
        "words": write_sfq(folder / "words.sfq"),
    }


@pytest.fixture(scope="module")
def server(models, start):
    return start(*models.values(), "--max-batch-tokens", "65536")


@pytest.fixture(scope="module")
def encode(models):
    """Return vectors and counts of tokens by the library."""
    encoders = {name: smallfry.open(models[name]).encoder() for name in ("text", "shared")}

    def encode(name, texts):
        vectors = encoders[name].encode(texts)
        return vectors, [len(ids) for ids in encoders[name].tokenize(texts)]

    return encode


def embed(server, **fields):
    response = server.client.post("/v1/embeddings", json=fields)
    assert response.status_code == 200, response.text
    return response.json()


def embeddings(response):
    return np.array([entry["embedding"] for entry in response["data"]], np.float32)


@pytest.mark.parametrize("name", ["text", "shared"])
@pytest.mark.parametrize("texts", [TEXTS, LONG, ["cat"] * 2048], ids=["few", "long", "many"])
def test_all_formats_have_the_vectors_of_the_library(server, encode, name, texts):
    expected, counts = encode(name, texts)
    found = [count > 0 for count in counts]
    query = {"texts": texts, "model": name}
    plain = server.lookup(query)
    assert plain.json().keys() == {"model", "dim", "vectors", "found"}
    assert plain.json()["found"] == found
    assert np.array(plain.json()["vectors"], np.float32).tobytes() == expected.tobytes()
    raw = server.lookup(query, accept=RAW)
    assert raw.headers["x-smallfry-shape"] == f"{len(texts)},{expected.shape[1]}"
    assert raw.content == expected.tobytes()
    tensors = safetensors.numpy.load(server.lookup(query, accept=SAFETENSORS).content)
    assert tensors["vectors"].tobytes() == expected.tobytes() and tensors["found"].tolist() == found
    half = server.lookup(query | {"dtype": "float16"}, accept=RAW)
    assert half.content == expected.astype(np.float16).tobytes()
    packed = server.lookup(query, accept=f"{PACKED}, {RAW};q=0.5")
    assert packed.headers["content-type"] == RAW and packed.content == expected.tobytes()
    assert error_of(server.lookup(query, accept=PACKED), 406)["param"] == "Accept"


@pytest.mark.parametrize("name", ["text", "shared"])
@pytest.mark.parametrize("texts", [TEXTS, LONG, ["cat"] * 2048], ids=["few", "long", "many"])
def test_embeddings_are_those_of_the_library(server, encode, name, texts):
    expected, counts = encode(name, texts)
    response = embed(server, model=name, input=texts)
    assert embeddings(response).tobytes() == expected.tobytes()
    assert response["usage"] == {"prompt_tokens": sum(counts), "total_tokens": sum(counts)}
    packed = embed(server, model=name, input=texts, encoding_format="base64")
    values = b"".join(base64.b64decode(entry["embedding"]) for entry in packed["data"])
    assert values == expected.tobytes()
    assert embed(server, model=name, input=texts[0]) == embed(server, model=name, input=texts[:1])


def test_text_without_tokens_has_zeros(server):
    response = server.lookup({"texts": ["", " \n"], "model": "text"}).json()
    assert response["found"] == [False, False] and not np.any(response["vectors"])
    assert not np.any(embeddings(embed(server, model="text", input="")))
    assert server.lookup({"texts": [], "model": "text"}).json()["vectors"] == []


@pytest.mark.parametrize("name", ["text", "shared"])
def test_token_ids_of_the_model_have_the_vectors_of_their_text(server, models, name):
    ids = smallfry.open(models[name]).encoder().tokenize(list(TEXTS))
    own = {"model": name, "tokenizer": "model"}
    assert embed(server, input=ids, **own) == embed(server, input=list(TEXTS), model=name)
    assert embed(server, input=ids[0], **own) == embed(server, input=TEXTS[0], model=name)
    many = [ids[i % 3] for i in range(JSON_CHUNK // 8 + 1)][:MAX_TEXTS]
    texts = [TEXTS[i % 3] for i in range(len(many))]
    assert embed(server, input=many, **own) == embed(server, input=texts, model=name)


@pytest.mark.parametrize("given", [[1, 2], [[1], [2]], [15339]])
def test_token_ids_may_be_those_of_another_tokenizer(server, given):
    """LangChain sends those of OpenAI's by default."""
    error = error_of(server.client.post("/v1/embeddings", json={"model": "text", "input": given}), 422)
    assert error["param"] == "input"
    assert '"tokenizer": "model"' in error["message"]
    assert "check_embedding_ctx_length=False" in error["message"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([1, 79], "input[0][1] is 79; the token ids of 'text' are 0 to 78"),
        ([[1], [2, -1]], "input[1][1] is -1"),
        ([[2**63]], "input[0][0] is 9223372036854775808"),
        ([[1, "a"]], "input[0][1] is a string; a token id is a whole number"),
        ([[1, True]], "input[0][1] is a boolean"),
        ([[1, 1.0]], "input[0][1] is a number; a token id"),
        ([[1, [2]]], "input[0][1] is a list"),
        ([[1], "a"], "input[1] is a string among lists"),
        (["a", [1]], "input[1] is a list; a text is a string"),
        (["a", 1], "input[1] is a number; a text is a string"),
        ([1, "a"], "input[0][1] is a string"),
    ],
)
def test_invalid_token_ids_are_named(server, given, words):
    fields = {"model": "text", "input": given, "tokenizer": "model"}
    error = error_of(server.client.post("/v1/embeddings", json=fields), 422)
    assert error["param"] == "input" and words in error["message"]


def test_model_without_tokenizer_takes_no_token_ids_and_no_texts(server):
    fields = {"model": "words", "input": [[1]], "tokenizer": "model"}
    error = error_of(server.client.post("/v1/embeddings", json=fields), 422)
    assert "'words' has no tokenizer" in error["message"]
    error = error_of(server.lookup({"texts": ["the cat"], "model": "words"}), 422)
    assert error["param"] == "texts" and "'words' has no tokenizer" in error["message"]
    assert (
        "give ids or texts" in error_of(server.lookup({"tokens": ["a"], "model": "shared"}), 422)["message"]
    )


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"texts": "the"}, "texts", "texts is a string; it has to be a list of strings"),
        ({"texts": ["a", 3]}, "texts", "texts[1] is a number; a text is a string"),
        ({"texts": [["a"]]}, "texts", "texts[0] is a list; a text is a string"),
        ({"texts": ["a"], "tokens": ["a"]}, "tokens", "tokens and texts; give one of them"),
        ({"texts": ["a"], "pool": "mean"}, "pool", "pool does not apply to texts"),
        ({"texts": ["a"], "oov": "zero"}, "oov", "oov does not apply to texts"),
    ],
)
def test_invalid_queries_are_rejected(server, fields, param, words):
    error = error_of(server.lookup(fields | {"model": "text"}), 422)
    assert error["param"] == param and words in error["message"]


@pytest.mark.parametrize("before", [[], LONG], ids=["few", "long"])
def test_lone_surrogates_are_named(server, before):
    texts = [*before, "ok", "a\ud800"]
    for path, name in (("/lookup", "texts"), ("/v1/embeddings", "input")):
        body = json.dumps({name: texts, "model": "text"})
        error = error_of(server.client.post(path, content=body), 422)
        assert error["param"] == name
        assert f"{name}[{len(texts) - 1}] has a lone surrogate at character 1" in error["message"]


@pytest.mark.parametrize("encoding", ["nul\0byte the", "a" * 1_000_000, "the " * 250_000, "é東🎉" * 100_000])
def test_long_and_odd_texts_are_served_or_rejected(server, encode, encoding):
    response = server.lookup({"texts": [encoding], "model": "shared"}, accept=RAW)
    assert response.content == encode("shared", [encoding])[0].tobytes()
    response = server.lookup({"texts": [encoding], "model": "text"}, accept=RAW)
    expected, counts = encode("text", [encoding])
    if counts[0] <= 65536:
        assert response.content == expected.tobytes()
    else:
        assert "--max-batch-tokens" in error_of(response, 413)["message"]


def test_takes_a_limited_number_of_texts_and_tokens(start, models):
    server = start(models["text"], "--max-batch-tokens", "16")
    assert len(server.lookup({"texts": ["cat"] * 16}).json()["found"]) == 16
    for path, name in (("/lookup", "texts"), ("/v1/embeddings", "input")):
        for texts in (["the cat sat on"] * 5, [""] * 10 + ["cat " * 17], ["cat " * 5000] * 6):
            error = error_of(server.client.post(path, json={name: texts}), 413)
            assert error["param"] == name and "more than 16 tokens" in error["message"]
    error = error_of(server.lookup({"texts": [""] * 17}), 413)
    assert error["param"] == "texts" and "17 texts" in error["message"]
    ids = {"input": [[1] * 9] * 2, "tokenizer": "model"}
    assert "18 token ids" in error_of(server.client.post("/v1/embeddings", json=ids), 413)["message"]
    assert "split the request" in error_of(server.lookup({"texts": [""] * 100_000}), 413)["message"]


def test_tokens_of_texts_are_counted(server, encode):
    def act():
        server.lookup({"texts": list(TEXTS), "model": "text"})
        embed(server, input=list(TEXTS), model="text")

    tokens = 2 * sum(encode("text", TEXTS)[1])
    assert difference(server, act)["smallfry_tokens_total"] == {("found",): tokens, ("unknown",): 0}


def test_models_say_whether_they_have_a_tokenizer(server):
    models = {model["name"]: model for model in server.client.get("/models").json()["models"]}
    assert {name: model["has_tokenizer"] for name, model in models.items()} == {
        "text": True,
        "shared": True,
        "words": False,
    }
    stats = {model["name"]: model["bytes"] for model in server.client.get("/stats").json()["models"]}
    assert stats["text"]["tokenizer"] > 0 == stats["words"]["tokenizer"]
    assert 2 * stats["text"]["total"] == sum(stats["text"].values())


def test_examples_work(server):
    document = server.client.get("/openapi.json").json()
    content = document["paths"]["/lookup"]["post"]["requestBody"]["content"]["application/json"]
    example = content["examples"]["texts"]["value"]
    assert server.lookup(example).status_code == 200
    query = json.loads(server.banner[-1].split(" -d ")[1].strip("'"))
    assert server.lookup(query).json()["found"] == [True]


def test_file_with_a_damaged_tokenizer_is_not_served(start, models, tmp_path):
    data = models["text"].read_bytes()
    assert data.count(b'"normalizer"') == 1
    (tmp_path / "damaged.sfq").write_bytes(data.replace(b'"normalizer"', b'"normalized"'))
    (failed,) = start(models["text"], tmp_path / "damaged.sfq").client.get("/stats").json()["failed"]
    assert failed["file"] == "damaged.sfq" and "tokenizer" in failed["message"]
