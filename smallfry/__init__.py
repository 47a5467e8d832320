"""smallfry: embedding tables at 1 to 16 bits a value, served to every model from one place."""

from __future__ import annotations

import importlib

from smallfry.errors import InputError, OutOfVocabularyError, SfqError, SmallfryError

# As in typing, whose import takes half the time before the commands can handle Ctrl-C.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any

    from smallfry.compress import save as save
    from smallfry.nn import QuantEmbedding as QuantEmbedding
    from smallfry.nn import QuantEmbeddingBag as QuantEmbeddingBag
    from smallfry.nn import RemoteEmbedding as RemoteEmbedding
    from smallfry.nn import StoreEmbedding as StoreEmbedding
    from smallfry.nn import quantize_embed as quantize_embed
    from smallfry.quantization.options import BEST as BEST
    from smallfry.quantization.quantize import quantize as quantize
    from smallfry.store import Store as Store
    from smallfry.store import open as open
    from smallfry.table import Table as Table
    from smallfry.text.static_model import StaticModel as StaticModel

__version__ = "0.2.0"

# Imported at first use: importing smallfry loads NumPy at most, never torch.
_LAZY = {
    "BEST": "smallfry.quantization.options",
    "QuantEmbedding": "smallfry.nn",
    "QuantEmbeddingBag": "smallfry.nn",
    "RemoteEmbedding": "smallfry.nn",
    "StaticModel": "smallfry.text.static_model",
    "Store": "smallfry.store",
    "StoreEmbedding": "smallfry.nn",
    "Table": "smallfry.table",
    "open": "smallfry.store",
    "quantize": "smallfry.quantization.quantize",
    "quantize_embed": "smallfry.nn",
    "save": "smallfry.compress",
}

__all__ = [
    "BEST",
    "InputError",
    "OutOfVocabularyError",
    "QuantEmbedding",
    "QuantEmbeddingBag",
    "RemoteEmbedding",
    "SfqError",
    "SmallfryError",
    "StaticModel",
    "Store",
    "StoreEmbedding",
    "Table",
    "open",
    "quantize",
    "quantize_embed",
    "save",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module attribute has any type
    if name in _LAZY:
        value = getattr(importlib.import_module(_LAZY[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'smallfry' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
