"""Save packed models of transformers: configuration, tied weights, and markers in the checkpoint."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from smallfry.errors import InputError
from smallfry.nn.linear import TiedLinear
from smallfry.nn.module import PackedModule
from smallfry.nn.packed import PARTS

_logger = logging.getLogger(__name__)

METHOD = "smallfry"
"""``quant_method`` in the configuration of a model."""

OPTIONAL_PARTS = {
    "mean": torch.float32,
    "column_scale": torch.float32,
    "row_scale": torch.float16,
    "zero_rows": torch.int64,
}
"""The dtypes of the tensors that not every packed module has."""


def attach(model: nn.Module) -> None:
    """Let transformers save the packed embeddings of ``model`` and its parts; called by `quantize_embed`."""
    # The outermost last: parts may share its configuration.
    for part in reversed(list(model.modules())):
        if isinstance(part, PreTrainedModel) and any(
            isinstance(module, PackedModule) for module in part.modules()
        ):
            _exclude_from_tying(part)
            _describe(part)
            part.save_pretrained = partial(_save_pretrained, part)
            # Wrappers and models of images may have no input embeddings.
            with suppress(NotImplementedError):
                if isinstance(part.get_input_embeddings(), PackedModule):
                    part.resize_token_embeddings = partial(_resize_token_embeddings, part)
    if "sentence_transformers" in sys.modules:
        importlib.import_module("smallfry.sentence_transformers").attach(model)


def _exclude_from_tying(model: PreTrainedModel) -> None:
    """Remove packed modules, which are tied as modules, from the weights that transformers ties and saves."""
    modules = dict(model.named_modules(remove_duplicate=False))

    def is_packed(weight: str) -> bool:
        module = modules.get(weight.rpartition(".")[0])
        return isinstance(module, PackedModule) or (
            isinstance(module, TiedLinear) and weight.endswith(".weight")
        )

    for field in ("_tied_weights_keys", "all_tied_weights_keys"):
        # transformers 4 has a list, or none.
        if isinstance(tied := getattr(model, field, None), dict):
            kept = {
                name: source for name, source in tied.items() if not is_packed(name) and not is_packed(source)
            }
            setattr(model, field, kept)
    model._keys_to_ignore_on_save = {
        *(model._keys_to_ignore_on_save or ()),
        *(f"{alias}.{part}" for alias in aliases(model) for part in (*PARTS, "weight")),
    }


def _describe(model: PreTrainedModel) -> None:
    """Write the packed modules of a model to its configuration."""
    current = getattr(model.config, "quantization_config", None)
    if current is not None and dict(current)["quant_method"] != METHOD:
        _logger.warning(
            "%s is quantized by another method, so save_pretrained does not record which embeddings are "
            "packed; torch.save does.",
            type(model).__name__,
        )
        return
    modules = dict(model.named_modules(remove_duplicate=False))
    packed = {name: module for name, module in modules.items() if isinstance(module, PackedModule)}
    names = {module: name for name, module in reversed(packed.items())}
    heads = {name: names[head.embedding] for name, head in modules.items() if isinstance(head, TiedLinear)}
    # A dictionary, as in a loaded configuration: from_pretrained(config=…) does not take an object.
    model.config.quantization_config = {
        "quant_method": METHOD,
        "nbit": {name: module.nbit for name, module in packed.items()},
        "parts": _parts(model),
        "tied": aliases(model) | heads,
    }
    if _update_parts not in model._load_state_dict_post_hooks.values():
        model.register_load_state_dict_post_hook(_update_parts)


def _update_parts(model: PreTrainedModel, incompatible_keys: object) -> None:
    """Update the configuration: a loaded state dict may have other rows of zeros."""
    model.config.quantization_config["parts"] = _parts(model)


def _parts(model: PreTrainedModel) -> dict[str, list[str]]:
    return {
        name: parts
        for name, module in model.named_modules()
        if isinstance(module, PackedModule)
        and (parts := [part for part in OPTIONAL_PARTS if getattr(module, part) is not None])
    }


def aliases(model: nn.Module) -> dict[str, str]:
    """Return the names of packed modules whose table is also that of an earlier one, with its name."""
    first: dict[int, str] = {}
    return {
        name: earlier
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, PackedModule)
        and (earlier := first.setdefault(id(module.packed.codes), name)) != name
    }


def _save_pretrained(
    model: PreTrainedModel,
    save_directory: str | os.PathLike[str],
    is_main_process: bool = True,
    state_dict: Mapping[str, Tensor] | None = None,
    *args: Any,  # noqa: ANN401 - as transformers passes them
    **kwargs: Any,  # noqa: ANN401
) -> None:
    """Save a model, with an empty tensor in place of each float table.

    Without `smallfry.transformers`, transformers makes a float model and ignores the packed tensors; the
    empty ones have the wrong size, which is an error.
    """
    packed = {name: module for name, module in model.named_modules() if isinstance(module, PackedModule)}
    if state_dict is not None:
        state_dict = dict(state_dict)
        for name, module in packed.items():
            _mark(module, state_dict, f"{name}.")
    hooks = [
        module.register_state_dict_post_hook(_mark)  # type: ignore[no-untyped-call]
        for module in packed.values()
    ]
    try:
        type(model).save_pretrained(model, save_directory, is_main_process, state_dict, *args, **kwargs)
    finally:
        for hook in hooks:
            hook.remove()


def _mark(module: PackedModule, state_dict: dict[str, Tensor], prefix: str, *args: object) -> None:
    """Add the empty tensor of a module to a state dict with its codes."""
    if f"{prefix}codes" in state_dict:
        state_dict[f"{prefix}weight"] = torch.empty(0, dtype=torch.uint8)


def _resize_token_embeddings(
    model: PreTrainedModel,
    new_num_tokens: int | None = None,
    pad_to_multiple_of: int | None = None,
    mean_resizing: bool = True,
) -> nn.Module:
    """Return the embedding if its size does not change; raise InputError if it does."""
    embedding: PackedModule = model.get_input_embeddings()
    multiple = pad_to_multiple_of or 1
    rows = -(-(new_num_tokens or embedding.num_embeddings) // multiple) * multiple
    if rows != embedding.num_embeddings:
        raise InputError(
            f"a packed embedding of {embedding.num_embeddings} rows cannot be resized to {rows}. "
            "Please resize the float model, and quantize it afterwards."
        )
    return embedding
