"""A server for clients of OpenAI's API, and what they must get from it."""

import os
from importlib.util import find_spec
from pathlib import Path

# Nothing is downloaded: litellm comes with its list of models, and with the tokenizer that LangChain uses.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
if litellm := find_spec("litellm"):
    folder = Path(litellm.origin).parent / "litellm_core_utils" / "tokenizers"
    os.environ["TIKTOKEN_CACHE_DIR"] = str(folder)

import numpy as np
import pytest

import smallfry
from tests.helpers.servers import write_sfq


@pytest.fixture(scope="session")
def tiktoken():
    """The tokenizer that LangChain uses by default, as a file of litellm."""
    pytest.importorskip("litellm")
    assert any(Path(os.environ["TIKTOKEN_CACHE_DIR"]).glob("9b5ad71b2ce5*"))


@pytest.fixture(scope="session")
def words(tmp_path_factory):
    """A file of word vectors."""
    return write_sfq(tmp_path_factory.mktemp("models") / "words.sfq", 500, 300, 2)


@pytest.fixture(scope="session")
def server(start, words):
    return start(words)


@pytest.fixture(scope="session")
def url(server):
    return f"{server.address}/v1"


@pytest.fixture(scope="session")
def check(words):
    """Compare embeddings with the means of the vectors in the file; the texts are words and spaces."""
    store = smallfry.open(words)

    def check(embeddings, texts):
        assert len(embeddings) == len(texts)
        for embedding, text in zip(embeddings, texts, strict=True):
            vectors, _ = store.lookup(text.lower().split() or ["<pad>"])
            np.testing.assert_allclose(embedding, vectors.mean(axis=0), rtol=1e-5, atol=1e-7)

    return check


#: Some of one word, of many, and of none.
TEXTS = ["the cat", "a mat", "", "The", *(f"token-{row} token-{row + 1}" for row in range(20, 220))]


@pytest.fixture
def texts():
    return TEXTS
