"""Packed embeddings in transformers: saving, loading, and quantizing while loading.

Importing this module registers the quantization method ``smallfry`` with transformers. `quantize_embed`
imports it for a transformers model; a process that only loads one must import it before ``from_pretrained``.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.quantizers import HfQuantizer, register_quantization_config, register_quantizer
from transformers.quantizers.quantizers_utils import get_module_from_name
from transformers.utils.quantization_config import QuantizationConfigMixin

from smallfry.errors import InputError
from smallfry.nn.checkpoint import verify
from smallfry.nn.linear import TiedLinear
from smallfry.nn.module import PackedModule
from smallfry.nn.packed import PARTS, Packed
from smallfry.nn.replace import quantize_embed
from smallfry.nn.weight_view import DecodedWeight, ReadOnlyWeight

_logger = logging.getLogger(__name__)

_METHOD = "smallfry"

# The dtypes of the tensors that not every packed module has.
_OPTIONAL_PARTS = {"mean": torch.float32, "row_scale": torch.float16, "zero_rows": torch.int64}

# transformers 5 initializes weights, such as those of T5, unless they have this mark.
DecodedWeight._is_hf_initialized = True  # type: ignore[attr-defined]


@register_quantization_config(_METHOD)
class SmallfryConfig(QuantizationConfigMixin):  # type: ignore[misc]
    """How to quantize the embeddings of a model, or where a saved model has packed ones.

    Parameters
    ----------
    nbit : int or mapping of str to int
        Bits per value, for all embeddings or by name, as in `smallfry.quantize_embed`.
    min_share, codebook, center, row_scale
        As in `smallfry.quantize_embed`; for quantizing while loading.
    parts : mapping of str to list of str, optional
        Optional tensors of each packed module, written by ``save_pretrained``.
    tied : mapping of str to str, optional
        The embedding whose table a head or another embedding shares, written by ``save_pretrained``.

    Examples
    --------
    >>> from transformers import AutoModel
    >>> from smallfry.transformers import SmallfryConfig
    >>> AutoModel.from_pretrained("openai-community/gpt2", quantization_config=SmallfryConfig(nbit=4))
    """

    def __init__(
        self,
        nbit: int | Mapping[str, int] = 2,
        *,
        min_share: float = 0.025,
        codebook: str = "uniform",
        center: bool = False,
        row_scale: bool = False,
        parts: Mapping[str, list[str]] | None = None,
        tied: Mapping[str, str] | None = None,
        quant_method: str = _METHOD,
    ) -> None:
        self.quant_method = quant_method
        self.nbit = nbit
        self.min_share = min_share
        self.codebook = codebook
        self.center = center
        self.row_scale = row_scale
        self.parts = dict(parts or {})
        self.tied = dict(tied or {})


@register_quantizer(_METHOD)
class SmallfryQuantizer(HfQuantizer):  # type: ignore[misc]
    """Loads a model with packed embeddings, or quantizes the embeddings of a float checkpoint.

    The loaded model is the same as after `quantize_embed`: it does not keep the quantizer, so that
    transformers trains, converts and saves it like any other model.
    """

    def __init__(self, quantization_config: SmallfryConfig, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(quantization_config, **kwargs)
        self._aliases: list[tuple[nn.Module, str, PackedModule, PackedModule]] = []

    def is_serializable(self, safe_serialization: bool | None = None) -> bool:
        """Return True."""
        return True

    @property
    def is_trainable(self) -> bool:
        """True: the other layers train."""
        return True

    def param_needs_quantization(self, model: PreTrainedModel, param_name: str, **kwargs: Any) -> bool:  # noqa: ANN401
        """Return whether a tensor belongs to a packed module; `verify` checks its shape after loading."""
        module, _ = get_module_from_name(model, param_name)
        return isinstance(module, PackedModule)

    def create_quantized_param(
        self,
        model: PreTrainedModel,
        param_value: Tensor,
        param_name: str,
        target_device: Any,  # noqa: ANN401 - as transformers passes it
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Set a part of a packed module (transformers 4)."""
        module, name = get_module_from_name(model, param_name)
        dtype = module._buffers[name].dtype
        if torch.promote_types(param_value.dtype, dtype) != param_value.dtype:
            raise InputError(
                f"transformers 4 rounds {param_name} from {dtype} to {param_value.dtype}. Please load the "
                f"model in float32 and call .to({param_value.dtype}), or install transformers 5."
            )
        module._buffers[name] = param_value.to(target_device, dtype)

    def _process_model_before_weight_loading(self, model: PreTrainedModel, **kwargs: Any) -> None:  # noqa: ANN401
        """Replace the embeddings of the model, which is on the meta device, with empty packed ones."""
        if not self.pre_quantized:
            return
        config = self.quantization_config
        for name, source in config.tied.items():
            if (tied := _find(model, name)) and (embedding := _find(model, source)):
                model.get_submodule(tied).weight = model.get_submodule(embedding).weight
        quantize_embed(
            model, {found: nbit for name, nbit in config.nbit.items() if (found := _find(model, name))}
        )
        for name, parts in config.parts.items():
            if found := _find(model, name):
                module = model.get_submodule(found)
                for part in parts:
                    module._buffers[part] = torch.empty(1, dtype=_OPTIONAL_PARTS[part], device="meta")
        # Each table is in the checkpoint once.
        for name, first in _aliases(model).items():
            parent, attribute = get_module_from_name(model, name)
            self._aliases.append((parent, attribute, getattr(parent, attribute), model.get_submodule(first)))
        for parent, attribute, _, source in self._aliases:
            setattr(parent, attribute, _Alias(source))
        # transformers 4 takes modules with other buffers for uninitialized, and writes to their embeddings.
        for module in model.modules():
            for name in module._non_persistent_buffers_set:
                if (buffer := module._buffers.get(name)) is not None and not buffer.is_meta:
                    buffer._is_hf_initialized = True
        # A list or None in transformers 4, a set in 5.
        ignored = model._keys_to_ignore_on_load_unexpected
        ignored = [] if ignored is None else ignored
        markers = []
        for name, module in model.named_modules():
            if isinstance(module, PackedModule):
                # The saved model may have another prefix, as in _find.
                base = name.removeprefix(f"{model.base_model_prefix}.")
                markers.append(rf"(^|\.){re.escape(base)}\.weight$")
                for part, tensor in module.named_buffers():
                    module._buffers[part] = _Unloaded.named(f"{name}.{part}", tensor)
        model._keys_to_ignore_on_load_unexpected = type(ignored)([*ignored, *markers])

    def _process_model_after_weight_loading(self, model: PreTrainedModel, **kwargs: Any) -> PreTrainedModel:  # noqa: ANN401
        del model.hf_quantizer
        model.is_quantized = False
        config = self.quantization_config
        devices = set(getattr(model, "hf_device_map", {}).values())
        if self.pre_quantized:
            for name, module in model.named_modules():
                if isinstance(module, PackedModule):
                    if "disk" not in devices:
                        _verify(name, module)
                    module._set(module.packed)
            for parent, attribute, module, first in self._aliases:
                module._set(first.packed)
                setattr(parent, attribute, module)
            attach(model)
        elif len(devices) > 1:
            raise InputError(
                f"the model is on {', '.join(sorted(map(str, devices)))}, but quantizing while loading needs "
                "one device. Please load it there, call save_pretrained, and load the saved model."
            )
        else:
            del model.config.quantization_config
            # transformers 4 saves this dtype only of a configuration with a quantization_config.
            vars(model.config).pop("_pre_quantization_dtype", None)
            quantize_embed(
                model,
                config.nbit,
                min_share=config.min_share,
                codebook=config.codebook,
                center=config.center,
                row_scale=config.row_scale,
            )
        return model


