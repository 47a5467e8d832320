"""Packed tables as torch modules."""

from __future__ import annotations

from smallfry.nn.bag import QuantEmbeddingBag
from smallfry.nn.device_table import DeviceTable
from smallfry.nn.embedding import QuantEmbedding
from smallfry.nn.linear import TiedLinear
from smallfry.nn.remote import RemoteEmbedding
from smallfry.nn.replace import quantize_embed
from smallfry.nn.store_embedding import StoreEmbedding

__all__ = [
    "DeviceTable",
    "QuantEmbedding",
    "QuantEmbeddingBag",
    "RemoteEmbedding",
    "StoreEmbedding",
    "TiedLinear",
    "quantize_embed",
]
