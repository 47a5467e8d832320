"""Code of the documentation that uses Ray."""

import pyarrow
import pytest
from pyarrow import parquet

from tests.docs.inputs import Inputs
from tests.docs.page import pages_of
from tests.docs.runner import run_page


@pytest.mark.parametrize("page", pages_of("ray"), ids=str)
@pytest.mark.usefixtures("cluster")
def test_code_of_page_runs(page, tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path)
    corpus = tmp_path / "shared" / "corpus"
    corpus.mkdir(parents=True)
    parquet.write_table(pyarrow.table({"tokens": [["the", "cat"], ["a", "mat"]]}), corpus / "0.parquet")
    run_page(page, tmp_path, Inputs(tmp_path_factory.mktemp("inputs")))
