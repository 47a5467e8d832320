"""Fuzz the client: any bytes from a server give a result of the right form, or a ClientError."""

from __future__ import annotations

import json
import sys

import atheris

with atheris.instrument_imports(include=["smallfry"], enable_loader_override=False):
    from smallfry.client.base import model_info
    from smallfry.client.errors import ClientError
    from smallfry.client.responses import body_limit, read_json, read_rows, status_error
    from smallfry.client.transport.http import ResponseReader
    from smallfry.client.transport.messages import FORMATS, Response
    from smallfry.sfq.safetensors import build_header

import numpy as np

COUNT = 2
FOUND = np.ones(COUNT, np.bool_)
TRELLIS = {
    "codebook": np.linspace(-2, 2, 256, dtype=np.float32),
    "mean": np.ones(7, np.float32),
    "column_scale": np.ones(7, np.float32),
    "row_scale": np.ones(COUNT, np.float16),
    "codes": np.ones((COUNT, 3), np.uint8),
    "found": FOUND,
}
EXACT = {
    "codebook": np.array([-1, 0, 1, 2], np.float32),
    "codes": np.ones((COUNT, 2), np.uint8),
    "found": FOUND,
}
VERSION = {"model": "m", "digest": "d"}
JSON_BODY = {"model": "m", "dim": 3, "vectors": [[0.5, 1, 2]] * COUNT, "found": [True, False]}


def body(tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> bytes:
    """Return a safetensors body."""
    return build_header(list(tensors.items()), metadata) + b"".join(map(bytes, tensors.values()))


def table(nbit: int, kind: str) -> dict[str, str]:
    """Return the metadata of a packed body."""
    return VERSION | {"nbit": str(nbit), "dim": "7", "codebook_kind": kind, "clip": "2.0"}


BODIES = (
    (FORMATS["packed"], body(TRELLIS, table(3, "trellis"))),
    (FORMATS["packed"], body(EXACT, table(2, "exact"))),
    (FORMATS["safetensors"], body({"vectors": np.ones((COUNT, 3), np.float32), "found": FOUND}, VERSION)),
    (FORMATS["json"], json.dumps(JSON_BODY).encode()),
)


def fuzz(data: bytes) -> None:
    """Use one response: the data; a head and the data as its body; or a right body, damaged by the data."""
    if len(data) < 2:
        return
    accept, right = BODIES[data[0] % len(BODIES)]
    content = data[2:]
    if data[1] & 1:
        content = damaged(right, content)
    elif data[0] & 128:
        header, _, rest = content.partition(b"\n")
        content = len(header).to_bytes(8, "little") + header + rest
    if not data[1] & 2:
        content = message([200, 503][data[1] >> 7], accept, content)
    reader = ResponseReader()
    for _ in range(2 if data[0] & 64 else 0):  # it has seen the head before
        reader.reset(body_limit(COUNT, accept))
        reader.feed(message(200, accept, right))
    reader.reset(body_limit(COUNT, accept))
    step = 1 + data[1] // 8 % 16 if data[1] & 4 else max(1, len(content))
    for start in range(0, len(content), step):
        try:
            response = reader.feed(content[start : start + step])
        except ClientError as error:
            check(error)
            return
        if response is not None:
            use(response, accept)
            return


def message(status: int, accept: str, content: bytes) -> bytes:
    """Return a response."""
    head = f"HTTP/1.1 {status} Whatever\r\nContent-Type: {accept}\r\n"
    head += f"X-Smallfry-Digest: d\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


def damaged(right: bytes, changes: bytes) -> bytes:
    """Return a body with one byte replaced for each three bytes of the changes: position and value."""
    content = bytearray(right)
    for i in range(0, len(changes) - 2, 3):
        content[int.from_bytes(changes[i : i + 2], "little") % len(content)] = changes[i + 2]
    return bytes(content)


def use(response: Response, accept: str) -> None:
    """Decode a response in every way."""
    check(status_error(response, "GET x"))
    try:
        info = model_info(read_json(response))
        json.dumps(vars(info))
    except ClientError as error:
        check(error)
    try:
        rows = read_rows(response, COUNT, accept, None)
        vectors = rows.decode(None).vectors
        assert vectors.shape == (COUNT, rows.version.dim) and vectors.dtype == np.float32
        assert np.isfinite(vectors).all()
        assert rows.decode(np.array([1, 0, 1])).vectors.shape == (3, rows.version.dim)
        assert rows.found.shape == (COUNT,) and rows.found.dtype == np.bool_
    except ClientError as error:
        check(error)


def check(error: ClientError) -> None:
    """Check the form of a message."""
    assert len(str(error)) < 2000 and str(error).isprintable(), repr(str(error))


if __name__ == "__main__":
    atheris.Setup(sys.argv, fuzz)
    atheris.Fuzz()
