import asyncio

import openai
import pytest

litellm = pytest.importorskip("litellm")

# It imports its parts when they are used, and pydantic warns of them.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module", autouse=True)
def loop():
    """An event loop for litellm, which would open one and leave it open."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()


@pytest.fixture
def client(url):
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        yield client


@pytest.mark.parametrize("options", [{}, {"encoding_format": "float"}])
def test_embeddings_are_those_of_the_file(client, check, texts, options):
    response = litellm.embedding("openai/words", texts, client=client, **options)
    check([each["embedding"] for each in response.data], texts)
    assert response.usage.total_tokens == sum(len(text.split()) for text in texts)


def test_unknown_model_is_not_found(client):
    with pytest.raises(litellm.NotFoundError, match="there is no model 'gpt'"):
        litellm.embedding("openai/gpt", ["the"], client=client)


def test_valid_models_are_those_of_the_server(url):
    models = litellm.get_valid_models(
        check_provider_endpoint=True, custom_llm_provider="openai", api_base=url, api_key="none"
    )
    assert models == ["words"]
