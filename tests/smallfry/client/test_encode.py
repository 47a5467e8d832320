"""Texts to vectors, by servers and local files."""

import numpy as np
import pytest

import smallfry
from smallfry.client import TooLarge, UnknownModel, Unprocessable
from smallfry.client.batch_size import TextBatchSize
from smallfry.errors import InputError
from tests.helpers.servers import Server, write_sfq
from tests.helpers.text_models import TEXTS, write_text_model

#: Short texts, long ones, and many without tokens.
MANY = [*TEXTS, "the cat " * 400, *[""] * 1500, *(f"the dog {number}" for number in range(1500))]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    return {"text": write_text_model(folder / "text.sfq", nbit=4), "words": write_sfq(folder / "words.sfq")}


@pytest.fixture(scope="module")
def server(models):
    server = Server(*models.values(), "--max-batch-tokens", "1000", forked=True)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def expected(models):
    return smallfry.open(models["text"]).encoder().encode(MANY)


@pytest.fixture(params=["server", "file"])
def url(request, server, models):
    return server.address if request.param == "server" else f"file://{models['text']}"


@pytest.mark.parametrize("options", [{}, {"format": "json"}, {"format": "safetensors"}, {"distinct": True}])
def test_vectors_are_those_of_the_library(connect, url, expected, options):
    client = connect(url, model="text", **options)
    for texts, vectors in ((MANY, expected), (MANY[:3], expected[:3]), (tuple(MANY[:1]), expected[:1])):
        found = client.encode(texts)
        assert found.dtype == np.float32 and found.tobytes() == vectors.tobytes()
    assert client.encode([]).shape == (0, 8)
    half = client.encode(MANY[:3], dtype="float16")
    assert half.tobytes() == expected[:3].astype(np.float16).tobytes()


def test_requests_are_split_by_what_the_server_takes(connect, server, expected):
    client = connect(server.address, model="text", batch_size=100_000)
    assert client.encode(MANY).tobytes() == expected.tobytes()
    assert connect(server.address, model="text", batch_size=1).encode(MANY[:9]).shape == (9, 8)


def test_one_text_that_is_too_long_is_an_error(connect, server):
    with pytest.raises(TooLarge, match="more than 1000 tokens"):
        connect(server.address, model="text").encode(["cat", "cat " * 1001])


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        ("the cat", TypeError, r"please give a list of texts: \['the cat'\]"),
        (b"cat", TypeError, "please give a list"),
        (["cat", 3], TypeError, r"texts\[1\] is int, expected str"),
        ([["cat"]], TypeError, r"texts\[0\] is list"),
        (["cat", "a\ud800"], InputError, r"texts\[1\] has a lone surrogate at character 1"),
    ],
)
def test_invalid_arguments_are_named(connect, url, texts, error, message):
    client = connect(url, model="text")
    with pytest.raises(error, match=message):
        client.encode(texts)
    with pytest.raises(InputError, match="dtype is 'int8'"):
        client.encode(["cat"], dtype="int8")


def test_model_without_tokenizer_is_an_error(connect, server, models):
    for client in (connect(server.address, model="words"), connect(f"file://{models['words']}")):
        with pytest.raises(Unprocessable, match="tokenizer") as raised:
            client.encode(["cat"])
        assert raised.value.param == "texts"
    with pytest.raises(UnknownModel):
        connect(f"file://{models['text']}").encode(["cat"], model="other")


def test_models_say_whether_they_have_a_tokenizer(connect, server, models):
    found = {model.name: model.has_tokenizer for model in connect(server.address).models()}
    assert found == {"text": True, "words": False}
    assert connect(f"file://{models['text']}").models()[0].has_tokenizer


def test_batches_of_texts_shrink_until_they_have_one():
    size, texts = TextBatchSize(1000), ["", "a" * 5000, "b", "c" * 10, *[""] * 1000]
    begin, ends = 0, []
    while begin < len(texts):
        begin = size.end(texts, begin)
        ends.append(begin)
    assert ends[:2] == [1, 2] and len(ends) < 10
    while (end := size.end(texts, 3)) > 4:
        size.halve(texts[3:end])
    assert size.end(texts, 1) == 2
