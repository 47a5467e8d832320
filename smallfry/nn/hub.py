"""Packed modules in the Hugging Face layout: ``config.json`` beside ``model.safetensors``.

A ``.sfq`` file is a safetensors file, and its tensors have the names of a packed module's buffers. So
``model.safetensors`` is one: any safetensors reader opens it, `PackedModule.from_sfq` maps it, and the
service serves it. ``config.json`` holds the constructor's options and the dtype of the answers.

``huggingface_hub`` is imported when something is fetched or pushed, never for a folder.
"""

from __future__ import annotations

import importlib
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from smallfry.errors import InputError
from smallfry.nn.module import PackedModule

if TYPE_CHECKING:
    from typing_extensions import Self

CONFIG = "config.json"
WEIGHTS = "model.safetensors"


class HubMixin(PackedModule):
    """`from_pretrained`, `save_pretrained` and `push_to_hub` of the packed modules."""

    @classmethod
    def from_pretrained(
        cls,
        source: Tensor | str | os.PathLike[str],
        freeze: bool = True,
        *,
        nbit: int = 32,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        token: str | bool | None = None,
        **options: Any,  # noqa: ANN401 - those of the constructor
    ) -> Self:
        """Return a module with given vectors.

        Parameters
        ----------
        source : Tensor, path or str
            A matrix, as `torch.nn.Embedding.from_pretrained` takes it; a folder written by `save_pretrained`;
            or the name of a repository on the Hugging Face Hub. The file of a folder or repository is mapped.
        freeze : bool
            True: a packed table is never trained.
        nbit : int
            Bits a value, for a matrix.
        revision, cache_dir, token : optional
            Handed to ``huggingface_hub.hf_hub_download``.
        **options
            Of the constructor, in place of those saved.
        """
        if not freeze:
            raise InputError(
                "freeze=False asks for training, and a packed table is fixed. Please leave it out."
            )
        if isinstance(source, Tensor):
            if source.ndim != 2:
                raise InputError(f"the matrix has shape {list(source.shape)}, expected [rows, dim]")
            rows, dim = source.shape
            return cls(rows, dim, _weight=source, nbit=nbit, **options)
        folder = Path(source)
        if folder.is_dir():
            config, weights = folder / CONFIG, folder / WEIGHTS
        else:
            fetched = {"revision": revision, "cache_dir": cache_dir, "token": token}
            download = _hub().hf_hub_download
            config, weights = (Path(download(str(source), name, **fetched)) for name in (CONFIG, WEIGHTS))
        saved = _read_config(config)
        options = {name: saved[name] for name in cls.OPTIONS if name in saved} | options
        return cls.from_sfq(weights, dtype=_dtype(saved.get("dtype", "float32")), **options)

    def save_pretrained(self, folder: str | os.PathLike[str], tokens: Iterable[str] | None = None) -> None:
        """Write ``config.json`` and ``model.safetensors`` to a folder, which is made if need be.

        Parameters
        ----------
        folder : path
        tokens : iterable of str, optional
            One for each row, to be served and looked up by.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.to_sfq(folder / WEIGHTS, tokens)
        config = {
            "library_name": "smallfry",
            "architectures": [type(self).__name__],
            "num_embeddings": self.num_embeddings,
            "embedding_dim": self.embedding_dim,
            "nbit": self.nbit,
            "dtype": str(self.packed.dtype).removeprefix("torch."),
            **self.options,
        }
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    def push_to_hub(
        self,
        repo_id: str,
        *,
        tokens: Iterable[str] | None = None,
        private: bool | None = None,
        revision: str | None = None,
        commit_message: str = "Add a packed embedding",
        token: str | bool | None = None,
    ) -> None:
        """Upload what `save_pretrained` writes to a repository on the Hugging Face Hub, made if need be."""
        hub = _hub().HfApi(token=token)
        hub.create_repo(repo_id, private=private, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, tokens)
            hub.upload_folder(
                repo_id=repo_id, folder_path=folder, revision=revision, commit_message=commit_message
            )


def _hub() -> ModuleType:
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError:
        raise ImportError(
            "The Hugging Face Hub needs huggingface_hub. Please install it: pip install 'smallfry[hub]'."
        ) from None


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is no JSON: {error}") from None
    if not isinstance(config, dict) or config.get("library_name") != "smallfry":
        raise InputError(f"{path} does not describe a packed embedding: its library_name is not 'smallfry'")
    return config


def _dtype(name: object) -> torch.dtype:
    found = getattr(torch, name, None) if isinstance(name, str) else None
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise InputError(f"{CONFIG} names the dtype {name!r}, expected one such as 'float32' or 'bfloat16'")
    return found
