"""The quantization method ``smallfry`` of transformers: load packed models, quantize while loading."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.quantizers import HfQuantizer, register_quantization_config, register_quantizer
from transformers.quantizers.quantizers_utils import get_module_from_name
from transformers.utils.quantization_config import QuantizationConfigMixin

from smallfry.errors import InputError
from smallfry.nn.checkpoint import verify
from smallfry.nn.module import PackedModule
from smallfry.nn.packed import Packed
from smallfry.nn.replace import quantize_embed
from smallfry.nn.weight_view import DecodedWeight, ReadOnlyWeight
from smallfry.transformers.saving import METHOD, OPTIONAL_PARTS, aliases, attach

# transformers 5 initializes weights, such as those of T5, unless they have this mark.
DecodedWeight._is_hf_initialized = True  # type: ignore[attr-defined]


@register_quantization_config(METHOD)
class SmallfryConfig(QuantizationConfigMixin):  # type: ignore[misc]
    """How to quantize the embeddings of a model, or where a saved model has packed ones.

    Parameters
    ----------
    nbit : int or mapping of str to int
        Bits per value, for all embeddings or by name, as in `smallfry.quantize_embed`.
    min_share, codebook_kind, trellis_state_bits, center, row_scale
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
        codebook_kind: str = "uniform",
        trellis_state_bits: int = 8,
        center: bool = False,
        row_scale: bool = False,
        parts: Mapping[str, list[str]] | None = None,
        tied: Mapping[str, str] | None = None,
        quant_method: str = METHOD,
    ) -> None:
        self.quant_method = quant_method
        self.nbit = nbit
        self.min_share = min_share
        self.codebook_kind = codebook_kind
        self.trellis_state_bits = trellis_state_bits
        self.center = center
        self.row_scale = row_scale
        self.parts = dict(parts or {})
        self.tied = dict(tied or {})


@register_quantizer(METHOD)
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
                    module._buffers[part] = torch.empty(1, dtype=OPTIONAL_PARTS[part], device="meta")
        # Each table is in the checkpoint once.
        for name, first in aliases(model).items():
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
                codebook_kind=config.codebook_kind,
                trellis_state_bits=config.trellis_state_bits,
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
