"""Packed static embeddings of sentence-transformers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from sentence_transformers.sentence_transformer import modules
from tokenizers import Tokenizer
from torch import nn

from smallfry.nn.bag import QuantEmbeddingBag

if TYPE_CHECKING:
    from typing_extensions import Self


class StaticEmbedding(modules.StaticEmbedding):  # type: ignore[misc]
    """A `StaticEmbedding` with a packed table, written by `QuantEmbeddingBag.save_pretrained`.

    `quantize_embed` changes the static embeddings of a model to this class. A saved model names it in
    ``modules.json``, and sentence-transformers imports classes of other packages only if they are trusted:
    ``SentenceTransformer(path, trust_remote_code=True)``.
    """

    embedding: QuantEmbeddingBag

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Write the table and the tokenizer."""
        self.embedding.save_pretrained(output_path)
        self.tokenizer.save(str(Path(output_path, "tokenizer.json")))

    @classmethod
    def load(cls, model_name_or_path: str, **kwargs: Any) -> Self:  # noqa: ANN401
        """Load from a folder or the Hugging Face Hub; the file of the table is mapped."""
        names = ("subfolder", "token", "cache_folder", "revision", "local_files_only")
        folder = cls.load_dir_path(
            model_name_or_path, **{name: kwargs[name] for name in names if name in kwargs}
        )
        embedding = QuantEmbeddingBag.from_pretrained(folder)
        tokenizer = Tokenizer.from_file(str(Path(folder, "tokenizer.json")))
        # The constructor makes a float table; its values are not used.
        module = cls(tokenizer, embedding_weights=torch.empty(0, embedding.embedding_dim))
        module.embedding, module.num_embeddings = embedding, embedding.num_embeddings
        return module


def attach(model: nn.Module) -> None:
    """Let sentence-transformers save the packed static embeddings of ``model``."""
    for module in model.modules():
        if type(module) is modules.StaticEmbedding and isinstance(module.embedding, QuantEmbeddingBag):
            module.__class__ = StaticEmbedding
