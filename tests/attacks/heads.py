"""Attacks with request lines and headers."""

from __future__ import annotations

import random

from tests.attacks.target import (
    HONEST,
    JSON,
    MAX_BODY,
    Statuses,
    Target,
    all_of,
    half_closed,
    request,
    send_and_wait,
)


async def malformed(target: Target) -> Statuses:
    """Random bytes, and requests with some bytes changed."""
    chance = random.Random(0)
    sent = []
    for number in range(200 * target.scale):
        if number % 4 == 0:
            data = chance.randbytes(chance.randrange(1, 300))
        else:
            data = bytearray(request())
            for _ in range(chance.randrange(1, 6)):
                data[chance.randrange(len(data))] = chance.randrange(256)
        sent.append(bytes(data) + b"\r\n\r\n")
    first = all_of(half_closed(target, data) for data in sent[::2])
    return await first + await all_of(target.send(data) for data in sent[1::2])


async def lying_lengths(target: Target) -> Statuses:
    """Content lengths that differ from the body, occur twice, or are not lengths."""
    line = "POST /lookup HTTP/1.1\r\nhost: x\r\n" + JSON
    lengths = ["1", "25", "27", str(MAX_BODY + 1), "18446744073709551616", "9" * 5000]
    lengths += ["-1", "+26", "0x1A", "2 6", "26, 26", ""]
    heads = [
        *(f"content-length: {length}\r\n" for length in lengths),
        "content-length: 26\r\ncontent-length: 27\r\n",
        "content-length: 26\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked, gzip\r\n",
        "transfer-encoding: \x0bchunked\r\ncontent-length: 26\r\n",
    ]
    sent = [f"{line}{head}\r\n".encode("latin-1") + HONEST for head in heads]
    return await all_of(target.send(data) for data in sent * target.scale)


async def long_heads(target: Target) -> Statuses:
    """Heads without end: many headers, one endless header, an endless path, empty lines."""
    line = b"GET /livez HTTP/1.1\r\nhost: x\r\n"
    endless = [line + b"x: y\r\n" * (1 << 20), line + b"x: " + b"y" * (8 << 20), b"GET /" + b"a" * (8 << 20)]
    endless += [b"\r\n" * (4 << 20), line + b"x" * (8 << 20)]
    return await all_of((target.send(data) for data in endless * target.scale), together=4)


async def pipelining(target: Target) -> Statuses:
    """Thousands of pipelined requests at once, also after one that does not end."""
    many = b"GET /stats HTTP/1.1\r\nhost: x\r\n\r\n" * 20_000
    behind = f"POST /lookup HTTP/1.1\r\nhost: x\r\n{JSON}transfer-encoding: chunked\r\n\r\n".encode()
    sent = [many, behind + b"1\r\n{\r\n" * 10, request() * 5_000]
    return await all_of((target.send(data) for data in sent * target.scale), together=4)


async def path_tricks(target: Target) -> Statuses:
    """Paths that lead out of every served folder, in many encodings."""
    ups = ("..", "%2e%2e", "%252e%252e", "..%00", "..;", "%c0%ae%c0%ae", "..\\", "....//")
    roots = ("/", "/dashboard/", "/models/", "/models/x/", "//", "/v1/")
    paths = [
        root + f"{up}/" * 9 + "etc/passwd" + tail for root in roots for up in ups for tail in ("", "/file")
    ]
    paths += ["*", "x:443", "http://a/../b", "/%", "/%ff%fe", "/\xff", "/models/%00"]
    paths += ["/?" + "&" * 9999, "/" * 9999]
    paths += ["/models/" + "%2e" * 2000 + "/file", "/dashboard/%2e%2e%2fapp.py", "/dashboard/..%2fauth.py"]
    methods = ("GET", "HEAD", "POST", "OPTIONS", "PUT", "DELETE", "CONNECT", "TRACE", "PRI")
    sent = [request(b"", "", f"{methods[0]} {path} HTTP/1.1") for path in paths]
    sent += [request(b"", "", f"{method} /models/.. HTTP/1.1") for method in methods]
    ranges = ("0-" + "9" * 5000, "-" + "9" * 5000, "-0", "9-1", "0-1," * 9999)
    sent += [request(b"", f"range: bytes={span}\r\n", "GET /models/small/file HTTP/1.1") for span in ranges]
    return await all_of(target.send(data) for data in sent * target.scale)


