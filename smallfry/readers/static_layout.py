"""The files of a static embedding model: which directory layout it has, and its settings."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smallfry.errors import InputError, shorten
from smallfry.readers.formats.tensors import tensor_names
from smallfry.readers.listing import listing
from smallfry.sfq.safetensors import decode_json

_MAX_JSON = 1 << 30
_STATIC, _NORMALIZE = "StaticEmbedding", "Normalize"
_MODEL2VEC_LENGTH = 512


@dataclass(frozen=True)
class StaticLayout:
    """Where a static embedding model has its parts, and how it pools tokens."""

    format: str
    """``model2vec``, ``sentence-transformers`` or ``wordllama``."""
    weights: Path
    """A .safetensors file."""
    tensor: str
    """The matrix in it; ``embeddings`` may have ``mapping`` and ``weights`` next to it."""
    tokenizer: Path
    """A ``tokenizer.json``."""
    normalize: bool = False
    max_length: int | None = None
    """The limit of tokens of a model2vec model; it reads this many times the median length of a token."""


def find_layout(directory: str | os.PathLike[str]) -> StaticLayout:
    """Return the layout of a directory.

    Raises
    ------
    InputError
        The directory has no known layout, lacks a part, or has one that smallfry does not reproduce.
    OSError
        A file cannot be read.
    """
    folder = Path(directory)
    if (folder / "modules.json").is_file():
        return _sentence_transformers(folder)
    for nested in (folder, folder / "0_StaticEmbedding"):
        if (nested / "model.safetensors").is_file():
            return _static(folder, nested)
    return _wordllama(folder)


def _read_json(path: Path) -> Any:  # noqa: ANN401 - any JSON value
    with path.open("rb") as file:
        text = file.read(_MAX_JSON)
    try:
        return decode_json(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON: {error}. Please download it again.") from None


def _sentence_transformers(folder: Path) -> StaticLayout:
    modules = _read_json(folder / "modules.json")
    try:
        kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
        paths = [str(module["path"]) for module in modules]
    except (TypeError, KeyError):
        raise InputError(f"{folder / 'modules.json'} is not a list of modules with type and path.") from None
    for position, kind in enumerate(kinds):
        if kind != (_STATIC, _NORMALIZE)[min(position, 1)]:
            raise InputError(
                f"{folder} is a sentence-transformers model whose module {position} is {shorten(kind)}: only "
                f"a {_STATIC}, and {_NORMALIZE} after it, are read."
            )
    if not kinds:
        raise InputError(f"{folder / 'modules.json'} lists no module, expected a {_STATIC}.")
    settings = folder / "config_sentence_transformers.json"
    prompt = _object(settings).get("default_prompt_name") if settings.is_file() else None
    if prompt is not None:
        raise InputError(
            f"{settings} has the default prompt {shorten(prompt)}, which is not read. Please remove it, and "
            "put the prompt before each text."
        )
    nested = folder / paths[0]
    if not nested.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{folder / 'modules.json'} has the path {shorten(paths[0])} outside its folder.")
    return _static(folder, nested, normalize=_NORMALIZE in kinds)


def _static(folder: Path, nested: Path, *, normalize: bool = False) -> StaticLayout:
    """Return the layout of a directory with ``model.safetensors`` and ``tokenizer.json`` in `nested`."""
    weights, tokenizer = nested / "model.safetensors", nested / "tokenizer.json"
    if not weights.is_file():
        raise InputError(f"{nested} has no model.safetensors. Please download it, or save it as safetensors.")
    names = tensor_names(weights)
    tensor = next((name for name in ("embeddings", "embedding.weight") if name in names), None)
    if tensor is None:
        raise InputError(
            f"{weights} has no tensor 'embeddings' (model2vec) or 'embedding.weight' (StaticEmbedding). "
            f"It has {listing(list(names), 200)}. To read one of them as vectors, give the file and --tensor."
        )
    if not tokenizer.is_file():
        raise InputError(f"{nested} has no tokenizer.json, which a text model needs. Please download it.")
    config = folder / "config.json"
    if tensor == "embeddings" and config.is_file():
        settings = _object(config)
        return StaticLayout(
            "model2vec",
            weights,
            tensor,
            tokenizer,
            _flag(config, settings, "normalize"),
            _length(config, settings.get("max_length", _MODEL2VEC_LENGTH)),
        )
    return StaticLayout("sentence-transformers", weights, tensor, tokenizer, normalize)


def _wordllama(folder: Path) -> StaticLayout:
    """Return the layout of a directory with ``weights`` and ``tokenizers``, or with files of both."""
    weights = _files(folder, "weights", "*.safetensors")
    tokenizers = _files(folder, "tokenizers", "*_tokenizer_config.json")
    if weights and not tokenizers:
        raise InputError(
            f"{folder} has {listing([path.name for path in weights], 200)} and no tokenizer, expected "
            "tokenizer.json next to model.safetensors, or tokenizers/*_tokenizer_config.json. To read a "
            "matrix alone, give its file."
        )
    if not weights or not tokenizers:
        raise InputError(
            f"{folder} is not the directory of a static embedding model: it has no model.safetensors "
            "(model2vec), modules.json or 0_StaticEmbedding (sentence-transformers), or "
            "weights/*.safetensors with tokenizers/*_tokenizer_config.json (wordllama)."
        )
    matrix, tokenizer = _only(folder, weights), _only(folder, tokenizers)
    if "embedding.weight" not in tensor_names(matrix):
        raise InputError(f"{matrix} has no tensor 'embedding.weight', as wordllama's weights have.")
    return StaticLayout("wordllama", matrix, "embedding.weight", tokenizer)


def _files(folder: Path, name: str, pattern: str) -> list[Path]:
    return sorted((folder / name).glob(pattern)) or sorted(folder.glob(pattern))


def _only(folder: Path, paths: Sequence[Path]) -> Path:
    if len(paths) > 1:
        raise InputError(
            f"{folder} has {len(paths)} models: {listing([path.name for path in paths], 200)}. Please give a "
            "directory with one of them and its tokenizer."
        )
    return paths[0]


def _object(path: Path) -> dict[str, Any]:
    value = _read_json(path)
    if not isinstance(value, dict):
        raise InputError(f"{path} holds a {type(value).__name__}, expected a JSON object.")
    return value


def _flag(path: Path, settings: dict[str, Any], name: str) -> bool:
    value = settings.get(name, False)
    if type(value) is not bool:
        raise InputError(f"{path} has {name} = {shorten(value)}, expected true or false.")
    return value


def _length(path: Path, value: Any) -> int | None:  # noqa: ANN401 - any JSON value
    if value is not None and (type(value) is not int or not 1 <= value < 1 << 31):
        raise InputError(f"{path} has max_length = {shorten(value)}, expected a positive integer or null.")
    return value
