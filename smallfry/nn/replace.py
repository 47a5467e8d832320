"""Replace the embeddings of a model by packed ones."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn

from smallfry.errors import InputError
from smallfry.nn.bag import QuantEmbeddingBag
from smallfry.nn.embedding import QuantEmbedding, refuse_options
from smallfry.nn.linear import TiedLinear
from smallfry.nn.module import PackedModule

_logger = logging.getLogger(__name__)

_COUNTERPARTS: tuple[type[PackedModule], ...] = (QuantEmbedding, QuantEmbeddingBag)


def quantize_embed(
    model: nn.Module,
    nbit: int | Mapping[str, int] = 2,
    filter: Callable[[str], bool] | None = None,
    **quantize_options: Any,  # noqa: ANN401
) -> nn.Module:
    """Replace every ``nn.Embedding`` and ``nn.EmbeddingBag`` of a model by its packed counterpart.

    Those at any depth are found. What is replaced keeps its device, dtype, training flag and options. A
    module that stands in several places is replaced by one module. Weights that are tied stay tied: an
    ``nn.Linear`` that shares an embedding's weight becomes a `TiedLinear` over the packed table. Nothing
    changes where anything is refused. What was saved is logged at level INFO.

    Parameters
    ----------
    model : nn.Module
        Changed in place. Where it is itself an embedding, the answer is the one to use.
    nbit : int or mapping of str to int
        Bits a value; or by the embedding's name in ``model.named_modules()``, and then others stay.
    filter : callable, optional
        Takes a name, and says whether to replace the embedding of that name.
    **quantize_options
        ``codebook``, ``center``, ``row_scale`` of `smallfry.compress.quantize`: less error in as many bits.

    Returns
    -------
    nn.Module
        ``model``, or the counterpart of it.

    Raises
    ------
    InputError
        ``nbit`` names no embedding; an embedding has an option that packed tables cannot have; or its weight
        is shared with something that cannot use a packed table. The message names it.

    Notes
    -----
    Packed modules are skipped. So, with a logged warning, are embeddings with a ``forward`` of their own or
    with forward hooks, which would be lost. Two embeddings that share a weight but differ in ``padding_idx``
    or kind share the packed table until the model is moved to another device; all others share it for good.
    """
    targets = _targets(model, nbit, filter)
    heads = _tied_heads(model, targets)
    made = _counterparts(targets, quantize_options)
    replaced: dict[nn.Module, nn.Module] = {**made}
    for head, source in heads:
        replaced[head] = TiedLinear(made[source], head.bias).train(head.training)
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if child in replaced:
                setattr(parent, name, replaced[child])
    _warn_of_reducers(model, targets)
    _log(targets, made)
    return replaced.get(model, model)


@dataclass(frozen=True)
class _Target:
    """An embedding to replace, by its first name."""

    name: str
    module: nn.Embedding | nn.EmbeddingBag
    nbit: int

    @property
    def kind(self) -> type[PackedModule]:
        return next(kind for kind in _COUNTERPARTS if isinstance(self.module, kind.FLOAT))

    @property
    def options(self) -> dict[str, Any]:
        return {name: getattr(self.module, name) for name in self.kind.OPTIONS}


def _targets(
    model: nn.Module, nbit: int | Mapping[str, int], filter: Callable[[str], bool] | None
) -> list[_Target]:
    names: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(module, []).append(name)
    known = {
        name
        for module, aliases in names.items()
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag, PackedModule))
        for name in aliases
    }
    if isinstance(nbit, Mapping) and (unknown := nbit.keys() - known):
        raise InputError(
            f"nbit names {_list(unknown)}, which is no embedding of the model; "
            f"its embeddings are {_list(known)}"
        )
    targets = []
    for module, aliases in names.items():
        if not isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
            continue
        wanted = [name for name in aliases if filter is None or filter(name)]
        bits = {nbit[name] for name in wanted if name in nbit} if isinstance(nbit, Mapping) else {nbit}
        if not wanted or not bits:
            continue
        if len(bits) > 1:
            raise InputError(f"nbit gives {_list(aliases)}, which is one module, both {_list(bits)} bits")
        target = _Target(wanted[0], module, bits.pop())
        with _named(target):
            refuse_options(module.max_norm, module.norm_type, module.scale_grad_by_freq, module.sparse)
        if lost := _would_lose(module, target.kind.FLOAT):
            _logger.warning("%s stays as it is: %s %s", target.name, type(module).__name__, lost)
        else:
            targets.append(target)
    return targets


def _would_lose(module: nn.Module, kind: type[nn.Module]) -> str | None:
    """Say what a module does beside that which ``kind`` does, None where it does nothing."""
    if type(module).forward is not kind.forward or "forward" in vars(module):
        return "has its own forward"
    if module._forward_hooks or module._forward_pre_hooks:
        return "has forward hooks"
    return None


def _place(weight: Tensor) -> tuple[object, ...]:
    """Tell weights that are one memory, whether or not they are one tensor."""
    return (id(weight),) if weight.is_meta else (weight.device, weight.data_ptr(), weight.numel())


def _tied_heads(model: nn.Module, targets: list[_Target]) -> list[tuple[nn.Linear, nn.Module]]:
    """Return each linear layer that shares the weight of a target, with the target's module."""
    by_weight: dict[tuple[object, ...], list[_Target]] = {}
    for target in targets:
        by_weight.setdefault(_place(target.module.weight), []).append(target)
    for sharing in by_weight.values():
        if len({target.nbit for target in sharing}) > 1:
            raise InputError(
                f"{_list(target.name for target in sharing)} share a weight, "
                "but nbit gives them different bits"
            )
    replaced = {target.module for target in targets}
    heads: list[tuple[nn.Linear, nn.Module]] = []
    for name, module in model.named_modules():
        if module in replaced:
            continue
        for field, parameter in module._parameters.items():
            if parameter is None or (place := _place(parameter)) not in by_weight:
                continue
            source = by_weight[place][0]
            usual = isinstance(module, nn.Linear) and not _would_lose(module, nn.Linear)
            if not usual or parameter.shape != source.module.weight.shape:
                raise InputError(
                    f"{source.name}.weight is also {f'{name}.{field}'.lstrip('.')} of "
                    f"{type(module).__name__}, which cannot use a packed table. "
                    "Please untie them, or leave the embedding out with filter."
                )
            heads.append((cast(nn.Linear, module), source.module))
    return heads


