"""Every code block of the pages that use these libraries runs; see tests/docs."""

import pytest

from tests.docs.inputs import Inputs
from tests.docs.page import pages_of
from tests.docs.runner import run_page


# peft calls what transformers deprecated.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
@pytest.mark.parametrize("page", pages_of("ecosystem"), ids=str)
def test_code_of_page_runs(page, tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # instead of a download
    monkeypatch.chdir(tmp_path)
    run_page(page, tmp_path, Inputs(tmp_path_factory.mktemp("inputs")))
