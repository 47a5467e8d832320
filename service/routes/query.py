"""A lookup as it was asked for: from a request's body to checked values."""

from __future__ import annotations

from itertools import chain
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import numpy as np
from numpy.typing import NDArray

from service.errors import BatchTooLarge, InvalidValue
from service.http.request import check_names, kind
from service.models.model import Model
from service.models.registry import Models
from smallfry.offsets import offsets_of
from smallfry.table import POOLS, Pool

EXAMPLE = '{"tokens": ["the", "cat"]}'
FIELDS = frozenset({"tokens", "ids", "model", "pool", "oov", "dtype"})
POLICIES = ("zero", "mean", "error", "skip")
DTYPES = ("float32", "float16")

_DEFAULTS = FIELDS - {"pool", "oov", "dtype"}

Offsets = NDArray[np.int64]


class Query(NamedTuple):
    """Tokens or row numbers, flat, and how to answer."""

    model: Model
    tokens: list[str] | None
    ids: NDArray[np.int64] | None
    offsets: Offsets | None
    pool: Pool | None = None
    oov: str = "zero"
    dtype: str = "float32"


def parse_fields(fields: dict[str, Any], models: Models, max_tokens: int) -> Query:
    """Check the fields of a JSON request.

    Raises
    ------
    InvalidValue
        A field is unknown, missing, or holds what it cannot; the message names it and the position.
    UnknownModel
        No model has the name asked for.
    BatchTooLarge
        There are more than `max_tokens` tokens or ids, or lists of them.
    """
    check_names(fields, FIELDS)
    tokens, ids = fields.get("tokens"), fields.get("ids")
    if (tokens is None) == (ids is None):
        held = "neither tokens nor ids" if tokens is None else "both tokens and ids"
        raise InvalidValue(f"the request holds {held}; give one of them: {EXAMPLE}", param="tokens")
    name, values = ("tokens", tokens) if ids is None else ("ids", ids)
    if type(values) is not list:
        expected = "strings" if ids is None else "row numbers"
        raise InvalidValue(f"{name} is {kind(values)}; it has to be a list of {expected}", param=name)
    offsets = None
    if values and type(values[0]) is list:
        values, offsets = flatten(values, name, max_tokens)
    check_count(len(values), name, max_tokens)
    model = models.find(fields.get("model"))
    numbers = None if ids is None else row_numbers(values, model, name, offsets)
    query = Query(model, values if ids is None else None, numbers, offsets)
    return query if fields.keys() <= _DEFAULTS else _with_options(query, fields)


def parse_raw(body: bytes, query_string: bytes, models: Models, max_tokens: int) -> Query:
    """Check a body of little-endian uint32 row numbers and the fields beside it in the query string.

    Raises
    ------
    InvalidValue, UnknownModel, BatchTooLarge
        As `parse_fields` does.
    """
    given = parse_qs(query_string.decode("latin-1"), keep_blank_values=True)
    fields: dict[str, Any] = {name: values[-1] for name, values in given.items() if name in FIELDS}
    if len(body) % 4:
        raise InvalidValue(
            f"the body has {len(body)} bytes; row numbers are little-endian uint32, 4 bytes each", param="ids"
        )
    check_count(len(body) // 4, "ids", max_tokens)
    model = models.find(fields.get("model"))
    ids = np.frombuffer(body, "<u4").astype(np.int64)
    _check_range(ids, model, "ids", None)
    return _with_options(Query(model, None, ids, None), fields)


def check_count(count: int, name: str, max_tokens: int, what: str | None = None) -> None:
    """Refuse more tokens, ids, or lists of them at once than the server takes."""
    if count > max_tokens:
        raise BatchTooLarge(
            f"the request holds {count} {what or name}; this server takes {max_tokens} at once "
            "(--max-batch-tokens): split the request",
            param=name,
        )


def flatten(values: list[Any], name: str, max_lists: int) -> tuple[list[Any], Offsets]:
    """Join lists of lists; return also where each begins, and the total.

    Each list may get a vector, empty ones too: there may be no more of them than of tokens.
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


def row_numbers(values: list[Any], model: Model, name: str, offsets: Offsets | None) -> NDArray[np.int64]:
    """Return JSON values as row numbers of a model; a refusal names the position of the first wrong one."""
    if not set(map(type, values)) <= {int}:
        position = next(i for i, value in enumerate(values) if type(value) is not int)
        place = where(name, position, offsets)
        raise InvalidValue(f"{place} is {kind(values[position])}; a row number is a whole number", param=name)
    try:
        ids = np.array(values, np.int64)
    except OverflowError:
        position = next(i for i, value in enumerate(values) if not 0 <= value < 1 << 63)
        raise _out_of_range(values[position], position, model, name, offsets) from None
    _check_range(ids, model, name, offsets)
    return ids


def where(name: str, position: int, offsets: Offsets | None) -> str:
    """Name a place in a field, flat or nested: ``tokens[3]``, ``tokens[1][0]``."""
    if offsets is None:
        return f"{name}[{position}]"
    bag = int(np.searchsorted(offsets, position, side="right")) - 1
    return f"{name}[{bag}][{position - int(offsets[bag])}]"


def _check_range(ids: NDArray[np.int64], model: Model, name: str, offsets: Offsets | None) -> None:
    # As unsigned numbers, negative ones are too large as well.
    outside = ids.view(np.uint64) >= len(model.store)
    if outside.any():
        position = int(outside.argmax())
        raise _out_of_range(int(ids[position]), position, model, name, offsets)


def _out_of_range(
    value: int, position: int, model: Model, name: str, offsets: Offsets | None
) -> InvalidValue:
    last = len(model.store) - 1
    place = where(name, position, offsets)
    return InvalidValue(f"{place} is {value}; the rows of {model.name!r} are 0 to {last}", param=name)


def _with_options(query: Query, fields: dict[str, Any]) -> Query:
    pool = _choice(fields, "pool", POOLS, None)
    oov = _choice(fields, "oov", POLICIES, "zero")
    dtype = _choice(fields, "dtype", DTYPES, "float32")
    if pool is not None and query.offsets is None:
        if not query.tokens and (query.ids is None or not query.ids.size):
            return query._replace(pool=pool, oov=oov, dtype=dtype, offsets=np.zeros(1, np.int64))
        raise InvalidValue(
            "pool needs lists of lists: one vector is answered for each inner list", param="pool"
        )
    if oov == "skip" and pool is None:
        raise InvalidValue(
            'oov "skip" leaves unknown tokens out of a pool; give pool, or another oov', param="oov"
        )
    return query._replace(pool=pool, oov=oov, dtype=dtype)


def _choice(fields: dict[str, Any], name: str, choices: tuple[str, ...], default: str | None) -> Any:  # noqa: ANN401
    value = fields.get(name)
    if value is None:
        return default
    if value not in choices:
        shown = repr(value) if isinstance(value, str) else kind(value)
        raise InvalidValue(f"{name} is {shown}; it has to be one of {', '.join(choices)}", param=name)
    return value
