"""Tokens or row numbers of a request as flat arrays."""

from __future__ import annotations

from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import BatchTooLarge, InvalidValue
from service.http.validation import kind
from service.models.model import Model
from smallfry.offsets import offsets_of

Offsets = NDArray[np.int64]

#: Values that are summed for one pooled vector: no other request is served meanwhile, for up to 10 ms.
MAX_POOLED = 1 << 25


def check_count(count: int, name: str, max_tokens: int, what: str | None = None) -> None:
    """Reject more tokens, ids, or lists of them than the server takes in one request."""
    if count > max_tokens:
        raise BatchTooLarge(
            f"the request holds {count} {what or name}; this server takes {max_tokens} at once "
            "(--max-batch-tokens): split the request",
            param=name,
        )


def check_pooled(offsets: Offsets, model: Model, name: str) -> None:
    """Reject lists whose pooling takes the event loop long."""
    lengths, dim = np.diff(offsets), model.store.dim
    if lengths.size and int(lengths.max()) * dim > MAX_POOLED:
        position = int(lengths.argmax())
        raise BatchTooLarge(
            f"{name}[{position}] pools {lengths[position]} vectors of {dim} values; this server pools "
            f"{MAX_POOLED // dim} of them at most: split the list",
            param=name,
        )


def flatten(values: list[Any], name: str, max_lists: int) -> tuple[list[Any], Offsets]:
    """Concatenate lists; return also where each begins, and the total.

    Empty lists may get a vector, too, so that the limit of tokens applies to the number of lists as well.
    """
    check_count(len(values), name, max_lists, f"lists in {name}")
    if not set(map(type, values)) <= {list}:
        position = next(i for i, value in enumerate(values) if type(value) is not list)
        raise InvalidValue(
            f"{name}[{position}] is {kind(values[position])} among lists; give all flat, or all in lists",
            param=name,
        )
    lengths = np.fromiter(map(len, values), np.int64, len(values))
    return list(chain.from_iterable(values)), offsets_of(lengths)


class IdRange(NamedTuple):
    """The ids of a model: what one is called and what all are, for messages, and their number."""

    one: str
    all: str
    size: int


def row_range(model: Model) -> IdRange:
    """Return the row numbers of a model."""
    return IdRange("row number", f"rows of {model.name!r}", len(model.store))


def whole_numbers(values: list[Any], valid: IdRange, name: str, offsets: Offsets | None) -> NDArray[np.int64]:
    """Return JSON values as ids of a model; an error names the position of the first wrong one."""
    if not set(map(type, values)) <= {int}:
        position = next(i for i, value in enumerate(values) if type(value) is not int)
        place = where(name, position, offsets)
        raise InvalidValue(
            f"{place} is {kind(values[position])}; a {valid.one} is a whole number", param=name
        )
    try:
        ids = np.array(values, np.int64)
    except OverflowError:
        position = next(i for i, value in enumerate(values) if not 0 <= value < 1 << 63)
        raise _out_of_range(values[position], position, valid, name, offsets) from None
    check_range(ids, valid, name, offsets)
    return ids


def check_range(ids: NDArray[np.int64], valid: IdRange, name: str, offsets: Offsets | None) -> None:
    """Reject ids that a model does not have."""
    # As unsigned numbers, negative ones are too large as well.
    outside = ids.view(np.uint64) >= valid.size
    if outside.any():
        position = int(outside.argmax())
        raise _out_of_range(int(ids[position]), position, valid, name, offsets)


def where(name: str, position: int, offsets: Offsets | None) -> str:
    """Name an element of a field, flat or nested: ``tokens[3]``, ``tokens[1][0]``."""
    if offsets is None:
        return f"{name}[{position}]"
    bag = int(np.searchsorted(offsets, position, side="right")) - 1
    return f"{name}[{bag}][{position - int(offsets[bag])}]"


def _out_of_range(
    value: int, position: int, valid: IdRange, name: str, offsets: Offsets | None
) -> InvalidValue:
    place = where(name, position, offsets)
    return InvalidValue(f"{place} is {value}; the {valid.all} are 0 to {valid.size - 1}", param=name)
