"""Attacks with request bodies."""

from __future__ import annotations

import gzip
from functools import cache

from tests.attacks.target import HONEST, JSON, Statuses, Target, all_of, half_closed, request, send_and_wait


async def chunked_bombs(target: Target) -> Statuses:
    """Chunked bodies without end, in large and in small chunks; trailers; chunks with wrong sizes."""
    head = f"POST /lookup HTTP/1.1\r\nhost: x\r\n{JSON}transfer-encoding: chunked\r\n\r\n".encode()
    large = head + (b"10000\r\n" + b"x" * 0x10000 + b"\r\n") * 1024
    small = head + b"1\r\nx\r\n" * (1 << 18)
    trailers = head + b"0\r\n" + b"x: y\r\n" * (1 << 20)
    sizes = (b"FFFFFFFFFFFFFFFF", b"F" * 17, b"-1", b"1;" + b"e" * 99999)
    lying = [head + size + b"\r\n" + HONEST for size in sizes]
    sent = [target.send(large), target.send(trailers)]
    sent += [half_closed(target, data) for data in (small, *lying)]
    sent += [target.send(large) for _ in range(4 * (target.scale - 1))]
    return await all_of(sent, together=4)


async def gzip_bombs(target: Target) -> Statuses:
    """Compressed bodies that would decompress to a thousand times their size."""
    bomb = gzip_bomb()
    encodings = (
        "content-encoding: gzip\r\n",
        "transfer-encoding: gzip, chunked\r\n",
        "content-type: application/gzip\r\n",
    )
    sent = [request(bomb, JSON + encoding) for encoding in encodings]
    return await all_of(target.send(data) for data in sent * target.scale)


@cache
def gzip_bomb() -> bytes:
    """Return 200 MB of zeros, compressed."""
    return gzip.compress(bytes(200 << 20), 9)


async def many_tokens(target: Target) -> Statuses:
    """A million tokens of one letter, empty lists or numbers; one token of 10 MB, and one of 7."""
    bodies = [b'{"tokens":[' + b'"a",' * 10**6 + b'"a"]}', b'{"tokens":[' + b"[]," * 10**6 + b"[]]}"]
    bodies += [b'{"ids":[' + b"1," * 10**6 + b"1]}", b'{"ids":[[' + b"1," * 10**6 + b'1]],"pool":"sum"}']
    bodies += [b'{"tokens":["' + b"a" * size + b'"]}' for size in (10**7, 7 * 10**6)]
    # Also with a model, so that they are not rejected only because it is missing.
    bodies += [body.replace(b"{", b'{"model":"large",', 1) for body in bodies]
    bodies += [b'{"model":"large","pool":"sum","ids":[' + b"[]," * 10**6 + b"[]]}"]
    return await all_of((target.send(request(body)) for body in bodies * target.scale), together=4)


async def deep_json(target: Target) -> Statuses:
    """JSON that is nested as deep as a body is long, and numbers that long."""
    bodies = [
        b"[" * (4 << 20),
        b'{"tokens":' * (1 << 18),
        b'{"tokens":' + b"[" * (1 << 20) + b'"\\ud800"' + b"]" * (1 << 20),
    ]
    bodies += [b'{"tokens":["\\ud800"],"ids":' + b"9" * 4000 + b"}", b'{"ids":[' + b"9" * (4 << 20) + b"]}"]
    bodies += [b'{"ids":[' + b"1e999," * 1000 + b"-1]}"]
    bodies += [b'{"tokens":["\\ud800"],"x":' + b"[" * 50_000 + b"1e5"]
    bodies += [b'{"tokens":["a"],"tokens":["b"],"model":null,"' + b"\\u0000" * 10**6 + b'":1}']
    return await all_of((target.send(request(body)) for body in bodies * target.scale), together=4)


async def nested_lists(target: Target) -> Statuses:
    """Bodies within the default limit that are lists of lists, objects, or fields, and nothing else."""
    size = 2 << 20
    units = ("[[]],", "[],", "[1],", "{},")
    shapes = ['{"ids":[' + unit * (size // len(unit) - 9) + "[]]}" for unit in units]
    shapes += ["{" + ",".join(f'"{number:x}":0' for number in range(200_000)) + "}"]
    shapes += ['{"tokens":["\\ud800"],"ids":[' + "[]," * (size // 3 - 20) + "[]]}"]
    sent = [request(shape.encode()) for shape in shapes]
    sent += [request(shape.encode(), line="POST /neighbors HTTP/1.1") for shape in shapes[:2]]
    return await all_of((target.send(data) for data in sent * target.scale), together=16)


async def unfinished_bodies(target: Target) -> Statuses:
    """Large bodies, with a length and in chunks, of which the last byte is missing."""
    lines = ("POST /lookup", "POST /neighbors", "GET /models", "PUT /models/a")
    sent = [request(b" " * (2 << 20), line=f"{line} HTTP/1.1")[:-1] for line in lines]
    chunked = f"POST /lookup HTTP/1.1\r\nhost: x\r\n{JSON}transfer-encoding: chunked\r\n\r\n".encode()
    sent.append(chunked + b"10000\r\n%b\r\n" % (b" " * 65536) * 30)
    return await all_of((send_and_wait(target, data) for data in sent * 10 * target.scale), together=300)


async def large_numbers(target: Target) -> Statuses:
    """Numbers of hundreds of digits in each field, next to a lone surrogate that needs the slow parser."""
    digits = "9" * 400
    bodies = [
        ("lookup", f'"tokens":["\\ud800"],"ids":[{digits}],"tokens":null'),
        ("neighbors", f'"token":"\\ud800","vector":[{digits}],"token":null'),
        ("neighbors", f'"token":"\\ud800","id":{digits},"token":null'),
        ("neighbors", f'"token":"\\ud800","k":{digits}'),
        ("v1/embeddings", f'"input":"\\ud800","dimensions":{digits}'),
    ]
    sent = [
        request(f'{{"model":"large",{body}}}'.encode(), line=f"POST /{path} HTTP/1.1")
        for path, body in bodies
    ]
    return await all_of(target.send(data) for data in sent * 20 * target.scale)