async def headers_that_mislead(target: Target) -> Statuses:
    """Invalid header values, and too many of them."""
    heads = (
        "accept: " + "*/*;q=0.1," * 5000,
        "accept: application/json;q=1e999",
        "x-request-id: " + "a" * 60_000,
        "content-type: " + "a/b;" * 9999,
        "upgrade: websocket\r\nconnection: upgrade",
        "expect: 200-maybe",
        "upgrade: h2c\r\nconnection: upgrade, http2-settings",
        "authorization: Bearer \xff\xfe",
        "cookie: " + "a=b;" * 9999,
        "if-none-match: " + '"a",' * 9999,
        "traceparent: 00-" + "f" * 999,
        "host: \x00",
        "origin: " + "a" * 60_000,
    )
    sent = [request(head=f"{head}\r\n") for head in heads]
    sent += [request(b"", f"{head}\r\n", "GET /models/small HTTP/1.1") for head in heads]
    return await all_of(target.send(data) for data in sent * target.scale)


async def guessed_keys(target: Target) -> Statuses:
    """Routes that need the admin key, requested with guessed keys."""
    chance = random.Random(1)
    sent = []
    for _ in range(100 * target.scale):
        key = "".join(chance.choices("abcdefghijklmnopqrstuvwxyz-", k=chance.randrange(0, 40)))
        head = chance.choice((f"authorization: Bearer {key}\r\n", f"x-api-key: {key}\r\n"))
        sent.append(request(b"", head, "DELETE /models/small HTTP/1.1"))
    return await all_of(target.send(data) for data in sent)


async def tiny_fields(target: Target) -> Statuses:
    """Heads of as many fields as fit, whole, without an end, and as trailers."""
    fields = "a:\r\n" * 15_000
    heads = [request(b"", fields, "GET /livez HTTP/1.1"), request(b"", fields)]
    endless = [f"GET /livez HTTP/1.1\r\nhost: x\r\n{fields}".encode()]
    endless += [
        f"POST /lookup HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n{fields}".encode()
    ]
    sent = [target.send(data) for data in heads * 10 * target.scale]
    sent += [send_and_wait(target, data) for data in endless * 25 * target.scale]
    return await all_of(sent, together=300)


async def long_fields(target: Target) -> Statuses:
    """Headers and targets of 60 KB, made of the parts that cost most."""
    ranges = ",".join(map(str, range(10_000)))
    fields = [f"accept: {value}" for value in ("," * 60_000, ranges, ";" * 60_000)]
    fields += ["cookie: " + "a=b;" * 15_000, "if-none-match: " + "," * 60_000]
    fields += ["authorization: bearer " + "a," * 30_000, "x-api-key: a,b,c,d,e,f,g,h\r\n" * 2000 + "x: y"]
    sent = [request(b"", f"{field}\r\n", "GET / HTTP/1.1") for field in fields]
    sent += [request(b"", f"{field}\r\n", "GET /models/large HTTP/1.1") for field in fields]
    targets = ["/dashboard/traffic?" + "a=&" * 20_000, "/" + "%ff" * 20_000]
    targets += ["/models/" + "%f0%9f%8e%89" * 5_000]
    sent += [request(b"", "", f"GET {path} HTTP/1.1") for path in targets]
    query = "&".join(f"{number:x}=" for number in range(10_000))
    sent.append(request(b"", "content-type: application/octet-stream\r\n", f"POST /lookup?{query} HTTP/1.1"))
    return await all_of(target.send(data) for data in sent * 5 * target.scale)


async def pipelined_heads(target: Target) -> Statuses:
    """Pipelined requests of many fields, each of them an upgrade that the server ignores."""
    fields = "a:\r\n" * 90
    upgrade = "upgrade: a\r\nconnection: upgrade\r\n"
    line = "GET /stats HTTP/1.1"
    last = request(b"", "connection: close\r\n", line)
    sent = [request(b"", head, line) * 99 + last for head in (fields, upgrade)]
    return await all_of((send_and_wait(target, data) for data in sent * 30 * target.scale), together=300)
