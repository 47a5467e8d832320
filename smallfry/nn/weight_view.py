"""The type of ``module.weight``: a tensor that decodes when its values are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smallfry.nn.kernels import operators
from smallfry.nn.packed import Packed

READ_ONLY = (
    "The weight of a packed module cannot be written to: its codes represent codebook values only. "
    "Create a new module with QuantEmbedding.from_pretrained(matrix, nbit=…), or load the matrix with "
    "module.load_state_dict({'weight': matrix}); both quantize it."
)

_aten = torch.ops.aten
# Operators that select rows when they act on the first axis; only those rows are decoded.
_PICK_ROWS = (_aten.select.int, _aten.slice.Tensor, _aten.index_select.default)


class DecodedWeight(torch.Tensor):
    """The decoded table of a packed module, read-only.

    ``shape``, ``dtype`` and ``device`` decode nothing. Selecting rows (``weight[3]``, ``weight[:10]``,
    ``weight[ids]``, ``F.embedding(ids, weight)``) decodes those rows only. Other operations decode the whole
    table temporarily; ``weight.clone()`` returns an ordinary tensor. Writing raises
    ``RuntimeError``; selected rows are independent tensors and writable.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]
    _packed: Packed

    @staticmethod
    def __new__(cls: type[DecodedWeight], packed: Packed) -> DecodedWeight:
        """Wrap the tensors of a packed table."""
        codes = packed.codes
        weight: DecodedWeight = torch.Tensor._make_wrapper_subclass(
            cls, (len(codes), packed.dim), dtype=packed.dtype, device=codes.device
        )
        weight._packed = packed
        return weight

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
        if func is _aten.embedding.default and isinstance(first, cls):
            return operators.decode(args[1], first._packed)
        if _picks_rows(func, args) and isinstance(first, cls):
            return operators.decode(
                func(operators.row_numbers(first._packed), *args[1:], **kwargs), first._packed
            )
        plain_args, plain_kwargs = torch.utils._pytree.tree_map_only(cls, cls.decode, (args, kwargs))
        return func(*plain_args, **plain_kwargs)

    def decode(self) -> Tensor:
        """Return every row as an ordinary tensor."""
        return operators.decode_all(self._packed)

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


def check_assigned(value: object, codes: Tensor) -> None:
    """Raise AttributeError unless a module is assigned its own weight, as code that ties weights does."""
    if not (isinstance(value, DecodedWeight) and value._packed.codes is codes):
        raise AttributeError(READ_ONLY)


def _picks_rows(func: Any, args: tuple[Any, ...]) -> bool:  # noqa: ANN401
    if func is _aten.index.Tensor:
        return len(args[1]) == 1
    return func in _PICK_ROWS and (len(args) < 2 or args[1] == 0)


def _refuse() -> NoReturn:
    raise RuntimeError(READ_ONLY)
