"""Servers in processes of their own, as users start them."""

import pytest

from tests.helpers.servers import starting

start = pytest.fixture(scope="session", name="start")(starting)
