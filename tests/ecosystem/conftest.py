"""Small models of the libraries, with random weights; nothing is downloaded."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest
import torch


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)
