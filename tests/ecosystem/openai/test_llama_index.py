import asyncio

import httpx
import pytest

llama_index = pytest.importorskip("llama_index.embeddings.openai")


def embeddings(url, **clients):
    return llama_index.OpenAIEmbedding(
        model_name="words", api_base=url, api_key="none", embed_batch_size=60, **clients
    )


def test_embeddings_are_those_of_the_file(url, check, texts):
    with httpx.Client() as http:
        client = embeddings(url, http_client=http)
        check(client.get_text_embedding_batch(texts), texts)
        check(
            [client.get_text_embedding("the cat"), client.get_query_embedding("a mat")], ["the cat", "a mat"]
        )


def test_async_client_gets_the_same(url, check, texts):
    async def embed():
        async with httpx.AsyncClient() as http:
            return await embeddings(url, async_http_client=http).aget_text_embedding_batch(texts)

    check(asyncio.run(embed()), texts)
