"""Clients of OpenAI's API with a model that has a tokenizer of its own."""

import httpx
import numpy as np
import openai
import pytest

import smallfry
from tests.helpers.text_models import TEXTS, write_text_model


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_text_model(tmp_path_factory.mktemp("models") / "text.sfq", dim=64, nbit=4)


@pytest.fixture(scope="module")
def encoder(path):
    return smallfry.open(path).encoder()


@pytest.fixture(scope="module")
def address(start, path):
    return f"{start(path).address}/v1"


@pytest.fixture
def client(address):
    with openai.OpenAI(base_url=address, api_key="none", max_retries=0) as client:
        yield client


def check(data, expected):
    assert np.array([each.embedding for each in data], np.float32).tobytes() == expected.tobytes()


@pytest.mark.parametrize("options", [{}, {"encoding_format": "float"}, {"dimensions": 64}])
def test_openai_gets_the_vectors_of_the_library(client, encoder, options):
    response = client.embeddings.create(model="text", input=list(TEXTS), **options)
    check(response.data, encoder.encode(TEXTS))
    assert response.usage.total_tokens == sum(map(len, encoder.tokenize(TEXTS)))


def test_openai_sends_token_ids_of_the_model_if_it_says_so(client, encoder):
    ids = encoder.tokenize(TEXTS)
    with pytest.raises(openai.UnprocessableEntityError, match='"tokenizer": "model"'):
        client.embeddings.create(model="text", input=ids)
    response = client.embeddings.create(model="text", input=ids, extra_body={"tokenizer": "model"})
    check(response.data, encoder.encode(TEXTS))


@pytest.fixture
def langchain(address):
    """Return a function that makes a client."""
    langchain_openai = pytest.importorskip("langchain_openai")
    with httpx.Client() as client:
        yield lambda **options: langchain_openai.OpenAIEmbeddings(
            model="text", base_url=address, api_key="none", max_retries=0, http_client=client, **options
        )


def test_langchain_gets_the_vectors_of_the_library(langchain, encoder):
    client = langchain(check_embedding_ctx_length=False)
    found = np.array(client.embed_documents(list(TEXTS)), np.float32)
    assert found.tobytes() == encoder.encode(TEXTS).tobytes()
    one = np.array(client.embed_query("the cat"), np.float32)
    assert one.tobytes() == encoder.encode(["the cat"]).tobytes()


@pytest.mark.usefixtures("tiktoken")
def test_langchain_is_told_the_option_for_texts(langchain):
    """By default it sends token ids of another tokenizer, which are those of other tokens here."""
    for embed in (langchain().embed_query, lambda text: langchain().embed_documents([text])):
        with pytest.raises(openai.UnprocessableEntityError, match="check_embedding_ctx_length=False"):
            embed("the cat")
