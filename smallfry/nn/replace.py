"""Replace the embeddings of a model with packed ones."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, cast

from torch import Tensor, nn

from smallfry.errors import InputError
from smallfry.nn.bag import QuantEmbeddingBag
from smallfry.nn.embedding import QuantEmbedding, refuse_max_norm
from smallfry.nn.linear import TiedLinear
from smallfry.nn.module import PackedModule
from smallfry.nn.scaled import customization

_Embedding: TypeAlias = nn.Embedding | nn.EmbeddingBag | PackedModule

_logger = logging.getLogger(__name__)

_PACKED_CLASSES: tuple[type[PackedModule], ...] = (QuantEmbedding, QuantEmbeddingBag)


def quantize_embed(
    model: nn.Module,
    nbit: int | Mapping[str, int] = 2,
    filter: Callable[[str], bool] | None = None,
    min_share: float = 0.025,
    **quantize_options: Any,  # noqa: ANN401
) -> nn.Module:
    """Replace the ``nn.Embedding`` and ``nn.EmbeddingBag`` of a model, at any depth, with packed modules.

    Device, dtype, training flag and options are kept. A module registered several times is replaced by one
    module. Tied weights stay tied: an ``nn.Linear`` that shares an embedding's weight becomes a `TiedLinear`.
    On an error the model is unchanged. Sizes, errors, and what was left in float are logged at level INFO.

    Parameters
    ----------
    model : nn.Module
        Changed in place, unless it is itself an embedding.
    nbit : int or mapping of str to int
        Bits per value; or a mapping from names in ``model.named_modules()``. Other embeddings stay in float.
    filter : callable, optional
        Returns whether to replace the embedding with the given name.
    min_share : float
        Embeddings smaller than this share of the largest one selected by ``filter`` stay in float: position
        and token type tables save next to nothing and cost much of the quality. 0 replaces them too. A
        mapping ``nbit`` replaces every embedding that it names.
    **quantize_options
        ``codebook_kind``, ``trellis_state_bits``, ``center``, ``row_scale`` of `smallfry.compress.quantize`.

    Returns
    -------
    nn.Module
        ``model``, or its replacement if it is itself an embedding.

    Raises
    ------
    InputError
        ``nbit`` names no embedding, an embedding has an unsupported option, or its weight is shared with a
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
    targets, left = _targets(model, nbit, filter, min_share)
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
    _log(targets, left, packed)
    if "transformers.modeling_utils" in sys.modules:
        _attach_to_transformers(model)
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


class _Left(NamedTuple):
    """An embedding that stays as it is."""

    name: str
    module: _Embedding
    reason: str


def _targets(
    model: nn.Module, nbit: int | Mapping[str, int], filter: Callable[[str], bool] | None, min_share: float
) -> tuple[list[_Target], list[_Left]]:
    """Return the embeddings to replace, and the others."""
    if not 0 <= min_share <= 1:
        raise InputError(f"min_share is {min_share}, expected a share of the largest embedding, 0 to 1")
    names: dict[_Embedding, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag, PackedModule)):
            names.setdefault(module, []).append(name)
    embeddings = {name for aliases in names.values() for name in aliases}
    if isinstance(nbit, Mapping) and (unknown := nbit.keys() - embeddings):
        raise InputError(
            f"nbit names {_list(unknown)}, which is not an embedding of the model; "
            f"its embeddings are {_list(embeddings)}"
        )

    def selected(name: str) -> bool:
        return (filter is None or filter(name)) and (not isinstance(nbit, Mapping) or name in nbit)

    chosen = {module: [name for name in aliases if selected(name)] for module, aliases in names.items()}
    # Packed tables count with their decoded size: another call must not find a smaller largest embedding.
    largest = max((module.weight.nbytes for module, aliases in chosen.items() if aliases), default=0)
    smallest = 0 if isinstance(nbit, Mapping) else min_share * largest
    targets, left = [], []
    for module, aliases in chosen.items():
        bits = {nbit[name] if isinstance(nbit, Mapping) else nbit for name in aliases}
        if len(bits) > 1:
            raise InputError(f"nbit assigns {_list(bits)} bits to {_list(aliases)}, which is one module")
        if isinstance(module, PackedModule):
            left.append(_Left(names[module][0], module, "already packed"))
        elif not aliases:
            left.append(_Left(names[module][0], module, "not selected"))
        elif module.weight.nbytes < smallest:
            left.append(_Left(aliases[0], module, f"less than {min_share:.1%} of the largest embedding"))
        else:
            target = _Target(aliases[0], module, bits.pop())
            with _named(target):
                refuse_max_norm(module.max_norm)
            try:
                target.options  # noqa: B018 - raises if the embedding does more than look up rows
            except InputError as error:
                _logger.warning("%s stays as it is: %s", target.name, error)
                left.append(_Left(target.name, module, str(error)))
            else:
                targets.append(target)
    return targets, left


