"""The ``weight`` of packed modules: a read-only tensor that decodes when its values are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._pytree import tree_map_only

from smallfry.nn.kernels import operators
from smallfry.nn.packed import PARTS, Packed

_READ_ONLY = (
    "The weight of a packed module cannot be written to: its codes represent codebook values only. "
    "Create a new module with QuantEmbedding.from_pretrained(matrix, nbit=…), or load the matrix with "
    "module.load_state_dict({'weight': matrix}); both quantize it."
)

_NO_MEMORY = (
    "The weight of a packed module is decoded when it is read and has no memory of its own. "
    "Use weight.clone(), an ordinary tensor."
)

_CONSTANT = (
    "The weight of a packed module cannot require a gradient: its codes are constant. "
    "Train a float module that starts from weight.clone(), and quantize it after training."
)

_aten = torch.ops.aten
_POOL_ROWS = (_aten._embedding_bag.default, _aten._embedding_bag_forward_only.default)


class _Missing:
    """Hides a class attribute of Tensor."""

    def __get__(self, instance: object, owner: type) -> NoReturn:
        raise AttributeError("the weight of a packed module is exported by __dlpack__")


class DecodedWeight(torch.Tensor):
    """The decoded table of a packed module, read-only.

    ``shape``, ``dtype`` and ``device`` decode nothing. Selecting rows (``weight[3]``, ``weight[:10]``,
    ``weight[ids]``, ``F.embedding(ids, weight)``, ``F.embedding_bag``) decodes those rows only, and
    ``F.linear(x, weight)`` decodes chunks of rows. Other operations decode the whole table temporarily;
    ``weight.clone()`` returns an ordinary tensor. Writing raises ``RuntimeError``, and so does access to its
    memory (``data_ptr()``, ``untyped_storage()``); selected rows are independent tensors and writable.
    """

    _packed: Packed

    @staticmethod
    def __new__(cls: type[DecodedWeight], packed: Packed) -> DecodedWeight:
        """Wrap the tensors of a packed table."""
        codes = packed.codes
        weight: DecodedWeight = torch.Tensor._make_wrapper_subclass(
            cls, (codes.shape[0], packed.dim), dtype=packed.dtype, device=codes.device
        )
        # Its storage is a null pointer: reading that through the C++ API then raises.
        torch._C._set_throw_on_mutable_data_ptr(weight)
        weight._packed = packed
        return weight

    @classmethod
    def __torch_function__(
        cls,
        func: Any,  # noqa: ANN401 - as torch defines it
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - as torch defines it
        kwargs = kwargs or {}
        if not all(issubclass(kind, Tensor) for kind in types):
            return NotImplemented
        select = _SELECT.get(func)
        if select is not None and (rows := select(*args, **kwargs)) is not None:
            return rows
        # fill_diagonal_ and chain_matmul write to a view, which __torch_dispatch__ does not see.
        target = next(iter((*args, *kwargs.values())), None) if _in_place(func) else kwargs.get("out")
        if isinstance(target, cls):
            _refuse()
        # torch.export traces above __torch_dispatch__.
        if torch.compiler.is_exporting() and func not in _METADATA:
            args, kwargs = tree_map_only(cls, cls.decode, (args, kwargs))
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls,
        func: Any,  # noqa: ANN401 - as torch defines it
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - as torch defines it
        kwargs = kwargs or {}
        for position, argument in enumerate(func._schema.arguments):
            value = args[position] if position < len(args) else kwargs.get(argument.name)
            if isinstance(value, cls) and argument.alias_info is not None and argument.alias_info.is_write:
                _refuse()
        first = args[0]
        if func is _aten.detach.default:
            return cls(first._packed)
        if isinstance(first, cls):
            if func is _aten.embedding.default:
                return operators.decode(args[1], first._packed)
            if func is _aten.index_select.default and args[1] == 0:
                return operators.decode(args[2].reshape(-1), first._packed)
            if func in _POOL_ROWS and (pooled := _bag(*args, **kwargs)) is not None:
                return pooled
            if (rows := _getitem(first, _row_key(func, args))) is not None:
                return rows
        plain_args, plain_kwargs = tree_map_only(cls, cls.decode, (args, kwargs))
        return func(*plain_args, **plain_kwargs)

    def __tensor_flatten__(self) -> tuple[list[str], tuple[int, int]]:
        names = [f"_{name}" for name in PARTS if getattr(self._packed, name) is not None]
        return names, (self._packed.dim, self._packed.nbit)

    @staticmethod
    def __tensor_unflatten__(
        parts: dict[str, Tensor], sizes: tuple[int, int], size: object, stride: object
    ) -> DecodedWeight:
        fields: Any = [parts.get(f"_{name}") for name in PARTS]
        return DecodedWeight(Packed(*fields, *sizes))  # type: ignore[call-arg]

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        # For the names of __tensor_flatten__, which have an underscore because mean is a method of tensors.
        if name.removeprefix("_") in PARTS:
            return getattr(self._packed, name.removeprefix("_"))
        raise AttributeError(f"'DecodedWeight' object has no attribute {name!r}")

    def decode(self) -> Tensor:
        """Return every row as an ordinary tensor."""
        return operators.decode_all(self._packed)

    def data_ptr(self) -> NoReturn:
        """Raise NotImplementedError, which code that compares pointers expects of tensors without them."""
        raise NotImplementedError(_NO_MEMORY)

    const_data_ptr = storage = _typed_storage = share_memory_ = data_ptr

    def untyped_storage(self) -> torch.UntypedStorage:
        """Raise RuntimeError, except in ``torch.compile``, which uses the storage as an identity."""
        if torch.compiler.is_compiling():
            return super().untyped_storage()
        raise RuntimeError(_NO_MEMORY)

    def is_shared(self) -> bool:
        """Return False."""
        return False

    def __dlpack__(self, **options: Any) -> Any:  # noqa: ANN401
        """Export the decoded table."""
        return self.decode().__dlpack__(**options)

    __dlpack_c_exchange_api__ = _Missing()

    @property
    def requires_grad(self) -> bool:
        """False; setting it to True raises."""
        return False

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if value:
            raise RuntimeError(_CONSTANT)

    def requires_grad_(self, requires_grad: bool = True) -> DecodedWeight:
        """Raise RuntimeError unless ``requires_grad`` is False."""
        self.requires_grad = requires_grad
        return self

    @property
    def data(self) -> DecodedWeight:
        """The weight itself; setting it raises."""
        return self

    @data.setter
    def data(self, value: Tensor) -> None:
        _refuse()

    def __setitem__(self, key: object, value: object) -> None:
        _refuse()

    def __repr__(self) -> str:  # type: ignore[override]
        return repr(self.decode())

    def __reduce_ex__(self, protocol: Any) -> Any:  # noqa: ANN401
        return self.decode().__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return self.decode()

    def numpy(self, *, force: bool = False) -> NDArray[Any]:
        """Return the decoded table as an array."""
        return self.decode().numpy(force=force)

    def __array__(self, dtype: Any = None) -> NDArray[Any]:  # noqa: ANN401
        return np.asarray(self.numpy(), dtype)

    def tolist(self) -> list[list[float]]:
        """Return the decoded table as lists."""
        return self.decode().tolist()


@torch.compiler.allow_in_graph  # type: ignore[untyped-decorator]
def decoded_weight(*parts: Any) -> DecodedWeight:  # noqa: ANN401 - the fields of Packed
    """Return the weight of a packed table; ``torch.compile`` records the call."""
    return DecodedWeight(Packed(*parts))


class ReadOnlyWeight(nn.Module):
    """Base class of the modules whose ``weight`` is a decoded table."""

    @property
    def packed(self) -> Packed:
        """The tensors of the table, shared with the module."""
        raise NotImplementedError

    @property
    def weight(self) -> Tensor:
        """The decoded table ``[num_embeddings, embedding_dim]``, read-only; see `DecodedWeight`."""
        weight: Tensor = decoded_weight(*self.packed)
        return weight

    @weight.setter
    def weight(self, value: object) -> None:
        # Code that ties weights assigns the same one again.
        if not (isinstance(value, DecodedWeight) and value._packed.codes is self.packed.codes):
            raise AttributeError(_READ_ONLY)

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """Register a parameter; raise AttributeError for ``module.weight = nn.Parameter(…)``."""
        if name == "weight":
            raise AttributeError(_READ_ONLY)
        super().register_parameter(name, param)

    def __prepare_scriptable__(self) -> NoReturn:
        """Raise for ``torch.jit.script``."""
        raise NotImplementedError(
            f"torch.jit.script cannot compile {type(self).__name__}. "
            "Please use torch.jit.trace, torch.export or torch.compile."
        )


def _refuse() -> NoReturn:
    raise RuntimeError(_READ_ONLY)


def _in_place(func: object) -> bool:
    """Return whether a function has the name of an in-place method."""
    name = getattr(func, "__name__", "")
    return name.endswith("_") and not name.endswith("__") and func is not Tensor.detach_


def _row_key(func: Any, args: tuple[Any, ...]) -> Any:  # noqa: ANN401
    """Return the index of an operator that selects along the first axis, None for another operator."""
    if func is _aten.index.Tensor and len(args[1]) == 1:
        return args[1][0]
    if func is _aten.select.int and args[1] == 0:
        return args[2]
    if func is _aten.slice.Tensor and (len(args) < 2 or args[1] == 0):
        return slice(*(*args[2:], None, None, None)[:3])
    return None


def _getitem(weight: Tensor, key: object) -> Tensor | None:
    """Return the rows at a key that selects along the first axis only, None for another key."""
    if not isinstance(weight, DecodedWeight):
        return None
    packed = weight._packed
    rows, device = packed.rows, packed.codes.device
    if isinstance(key, Tensor) and key.dtype in (torch.int64, torch.int32):
        ids = torch.where(key < 0, key + rows, key)
    elif isinstance(key, Tensor) and key.ndim != 1:
        return None
    elif not isinstance(key, (Tensor, int, slice, torch.SymInt)) or isinstance(key, bool):
        return None
    elif isinstance(key, Tensor) or torch.compiler.is_compiling():
        ids = operators.row_numbers(packed)[key]
    elif isinstance(key, slice):
        selected = range(rows)[key]
        if selected.step < 0:
            return None
        ids = torch.arange(len(selected), device=device) * selected.step + selected.start
    elif -rows <= key < rows:
        ids = torch.tensor(key % rows, device=device)
    else:
        raise IndexError(f"index {key} is out of range for a table of {rows} rows")
    return operators.decode(ids, packed)


def _embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    *_: object,
    **__: object,
) -> Tensor | None:
    """Return ``F.embedding``, None if it would write to the weight."""
    if not isinstance(weight, DecodedWeight) or max_norm is not None:
        return None
    return operators.decode(input, weight._packed)


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
    """Return ``F.linear`` computed from chunks of rows, None where torch converts or rejects the input."""
    if (
        not isinstance(weight, DecodedWeight)
        or isinstance(input, DecodedWeight)
        or input.dtype != weight.dtype
        or torch.is_autocast_enabled(input.device.type)
    ):
        return None
    product = operators.linear(input, weight._packed)
    return product if bias is None else product + bias


def _bag(
    weight: DecodedWeight,
    ids: Tensor,
    offsets: Tensor,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int = -1,
) -> tuple[Tensor, ...] | None:
    """Return the outputs of ``aten::_embedding_bag``, None if the weights need a gradient.

    The outputs for the gradient of the table are empty.
    """
    if per_sample_weights is not None and per_sample_weights.requires_grad:
        return None
    name = ("sum", "mean", "max")[mode]
    pooled = operators.bag(
        ids, offsets, per_sample_weights, weight._packed, name, padding_idx, include_last_offset
    )
    return pooled, *(offsets.new_empty(0) for _ in range(3))


_SELECT: dict[Any, Callable[..., Tensor | None]] = {
    Tensor.__getitem__: _getitem,
    functional.embedding: _embedding,
    functional.linear: _linear,
}
_METADATA = {
    Tensor.size,
    Tensor.dim,
    *(
        getattr(Tensor, name).__get__
        for name in ("shape", "dtype", "device", "ndim", "layout", "requires_grad")
    ),
}
