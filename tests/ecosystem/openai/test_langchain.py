import httpx
import pytest

langchain_openai = pytest.importorskip("langchain_openai")


@pytest.fixture
def embeddings(url):
    """Return a function that makes a client."""
    with httpx.Client() as client:
        yield lambda **options: langchain_openai.OpenAIEmbeddings(
            model="words", base_url=url, api_key="none", max_retries=0, http_client=client, **options
        )


@pytest.mark.parametrize("options", [{}, {"chunk_size": 7}, {"dimensions": 300}])
def test_embeddings_are_those_of_the_file(embeddings, check, texts, options):
    client = embeddings(check_embedding_ctx_length=False, **options)
    check(client.embed_documents(texts), texts)
    check([client.embed_query("the cat")], ["the cat"])
    assert client.embed_documents([]) == []


@pytest.mark.usefixtures("tiktoken")
def test_default_raises_an_error_that_names_the_option(embeddings):
    """By default it sends token ids of its own tokenizer."""
    for embed in (embeddings().embed_query, lambda text: embeddings().embed_documents([text])):
        with pytest.raises(Exception, match="check_embedding_ctx_length=False"):
            embed("the cat")
