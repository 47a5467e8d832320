"""Servers that the attacks share."""

from __future__ import annotations

import pytest

from tests.helpers.servers import starting

#: Starts servers that end with the session at the latest.
start = pytest.fixture(scope="session", name="start")(starting)