def _storage(weight: Tensor) -> tuple[object, ...]:
    """Return a key that is equal for weights over the same memory."""
    if weight.is_meta or not weight.numel():
        return (id(weight),)
    return weight.device, weight.data_ptr(), weight.numel()


def _layout(weight: Tensor) -> tuple[object, ...]:
    """Return what must be equal for weights over the same memory to have the same values."""
    return weight.dtype, weight.shape, weight.stride()


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
        for field, parameter in module._parameters.items():
            if parameter is None or (storage := _storage(parameter)) not in by_weight:
                continue
            source = by_weight[storage][0]
            tied = _layout(parameter) == _layout(source.module.weight)
            if tied and module in replaced:
                continue
            plain = isinstance(module, nn.Linear) and not customization(module, nn.Linear)
            if not (tied and plain):
                raise InputError(
                    f"{source.name}.weight is also {f'{name}.{field}'.lstrip('.')} of "
                    f"{type(module).__name__}, which cannot use the same packed table. "
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


def _attach_to_transformers(model: nn.Module) -> None:
    try:
        integration = importlib.import_module("smallfry.transformers")
    except ImportError as error:
        _logger.warning("save_pretrained of transformers will not keep the embeddings packed: %s", error)
    else:
        integration.attach(model)


def _log(targets: list[_Target], left: list[_Left], packed: Mapping[nn.Module, PackedModule]) -> None:
    """Log a line for each embedding, and the total, which counts a shared weight once."""
    rows: list[tuple[str, _Embedding, _Embedding, str]] = []
    for target in targets:
        error = packed[target.module].frobenius_error
        note = "" if error is None else f"relative error {error:.4f}"
        rows.append((target.name, target.module, packed[target.module], note))
    rows += [(name, module, module, reason) for name, module, reason in left]
    width = max((len(name) for name, *_ in rows), default=0)
    sizes: dict[tuple[object, ...], tuple[int, int]] = {}
    lines = []
    for name, old, new, note in rows:
        before, after = _nbytes(old), _nbytes(new)
        sizes[_storage(old.codes if isinstance(old, PackedModule) else old.weight)] = before, after
        shape = f"{new.num_embeddings} × {new.embedding_dim}"
        bits = f"{new.nbit} bits" if isinstance(new, PackedModule) else "float"
        lines.append(f"{name:{width}}  {shape:>15}  {bits:>7}  {before:>13,} → {after:>13,} bytes  {note}")
    if targets:
        before, after = (sum(column) for column in zip(*sizes.values(), strict=True))
        lines.append(
            f"embeddings took {before:,} bytes and take {after:,}, {before / max(after, 1):.1f} times less"
        )
    else:
        lines.append("the model has no embedding to quantize")
    _logger.info("%s", "\n".join(lines))


def _nbytes(module: _Embedding) -> int:
    return module.nbytes if isinstance(module, PackedModule) else module.weight.nbytes


def _list(values: Iterable[object]) -> str:
    return ", ".join(sorted(map(str, values))) or "none"
