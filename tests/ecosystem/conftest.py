"""What the tests of other libraries and tools share; nothing is downloaded."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest
import torch

from tests.helpers.servers import starting

#: Starts servers that end with the session at the latest.
start = pytest.fixture(scope="session", name="start")(starting)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)
