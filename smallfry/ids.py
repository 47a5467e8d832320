"""Ids of rows as arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from smallfry.errors import InputError


def as_array(ids: Any) -> Any:  # noqa: ANN401 - an array of any library
    """Return an array of any library, and a list as an array of integers."""
    if hasattr(ids, "shape"):
        return ids
    if hasattr(ids, "__dlpack__"):
        return np.from_dlpack(ids)
    return np.asarray(ids) if np.size(ids) else np.empty(np.shape(ids), np.int64)


def as_ids(ids: ArrayLike) -> NDArray[np.int32] | NDArray[np.int64] | NDArray[np.uint32]:
    """Return ids as a contiguous array ``[n]``; raise InputError unless they are integers ``[n]``."""
    array = np.asarray(ids)
    if array.ndim != 1:
        raise InputError(f"ids have shape {list(array.shape)}, expected one dimension")
    if array.dtype in (np.int64, np.int32, np.uint32):
        return np.ascontiguousarray(array)
    if array.size and (array.dtype.kind not in "iu" or not np.can_cast(array.dtype, np.int64)):
        raise InputError(f"ids are {array.dtype}, expected int32, int64 or uint32")
    return array.astype(np.int64)
