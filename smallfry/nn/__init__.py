"""Packed tables as torch modules."""

from __future__ import annotations

from smallfry.nn.bag import QuantEmbeddingBag
from smallfry.nn.embedding import QuantEmbedding
from smallfry.nn.linear import TiedLinear
from smallfry.nn.remote import RemoteEmbedding
from smallfry.nn.replace import quantize_embed

__all__ = ["QuantEmbedding", "QuantEmbeddingBag", "RemoteEmbedding", "TiedLinear", "quantize_embed"]
