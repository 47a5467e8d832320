"""The type of the integer buffers of packed modules, which averaging of models must not change."""

from __future__ import annotations

import copy
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor


class IntegerBuffer(torch.Tensor):
    """An integer tensor that accepts floats only if they are its values up to rounding.

    Averaging over the buffers of a model, ``ema.copy_(0.999 * ema + 0.001 * buffer)``, would truncate codes.
    Here the average of equal tables changes nothing, any other raises ``RuntimeError``. Integers are copied
    as usual. ``detach`` and ``data`` keep the type; every other operation returns an ordinary tensor.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    plain: Tensor
    """The same memory as an ordinary tensor, which operators and tracers accept in every mode."""

    @staticmethod
    def __new__(cls: type[IntegerBuffer], tensor: Tensor) -> IntegerBuffer:
        """Wrap an integer tensor, sharing its memory; always the same object for one tensor."""
        if isinstance(tensor, cls):
            return tensor
        buffer = _buffers.get(id(tensor))
        if buffer is None:
            buffer = _buffers[id(tensor)] = tensor.as_subclass(cls)
            # Including the attributes that libraries set on tensors.
            vars(buffer).update(vars(tensor), plain=tensor)
        return buffer

    def detach(self) -> IntegerBuffer:
        """Return an alias."""
        return IntegerBuffer(self.plain.detach())

    @property
    def data(self) -> IntegerBuffer:
        """An alias; setting it replaces the memory, as FSDP does."""
        return IntegerBuffer(self.plain.data)

    @data.setter
    def data(self, value: Tensor) -> None:
        self.plain.data = value
        torch.Tensor.data.__set__(self, value)  # type: ignore[attr-defined]

    def copy_(self, src: Tensor, non_blocking: bool = False) -> IntegerBuffer:
        """Copy integers; raise RuntimeError for floats that are not the present values."""
        if not _keeps(self.plain, src):
            self.plain.copy_(src, non_blocking)
        return self

    def __setitem__(self, key: Any, value: Any) -> None:  # noqa: ANN401
        if not _keeps(self.plain[key], value):
            self.plain[key] = value

    def __deepcopy__(self, memo: dict[int, Any]) -> IntegerBuffer:
        return IntegerBuffer(copy.deepcopy(self.plain, memo))

    def __reduce_ex__(self, protocol: Any) -> Any:  # noqa: ANN401
        return self.plain.__reduce_ex__(protocol)


# id(plain) → its buffer. Modules that share a table share the buffer, which Module.buffers() yields once.
_buffers: WeakValueDictionary[int, IntegerBuffer] = WeakValueDictionary()


def plain(buffer: Any) -> Any:  # noqa: ANN401 - Tensor to Tensor, None to None
    """Return the ordinary tensor of a buffer."""
    return buffer.plain if type(buffer) is IntegerBuffer else buffer


def _keeps(present: Tensor, value: Any) -> bool:  # noqa: ANN401
    """Return whether writing ``value`` is writing floats that are the present values up to rounding."""
    if not (isinstance(value, Tensor) and value.is_floating_point()):
        return False
    if torch.allclose(value, present.to(value), rtol=4 * torch.finfo(value.dtype).eps, atol=0):
        return True
    raise RuntimeError(
        "The floats written to the codes or row numbers of a packed table differ from the present values, "
        "as in an average with another table. Please average copies of one model, or only buffers for "
        "which is_floating_point() is true."
    )
