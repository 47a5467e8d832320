"""The formats of answers, and which of them a request gets."""

from __future__ import annotations

from functools import lru_cache

from service.errors import NotAcceptable

JSON = "application/json"
RAW = "application/octet-stream"
SAFETENSORS = "application/vnd.safetensors"
PACKED = "application/vnd.smallfry.packed"
FORMATS = (JSON, RAW, SAFETENSORS, PACKED)


@lru_cache(maxsize=256)
def negotiate(accept: bytes | None, formats: tuple[str, ...] = FORMATS) -> tuple[str, ...]:
    """Return those of a route's formats that an ``Accept`` header allows, the best first.

    Ordered by quality, then an exact type before a wildcard, then as the client listed them, then as the
    route does. Without a header it is the route's first.

    Raises
    ------
    NotAcceptable
        None of them is allowed.
    """
    if accept is None or not accept.strip():
        return formats[:1]
    ranges = []
    for position, item in enumerate(accept.decode("latin-1").lower().split(",")):
        name, *parameters = (part.strip() for part in item.split(";"))
        ranges.append((name, _quality(parameters), position))
    ranked = []
    for rank, format in enumerate(formats):
        matches = [
            (specificity, quality, position)
            for name, quality, position in ranges
            if (specificity := _specificity(name, format)) is not None
        ]
        if matches:
            specificity, quality, position = max(matches, key=lambda match: match[0])
            if quality > 0:
                ranked.append((-quality, -specificity, position, rank, format))
    if not ranked:
        raise NotAcceptable(
            f"Accept is {accept.decode('latin-1')!r}; this route answers as {', '.join(formats)}",
            param="Accept",
        )
    return tuple(format for *_, format in sorted(ranked))


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return min(max(float(value), 0.0), 1.0)
            except ValueError:
                return 0.0
    return 1.0


def _specificity(name: str, format: str) -> int | None:
    if name == format:
        return 2
    if name == format.partition("/")[0] + "/*":
        return 1
    return 0 if name == "*/*" else None