class _Unloaded(Tensor):
    """A tensor on the meta device in place of one that the checkpoint must have.

    transformers fills missing tensors with uninitialized memory by ``torch.empty_like``, which raises here.
    """

    label: str

    @classmethod
    def named(cls, name: str, tensor: Tensor) -> _Unloaded:
        """Return a tensor like ``tensor``."""
        unloaded = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta").as_subclass(cls)
        unloaded.label = name
        return unloaded

    @classmethod
    def __torch_function__(
        cls,
        func: Any,  # noqa: ANN401 - as torch defines it
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        if func is torch.empty_like:
            raise InputError(f"the checkpoint has no {args[0].label}, which its configuration declares")
        result = super().__torch_function__(func, types, args, kwargs)  # type: ignore[no-untyped-call]
        if func is Tensor.detach:
            result.label = args[0].label
        return result


class _Alias(ReadOnlyWeight):
    """Stands for a module whose table ``first`` has, while a checkpoint is loaded.

    It has a weight because models of transformers 4 tie those of embeddings and heads again.
    """

    _first: PackedModule

    def __init__(self, first: PackedModule) -> None:
        super().__init__()
        # Not a submodule, which would need the table in the checkpoint again.
        self.__dict__["_first"] = first

    @property
    def packed(self) -> Packed:
        """The tensors of the table."""
        return self._first.packed


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
        *(f"{alias}.{part}" for alias in _aliases(model) for part in (*PARTS, "weight")),
    }


def _describe(model: PreTrainedModel) -> None:
    """Write the packed modules of a model to its configuration."""
    current = getattr(model.config, "quantization_config", None)
    if current is not None and dict(current)["quant_method"] != _METHOD:
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
        "quant_method": _METHOD,
        "nbit": {name: module.nbit for name, module in packed.items()},
        "parts": _parts(model),
        "tied": _aliases(model) | heads,
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
        and (parts := [part for part in _OPTIONAL_PARTS if getattr(module, part) is not None])
    }


def _aliases(model: nn.Module) -> dict[str, str]:
    """Return the names of packed modules whose table is also that of an earlier one, with its name."""
    first: dict[int, str] = {}
    return {
        name: earlier
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, PackedModule)
        and (earlier := first.setdefault(id(module.packed.codes), name)) != name
    }


def _find(model: PreTrainedModel, name: str) -> str | None:
    """Return the name in ``model`` of a module of a saved model, which may be its base or have it as base."""
    modules = dict(model.named_modules(remove_duplicate=False))
    prefix = f"{model.base_model_prefix}."
    return next((name for name in (name, prefix + name, name.removeprefix(prefix)) if name in modules), None)


def _verify(name: str, module: PackedModule) -> None:
    try:
        verify(module.packed, module.num_embeddings)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None


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
