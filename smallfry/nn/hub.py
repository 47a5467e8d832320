"""Packed modules in the Hugging Face layout: ``config.json`` and ``model.safetensors``.

``model.safetensors`` is a ``.sfq`` file, whose tensors have the names of a packed module's buffers: any
safetensors reader opens it, `PackedModule.from_sfq` maps it, and the server serves it. ``config.json`` holds
the constructor's options and the dtype of the output.

``huggingface_hub`` is imported only to download or upload.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import tempfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from smallfry.errors import InputError, shorten
from smallfry.nn.module import PackedModule
from smallfry.sfq.atomic import replacing

if TYPE_CHECKING:
    from typing_extensions import Self

CONFIG = "config.json"
WEIGHTS = "model.safetensors"

MAX_CONFIG = 1 << 20
"""Limit for ``config.json``, in bytes; one that is saved takes a few hundred."""

_TYPES: dict[str, tuple[type, ...]] = {
    "padding_idx": (int, type(None)),
    "embed_scale": (float, int, type(None)),
    "round_scale": (bool,),
    "mode": (str,),
    "include_last_offset": (bool,),
}


class HubMixin(PackedModule):
    """Adds `from_pretrained`, `save_pretrained` and `push_to_hub`."""

    @classmethod
    def from_pretrained(
        cls,
        embeddings: Tensor | str | os.PathLike[str],
        freeze: bool = True,
        *positional: Any,  # noqa: ANN401 - options of the constructor
        nbit: int = 32,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        token: str | bool | None = None,
        **options: Any,  # noqa: ANN401 - those of the constructor
    ) -> Self:
        """Return a module with pretrained vectors.

        Parameters
        ----------
        embeddings : Tensor, path or str
            A matrix, as in `torch.nn.Embedding.from_pretrained`; a folder written by `save_pretrained`; or
            the name of a repository on the Hugging Face Hub. The file of a folder or repository is mapped.
        freeze : bool
            Must be True: a packed table is not trainable.
        *positional
            Options of the constructor in the order of the torch module's ``from_pretrained``.
        nbit : int
            Bits per value, for a matrix.
        revision, cache_dir, token : optional
            Passed to ``huggingface_hub.hf_hub_download``.
        **options
            Options of the constructor; they override the saved ones.

        Raises
        ------
        InputError
            ``freeze`` is False, the matrix is not two-dimensional, or ``config.json`` is not of this package.
        SfqError
            ``model.safetensors`` is damaged or not a ``.sfq`` file.
        ImportError
            ``embeddings`` names a repository, and ``huggingface_hub`` is not installed.
        """
        if not freeze:
            raise InputError(
                "freeze=False requests training, but a packed table is constant. Please omit it."
            )
        _, _, *names = inspect.signature(cls.FLOAT.from_pretrained).parameters
        if len(positional) > len(names):
            raise TypeError(f"{len(positional) + 2} positional arguments, expected at most {len(names) + 2}")
        options |= zip(names, positional, strict=False)
        if isinstance(embeddings, Tensor):
            if embeddings.ndim != 2:
                raise InputError(f"the matrix has shape {list(embeddings.shape)}, expected [rows, dim]")
            rows, dim = embeddings.shape
            return cls(rows, dim, _weight=embeddings, nbit=nbit, **options)
        folder = Path(embeddings)
        if folder.is_dir():
            config, weights = folder / CONFIG, folder / WEIGHTS
        else:
            download = partial(_hub().hf_hub_download, revision=revision, cache_dir=cache_dir, token=token)
            config, weights = (Path(download(str(embeddings), name)) for name in (CONFIG, WEIGHTS))
        saved = _read_config(config)
        options = {name: saved[name] for name in cls.OPTIONS if name in saved} | options
        return cls.from_sfq(weights, dtype=_dtype(saved.get("dtype", "float32")), **options)

    def save_pretrained(self, folder: str | os.PathLike[str], tokens: Iterable[str] | None = None) -> None:
        """Write ``config.json`` and ``model.safetensors`` to a folder, which is created if missing.

        Parameters
        ----------
        folder : path
        tokens : iterable of str, optional
            One token for each row, for lookup by token.
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
        with replacing(folder / CONFIG) as file:
            file.write(json.dumps(config, indent=2).encode() + b"\n")

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
        """Upload the files of `save_pretrained` to a Hugging Face Hub repository, created if missing."""
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
    if path.stat().st_size > MAX_CONFIG:
        raise InputError(f"{path} has {path.stat().st_size:,} bytes, expected at most {MAX_CONFIG:,}")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(config, dict) or config.get("library_name") != "smallfry":
        raise InputError(f"{path} does not describe a packed embedding: its library_name is not 'smallfry'")
    for name, types in _TYPES.items():
        if name in config and type(config[name]) not in types:
            expected = " or ".join("null" if kind is type(None) else kind.__name__ for kind in types)
            raise InputError(f"{path} has {name} {shorten(config[name])}, expected {expected}")
    return config


def _dtype(name: object) -> torch.dtype:
    dtype = getattr(torch, name, None) if isinstance(name, str) else None
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise InputError(
            f"{CONFIG} names the dtype {shorten(name)}, expected one such as 'float32' or 'bfloat16'"
        )
    return dtype
