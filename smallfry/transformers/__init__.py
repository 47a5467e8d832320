"""Packed embeddings in transformers: saving, loading, and quantizing while loading.

Importing this module registers the quantization method ``smallfry`` with transformers. `quantize_embed`
imports it for a transformers model; a process that only loads one must import it before ``from_pretrained``.
"""

from __future__ import annotations

from smallfry.transformers.loading import SmallfryConfig, SmallfryQuantizer
from smallfry.transformers.saving import attach

__all__ = ["SmallfryConfig", "SmallfryQuantizer", "attach"]
