"""Packed static embeddings of sentence-transformers, and text models."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sentence_transformers.base.modules import InputModule
from sentence_transformers.sentence_transformer import modules
from tokenizers import Tokenizer
from torch import nn

from smallfry import store
from smallfry.nn.bag import QuantEmbeddingBag

if TYPE_CHECKING:
    from typing_extensions import Self


_FILE = "model.sfq"
_LOADING = ("subfolder", "token", "cache_folder", "revision", "local_files_only")


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
        folder = _folder(cls, model_name_or_path, kwargs)
        embedding = QuantEmbeddingBag.from_pretrained(folder)
        tokenizer = Tokenizer.from_file(str(Path(folder, "tokenizer.json")))
        # The constructor makes a float table; its values are not used.
        module = cls(tokenizer, embedding_weights=torch.empty(0, embedding.embedding_dim))
        module.embedding, module.num_embeddings = embedding, embedding.num_embeddings
        return module


class TextEmbedding(InputModule):  # type: ignore[misc]
    """Encodes texts with the ``.sfq`` file of a text model, on the CPU.

    A saved model has a copy of the file, and is loaded with ``trust_remote_code=True``.

    Parameters
    ----------
    path : path
        A file that ``smallfry compress DIRECTORY`` wrote.

    Examples
    --------
    >>> model = SentenceTransformer(modules=[TextEmbedding("potion.sfq")])
    >>> model.encode(["a sentence"]).shape
    (1, 256)
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__()
        self._path = Path(path)
        self._encoder = store.open(path).encoder()

    def preprocess(
        self, inputs: list[str], prompt: str | None = None, **kwargs: object
    ) -> dict[str, torch.Tensor]:
        """Return the token ids of texts, and where those of each begin."""
        ids, offsets = self._encoder.token_ids([(prompt or "") + text for text in inputs])
        return {"input_ids": torch.from_numpy(ids), "offsets": torch.from_numpy(offsets)}

    def forward(self, features: dict[str, torch.Tensor], **kwargs: object) -> dict[str, torch.Tensor]:
        """Add the vectors of texts, float32 ``[n, dim]``."""
        ids = features["input_ids"]
        vectors = self._encoder.pool(*(np.asarray(features[name].cpu()) for name in ("input_ids", "offsets")))
        features["sentence_embedding"] = torch.from_numpy(vectors).to(ids.device)
        return features

    @property
    def max_seq_length(self) -> float:
        """Tokens after which a text is cut."""
        return self._encoder.max_tokens or math.inf

    def get_embedding_dimension(self) -> int:
        """Return the number of values in a vector."""
        return self._encoder.dim

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Copy the file."""
        shutil.copyfile(self._path, Path(output_path, _FILE))

    @classmethod
    def load(cls, model_name_or_path: str, **kwargs: Any) -> Self:  # noqa: ANN401
        """Load from a folder or the Hugging Face Hub; the file is mapped."""
        return cls(Path(_folder(cls, model_name_or_path, kwargs), _FILE))


def attach(model: nn.Module) -> None:
    """Let sentence-transformers save the packed static embeddings of ``model``."""
    for module in model.modules():
        if type(module) is modules.StaticEmbedding and isinstance(module.embedding, QuantEmbeddingBag):
            module.__class__ = StaticEmbedding


def _folder(module: type[InputModule], name: str, options: dict[str, Any]) -> str:
    folder: str = module.load_dir_path(name, **{key: options[key] for key in _LOADING if key in options})
    return folder