def _counterparts(targets: list[_Target], keywords: Mapping[str, Any]) -> dict[nn.Module, PackedModule]:
    made: dict[nn.Module, PackedModule] = {}
    tables: dict[tuple[object, ...], list[PackedModule]] = {}
    for target in targets:
        sharing = tables.setdefault(_place(target.module.weight), [])
        same = (made for made in sharing if type(made) is target.kind and made.options == target.options)
        packed = next(same, None)
        if packed is None:
            with _named(target):
                packed = _counterpart(target, sharing, keywords)
            sharing.append(packed)
        made[target.module] = packed
    return made


def _counterpart(target: _Target, sharing: list[PackedModule], keywords: Mapping[str, Any]) -> PackedModule:
    if not sharing:
        return target.kind.from_float(target.module, target.nbit, **keywords)
    packed = target.kind.from_packed(sharing[0].packed, **target.options)
    packed.frobenius_error = sharing[0].frobenius_error
    return packed.train(target.module.training)


@contextmanager
def _named(target: _Target) -> Iterator[None]:
    """Put the name of the embedding before what is said about it."""
    try:
        yield
    except InputError as error:
        raise type(error)(f"{target.name or 'the model'}: {error}") from None


def _warn_of_reducers(model: nn.Module, targets: list[_Target]) -> None:
    trained = [target.name for target in targets if target.module.weight.requires_grad]
    wrapped = any(isinstance(module, nn.parallel.DistributedDataParallel) for module in model.modules())
    if wrapped and trained:
        _logger.warning(
            "DistributedDataParallel goes on waiting for the gradient of %s, and training will fail. "
            "Please quantize the model before it is wrapped.",
            _list(trained),
        )


def _log(targets: list[_Target], made: Mapping[nn.Module, PackedModule]) -> None:
    if not targets:
        _logger.info("the model has no embedding to quantize")
        return
    width = max(len(target.name) for target in targets)
    before = after = 0
    weights: set[tuple[object, ...]] = set()
    lines = []
    for target in targets:
        weight, packed = target.module.weight, made[target.module]
        size = f"{packed.num_embeddings} × {packed.embedding_dim} at {packed.nbit} bits"
        lines.append(f"{target.name:{width}}  {size}: {weight.nbytes:,} → {packed.nbytes:,} bytes")
        if _place(weight) not in weights:
            weights.add(_place(weight))
            before, after = before + weight.nbytes, after + packed.nbytes
    lines.append(f"embeddings took {before:,} bytes and take {after:,}, {before / after:.1f} times less")
    _logger.info("%s", "\n".join(lines))


def _list(values: Iterable[object]) -> str:
    return ", ".join(sorted(map(str, values))) or "none"
