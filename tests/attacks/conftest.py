"""Servers that the attacks share."""

import pytest

from tests.helpers.servers import starting

#: Starts servers that end with the session at the latest.
start = pytest.fixture(scope="session", name="start")(starting)
