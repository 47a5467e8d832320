"""Replace the embeddings of a model with packed ones."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn

from smallfry.errors import InputError
from smallfry.nn.bag import QuantEmbeddingBag
from smallfry.nn.embedding import QuantEmbedding, refuse_max_norm
from smallfry.nn.linear import TiedLinear
from smallfry.nn.module import PackedModule
from smallfry.nn.scaled import customization

_logger = logging.getLogger(__name__)

_PACKED_CLASSES: tuple[type[PackedModule], ...] = (QuantEmbedding, QuantEmbeddingBag)


def quantize_embed(
    model: nn.Module,
    nbit: int | Mapping[str, int] = 2,
    filter: Callable[[str], bool] | None = None,
    **quantize_options: Any,  # noqa: ANN401
) -> nn.Module:
    """Replace every ``nn.Embedding`` and ``nn.EmbeddingBag`` of a model, at any depth, with a packed module.

    Device, dtype, training flag and options are kept. A module registered several times is replaced by one
    module. Tied weights stay tied: an ``nn.Linear`` that shares an embedding's weight becomes a `TiedLinear`.
    On an error the model is unchanged. The savings are logged at level INFO.

    Parameters
    ----------
    model : nn.Module
        Changed in place, unless it is itself an embedding.
    nbit : int or mapping of str to int
        Bits per value; or a mapping from names in ``model.named_modules()``, which leaves other embeddings.
    filter : callable, optional
        Returns whether to replace the embedding with the given name.
    **quantize_options
        ``codebook``, ``center``, ``row_scale`` of `smallfry.compress.quantize`.

    Returns
    -------
    nn.Module
        ``model``, or its replacement if it is itself an embedding.

    Raises
    ------
    InputError
        ``nbit`` names no embedding, an embedding has ``max_norm``, or its weight is shared with a
        module that cannot use a packed table. The message names the module.

    Notes
    -----
    Packed modules are skipped. Embeddings with their own ``forward`` or with forward hooks are skipped with a
    logged warning, unless they only multiply their rows by ``embed_scale``. Embeddings that share a weight
    but differ in type or options share the table until the model is moved to another device.

    Examples
    --------
    >>> from torch import nn
    >>> from smallfry import quantize_embed
    >>> quantize_embed(nn.Sequential(nn.Embedding(1000, 50), nn.Linear(50, 2)), nbit=4)[0].nbit
    4
    """
    targets = _targets(model, nbit, filter)
    heads = _tied_heads(model, targets)
    packed = _packed_modules(targets, quantize_options)
    replaced: dict[nn.Module, nn.Module] = {**packed}
    for head, source in heads:
        replaced[head] = TiedLinear(packed[source], head.bias).train(head.training)
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if child in replaced:
                setattr(parent, name, replaced[child])
    _warn_if_wrapped(model, targets)
    _log(targets, packed)
    if "transformers.modeling_utils" in sys.modules:
        importlib.import_module("smallfry.transformers").attach(model)
    return replaced.get(model, model)


@dataclass(frozen=True)
class _Target:
    """An embedding to replace."""

    name: str
    module: nn.Embedding | nn.EmbeddingBag
    nbit: int

    @property
    def kind(self) -> type[PackedModule]:
        return next(kind for kind in _PACKED_CLASSES if isinstance(self.module, kind.FLOAT))

    @property
    def options(self) -> dict[str, Any]:
        return self.kind.float_options(self.module)


def _targets(
    model: nn.Module, nbit: int | Mapping[str, int], filter: Callable[[str], bool] | None
) -> list[_Target]:
    names: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(module, []).append(name)
    embeddings = {
        name
        for module, aliases in names.items()
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag, PackedModule))
        for name in aliases
    }
    if isinstance(nbit, Mapping) and (unknown := nbit.keys() - embeddings):
        raise InputError(
            f"nbit names {_list(unknown)}, which is no embedding of the model; "
            f"its embeddings are {_list(embeddings)}"
        )
    targets = []
    for module, aliases in names.items():
        if not isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
            continue
        selected = [name for name in aliases if filter is None or filter(name)]
        bits = {nbit[name] for name in selected if name in nbit} if isinstance(nbit, Mapping) else {nbit}
        if not selected or not bits:
            continue
        if len(bits) > 1:
            raise InputError(f"nbit assigns {_list(bits)} bits to {_list(aliases)}, which is one module")
        target = _Target(selected[0], module, bits.pop())
        with _named(target):
            refuse_max_norm(module.max_norm)
        try:
            target.options  # noqa: B018 - raises if the embedding does more than look up rows
        except InputError as error:
            _logger.warning("%s stays as it is: %s", target.name, error)
        else:
            targets.append(target)
    return targets


def _storage(weight: Tensor) -> tuple[object, ...]:
    """Return a key that is equal for weights over the same memory."""
    return (id(weight),) if weight.is_meta else (weight.device, weight.data_ptr(), weight.numel())


def _tied_heads(model: nn.Module, targets: list[_Target]) -> list[tuple[nn.Linear, nn.Module]]:
    """Return each linear layer that shares the weight of a target, with the target's module."""
    by_weight: dict[tuple[object, ...], list[_Target]] = {}
    for target in targets:
        by_weight.setdefault(_storage(target.module.weight), []).append(target)
    for sharing in by_weight.values():
        if len({target.nbit for target in sharing}) > 1:
            raise InputError(
                f"{_list(target.name for target in sharing)} share a weight, "
                "but nbit assigns them different bits"
            )
    replaced = {target.module for target in targets}
    heads: list[tuple[nn.Linear, nn.Module]] = []
    for name, module in model.named_modules():
        if module in replaced:
            continue
        for field, parameter in module._parameters.items():
            if parameter is None or (storage := _storage(parameter)) not in by_weight:
                continue
            source = by_weight[storage][0]
            plain = isinstance(module, nn.Linear) and not customization(module, nn.Linear)
            if not plain or parameter.shape != source.module.weight.shape:
                raise InputError(
                    f"{source.name}.weight is also {f'{name}.{field}'.lstrip('.')} of "
                    f"{type(module).__name__}, which cannot use a packed table. "
                    "Please untie them, or exclude the embedding with filter."
                )
            heads.append((cast(nn.Linear, module), source.module))
    return heads


