"""Servers and files that the tests share."""

import pytest

from tests.helpers.browser import browsing
from tests.helpers.servers import forking, write_sfq


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {
        "small": write_sfq(folder / "small.sfq"),
        "large": write_sfq(folder / "large.sfq", 5000, 300, 2),
        "ids": write_sfq(folder / "ids.sfq", 50, 3, 8, tokens=False),
    }


#: Starts servers that end with the session at the latest.
start = pytest.fixture(scope="session", name="start")(forking)

#: A headless Chromium, of a module: while it runs, no other event loop can.
browser = pytest.fixture(scope="module", name="browser")(browsing)


@pytest.fixture(scope="session")
def server(files, start):
    """One server over one vocabulary, shared by all tests that change nothing."""
    return start(files["small"])


@pytest.fixture(scope="session")
def several(files, start):
    """One server over several vocabularies."""
    return start(*files.values())
