import asyncio

import httpx
import openai
import pytest

from tests.helpers.servers import LARGE_BODY, SlowRequest, eventually


@pytest.fixture
def client(url):
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        yield client


# Without a format it requests base64 and decodes it.
@pytest.mark.parametrize("options", [{}, {"encoding_format": "float"}, {"dimensions": 300, "user": "me"}])
def test_embeddings_are_those_of_the_file(client, check, texts, options):
    response = client.embeddings.create(model="words", input=texts, **options)
    check([each.embedding for each in response.data], texts)
    assert response.model == "words"
    assert response.usage.total_tokens == sum(len(text.split()) for text in texts)
    one = client.embeddings.create(model="words", input="the cat", **options)
    check([one.data[0].embedding], ["the cat"])


def test_async_client_gets_the_same(url, check, texts):
    async def embed():
        async with openai.AsyncOpenAI(base_url=url, api_key="none") as client:
            return await client.embeddings.create(model="words", input=texts)

    check([each.embedding for each in asyncio.run(embed()).data], texts)


def test_models_are_listed_and_retrieved(client):
    (model,) = client.models.list()
    assert (model.id, model.object, model.owned_by) == ("words", "model", "smallfry")
    assert client.models.retrieve("words") == model


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"model": "gpt"}, openai.NotFoundError, "there is no model 'gpt'; loaded: 'words'"),
        ({"input": []}, openai.BadRequestError, "at least one text"),
        ({"input": [[1, 2]]}, openai.UnprocessableEntityError, "check_embedding_ctx_length=False"),
        ({"input": [1, 2]}, openai.UnprocessableEntityError, "no tokenizer"),
        ({"dimensions": 10}, openai.UnprocessableEntityError, "300 dimensions"),
        ({"input": ["the"] * 2049}, openai.APIStatusError, "2048"),
    ],
)
def test_errors_have_their_classes(client, fields, error, message):
    with pytest.raises(error, match=message) as raised:
        client.embeddings.create(**({"model": "words", "input": "the"} | fields))
    assert raised.value.request_id == raised.value.response.headers["x-request-id"]


def test_unknown_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt'"):
        client.models.retrieve("gpt")


def test_wrong_key_is_an_authentication_error(start, words, check):
    address = start(words, SMALLFRY_API_KEYS="key").address
    with openai.OpenAI(base_url=f"{address}/v1", api_key="wrong") as client:
        with pytest.raises(openai.AuthenticationError):
            client.models.list()
        with pytest.raises(openai.AuthenticationError):
            client.embeddings.create(model="words", input="the")
        right = client.with_options(api_key="key")
        check([right.embeddings.create(model="words", input="the").data[0].embedding], ["the"])


#: A text of one word, in a body that is limited as a large one.
LARGE = "the" + " " * len(LARGE_BODY)


@pytest.fixture
def busy(start, words):
    """A server whose room for large bodies is taken, and the request that has it."""
    server = start(words, "--max-concurrent-requests", "1", "--max-queue", "0", "--max-body", "150000")
    slow = SlowRequest(server)
    eventually(lambda: server.client.post("/lookup", content=LARGE_BODY).status_code == 429)
    yield server, slow
    slow.close()


def test_busy_server_is_tried_again(busy, check):
    server, slow = busy
    statuses = []

    def respond(response):
        statuses.append(response.status_code)
        if response.status_code == 429:
            slow.finish()

    with httpx.Client(event_hooks={"response": [respond]}) as http:
        client = openai.OpenAI(base_url=f"{server.address}/v1", api_key="none", http_client=http)
        check([client.embeddings.create(model="words", input=LARGE).data[0].embedding], ["the"])
    assert statuses == [429, 200]


def test_busy_server_is_a_rate_limit_error(busy):
    server, _ = busy
    with openai.OpenAI(base_url=f"{server.address}/v1", api_key="none", max_retries=0) as client:
        with pytest.raises(openai.RateLimitError, match="try again") as raised:
            client.embeddings.create(model="words", input=LARGE)
    assert raised.value.response.headers["retry-after"] == "1"