def _packed_modules(targets: list[_Target], keywords: Mapping[str, Any]) -> dict[nn.Module, PackedModule]:
    """Return the replacement of each target; targets that share a weight share the table."""
    replacements: dict[nn.Module, PackedModule] = {}
    by_weight: dict[tuple[object, ...], list[PackedModule]] = {}
    for target in targets:
        sharing = by_weight.setdefault(_storage(target.module.weight), [])
        same = (other for other in sharing if type(other) is target.kind and other.options == target.options)
        packed = next(same, None)
        if packed is None:
            with _named(target):
                if sharing:
                    packed = target.kind.from_packed(sharing[0].packed, **target.options)
                    packed.frobenius_error = sharing[0].frobenius_error
                    packed.train(target.module.training)
                else:
                    packed = target.kind.from_float(target.module, target.nbit, **keywords)
            sharing.append(packed)
        replacements[target.module] = packed
    return replacements


@contextmanager
def _named(target: _Target) -> Iterator[None]:
    """Prefix errors with the name of the embedding."""
    try:
        yield
    except InputError as error:
        raise type(error)(f"{target.name or 'the model'}: {error}") from None


def _warn_if_wrapped(model: nn.Module, targets: list[_Target]) -> None:
    trained = [target.name for target in targets if target.module.weight.requires_grad]
    wrapped = any(isinstance(module, nn.parallel.DistributedDataParallel) for module in model.modules())
    if wrapped and trained:
        _logger.warning(
            "DistributedDataParallel keeps waiting for the gradient of %s, and training will fail. "
            "Please quantize the model before wrapping it.",
            _list(trained),
        )


def _log(targets: list[_Target], replacements: Mapping[nn.Module, PackedModule]) -> None:
    if not targets:
        _logger.info("the model has no embedding to quantize")
        return
    width = max(len(target.name) for target in targets)
    before = after = 0
    weights: set[tuple[object, ...]] = set()
    lines = []
    for target in targets:
        weight, packed = target.module.weight, replacements[target.module]
        size = f"{packed.num_embeddings} × {packed.embedding_dim} at {packed.nbit} bits"
        lines.append(f"{target.name:{width}}  {size}: {weight.nbytes:,} → {packed.nbytes:,} bytes")
        if _storage(weight) not in weights:
            weights.add(_storage(weight))
            before, after = before + weight.nbytes, after + packed.nbytes
    lines.append(f"embeddings took {before:,} bytes and take {after:,}, {before / after:.1f} times less")
    _logger.info("%s", "\n".join(lines))


def _list(values: Iterable[object]) -> str:
    return ", ".join(sorted(map(str, values))) or "none"
