"""Servers that the attacks share."""

import pytest

from tests.helpers.servers import forking

#: Starts servers that end with the session at the latest.
start = pytest.fixture(scope="session", name="start")(forking)
