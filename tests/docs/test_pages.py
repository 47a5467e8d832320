"""Every code block of the documentation runs, or is parsed, and prints what the page shows after it."""

import pytest

from tests.docs.inputs import Inputs
from tests.docs.page import LANGUAGES, ROOT, blocks, pages, pages_of, unfenced
from tests.docs.runner import run_page


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return Inputs(tmp_path_factory.mktemp("inputs"))


# torch prefers another option, which how-to/distributed.md explains.
@pytest.mark.filterwarnings("ignore:`broadcast_buffers` is deprecated:FutureWarning")
@pytest.mark.parametrize("page", pages_of("docs"), ids=str)
def test_code_of_page_runs(page, inputs, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    run_page(page, tmp_path, inputs)


@pytest.mark.parametrize("page", pages(), ids=str)
def test_code_of_page_is_fenced_with_a_known_language(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert unfenced(text) == []
    assert {block.language for block in blocks(text)} <= LANGUAGES
