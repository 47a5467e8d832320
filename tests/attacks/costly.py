"""Requests that cost the server much per byte, and bytes that make a connection hold memory.

The server serves the models of `tests.attacks.sockets.write_models`, with the default limits.
"""

from __future__ import annotations

import json

from smallfry.media_types import JSON, PACKED, RAW, SAFETENSORS

#: Bytes of a head, just within its limit.
HEAD = 16_000
#: Bytes of a body, just within the default of ``--max-body``.
BODY = (2 << 20) - 100

_JSON = f"content-type:{JSON}"


def request(line: str, *fields: str, body: bytes | None = None) -> bytes:
    """Return a request in as few bytes as possible."""
    length = () if body is None else (f"content-length:{len(body)}",)
    head = "\r\n".join((f"{line} HTTP/1.1", "host:x", *fields, *length))
    return f"{head}\r\n\r\n".encode("latin-1") + (body or b"")


def filled(begin: str, unit: str, end: str = "", size: int = BODY) -> bytes:
    """Return a unit that is repeated up to a size."""
    return (begin + unit * ((size - len(begin) - len(end)) // len(unit)) + end).encode("latin-1")


def _post(path: str, body: bytes) -> bytes:
    return request(f"POST {path}", _JSON, body=body)


def _field(name: str, unit: str, size: int = HEAD) -> str:
    return f"{name}:{unit * (size // len(unit))}"


_GETS = {
    path: request(f"GET {path}")
    for path in (
        *("/", "/livez", "/readyz", "/stats", "/metrics", "/openapi.json", "/docs", "/nothing", "*"),
        *("/models", "/models/large", "/models/nothing", "/v1/models", "/v1/models/large"),
        *("/dashboard/models", "/dashboard/models/large", "/dashboard/traffic", "/dashboard/index.html"),
        "/dashboard/traffic?history=1",
    )
}

#: A whole head, with as many fields, or values in one field, as fit.
HEADS = {
    "tiny fields": request("GET /livez", *["a:"] * (HEAD // 4)),
    "fields": request("GET /livez", *["x:y"] * (HEAD // 5)),
    "Accept": request("GET /", _field("accept", ",")),
    "Accept, different": request("GET /", "accept:" + ",".join(map(str, range(3000)))),
    "Accept, parameters": request("GET /", _field("accept", ";")),
    "X-Request-ID": request("GET /livez", _field("x-request-id", "a")),
    "keys": request("GET /models", *["x-api-key:" + ",".join("abcdefgh")] * (HEAD // 27)),
    "bearer keys": request("GET /models", _field("authorization", "bearer a,")),
    "key": request("GET /models", _field("x-api-key", "a")),
    "If-None-Match": request("GET /models/large", _field("if-none-match", ",")),
    "Range": request("GET /models/small/file", _field("range", "0-1,")),
    "Content-Type": request("POST /lookup", _field("content-type", ";"), body=b"{}"),
    "Cookie": request("GET /livez", _field("cookie", "a=b;")),
    "traceparent": request("GET /livez", _field("traceparent", "0")),
    "path": request("GET /" + "a" * HEAD),
    "path, encoded": request("GET /" + "%ff" * (HEAD // 3)),
    "path, slashes": request("GET " + "/" * HEAD),
    "path of a model": request("GET /models/" + "%f0%9f%8e%89" * (HEAD // 12)),
    "query": request("GET /dashboard/traffic?" + "&" * HEAD),
    "query, fields": request("GET /dashboard/traffic?" + "a=&" * (HEAD // 3)),
    "query of a lookup": request(
        "POST /lookup?" + "&".join(f"{n:x}=" for n in range(2500)), f"content-type:{RAW}", body=b""
    ),
    "preflight": request(
        "OPTIONS /lookup",
        "origin:a",
        "access-control-request-method:a",
        _field("access-control-request-headers", "a,"),
    ),
    "upgrades": request("GET /livez", "upgrade:a", "connection:upgrade") * 100,
    "host": request("GET /livez").replace(b"host:x", b"host:" + b"a" * HEAD),
}

_LARGE = '{"model":"large",'
#: Bodies as large as the server takes, or of the shapes that cost most.
BODIES = {
    "nested lists": _post("/lookup", b"[" * BODY),
    "nested lists, closed": _post("/lookup", b"[" * (BODY // 2) + b"]" * (BODY // 2)),
    "lists of lists": _post("/lookup", filled('{"ids":[', "[[]],", "[]]}")),
    "lists": _post("/lookup", filled(_LARGE + '"ids":[', "[],", "[]]}")),
    "objects": _post("/lookup", filled(_LARGE + '"ids":[', "{},", "[]]}")),
    "ids": _post("/lookup", filled(_LARGE + '"ids":[', "1,", "1]}")),
    "ids in lists": _post("/lookup", filled(_LARGE + '"pool":"sum","ids":[', "[1],", "[1]]}")),
    "numbers": _post("/lookup", filled(_LARGE + '"ids":[', "1e9,", "1]}")),
    "tokens": _post("/lookup", filled(_LARGE + '"tokens":[', '"a",', '"a"]}')),
    "one token": _post("/lookup", filled(_LARGE + '"tokens":["', "a", '"]}')),
    "one token, not ASCII": _post("/lookup", filled(_LARGE + '"tokens":["', "\\u00e9", '"]}')),
    "unknown tokens": _post(
        "/lookup",
        json.dumps(
            {"model": "large", "tokens": [f"{n:0120d}" for n in range(16384)], "oov": "error"}
        ).encode(),
    ),
    "tokens, surrogates": _post("/lookup", filled(_LARGE + '"tokens":[', '"\\ud800",', '"a"]}')),
    "lists, surrogate": _post("/lookup", filled(_LARGE + '"tokens":["\\ud800"],"ids":[', "[],", "[]]}")),
    "fields": _post("/lookup", ("{" + ",".join(f'"{n:x}":0' for n in range(200_000)) + "}").encode()),
    "a field": _post("/lookup", filled("{", '"tokens":0,', '"ids":0}')),
    "escaped": _post("/lookup", filled('{"', "\\u0000", '":1}')),
    "spaces": _post("/lookup", filled(_LARGE + '"ids":[', " ", "1]}")),
    "raw ids": request(
        "POST /lookup?model=large",
        f"content-type:{RAW}",
        f"accept:{PACKED}",
        body=bytes(4 * 16384),
    ),
    "pool": _post("/lookup", json.dumps({"model": "large", "pool": "mean", "ids": [[1]] * 16384}).encode()),
    "float16": _post(
        "/lookup", json.dumps({"model": "large", "ids": [1] * 16384, "dtype": "float16"}).encode()
    ),
    "oov mean": _post("/lookup", b'{"model":"large","tokens":["?"],"oov":"mean"}'),
    "texts": _post("/v1/embeddings", filled(_LARGE + '"input":[', '"",', '""]}')),
    "2,048 texts": _post("/v1/embeddings", json.dumps({"model": "large", "input": ["a"] * 2048}).encode()),
    "one text": _post("/v1/embeddings", filled(_LARGE + '"input":"', "a ", '"}')),
    "one text of a word": _post("/v1/embeddings", filled(_LARGE + '"input":"', "a-", 'a"}')),
    "one text of spaces": _post("/v1/embeddings", filled(_LARGE + '"input":"', " ", '"}')),
    "one text, not ASCII": _post("/v1/embeddings", filled(_LARGE + '"input":"', "\\u0130", '"}')),
    "search": _post("/neighbors", b'{"model":"large","id":1}'),
    "search of 1,000": _post("/neighbors", b'{"model":"large","id":1,"k":1000}'),
    "search for a vector": _post("/neighbors", filled(_LARGE + '"vector":[', "1,", "1]}")),
    "search for integers": _post("/neighbors", filled(_LARGE + '"vector":[', "9" * 300 + ",", "1]}")),
    "search for a token": _post("/neighbors", filled(_LARGE + '"token":"', "a", '"}')),
    "reload": request("POST /models/small/reload"),
    "DELETE": request("DELETE /models/small"),
    "PUT": request("PUT /models/small", f"content-type:{JSON}", body=filled('{"path":"', "a/", '"}')),
    "chunks": request("POST /lookup", "transfer-encoding:chunked") + b"1\r\n \r\n" * 10_000 + b"0\r\n\r\n",
    "trailers": request("POST /lookup", "transfer-encoding:chunked")
    + b"2\r\n{}\r\n0\r\n"
    + b"a:\r\n" * 10_000
    + b"\r\n",
    "small": _post("/lookup", b'{"model":"small","ids":[0]}'),
    "GET with a body": request("GET /models", body=bytes(BODY)),
}

_ROWS = b"1," * 16_383 + b"1"
#: Requests for rows of 20,000 values, of the model ``wide``.
WIDE = {
    "a mean": _post("/lookup", b'{"model":"wide","tokens":["?"],"oov":"mean"}'),
    "a pool": _post("/lookup", b'{"model":"wide","pool":"sum","ids":[[' + _ROWS + b"]]}"),
    "many pools": _post("/lookup", json.dumps({"model": "wide", "pool": "sum", "ids": [[1]] * 99}).encode()),
    "rows": _post("/lookup", json.dumps({"model": "wide", "ids": [1] * 99}).encode()),
    "float16": _post("/lookup", json.dumps({"model": "wide", "ids": [1] * 99, "dtype": "float16"}).encode()),
    "a text": _post("/v1/embeddings", b'{"model":"wide","input":"' + b"word-1 " * 8_000 + b'"}'),
    "search": _post("/neighbors", b'{"model":"wide","id":1}'),
    "details": request("GET /dashboard/models/wide"),
}

COSTLY = _GETS | {f"head: {name}": sent for name, sent in HEADS.items()}
COSTLY |= {f"body: {name}": sent for name, sent in BODIES.items()}
COSTLY |= {f"wide: {name}": sent for name, sent in WIDE.items()}

_POST = f"POST /lookup HTTP/1.1\r\nhost:x\r\n{_JSON}\r\n".encode()
_LONG = b"content-length:2000000\r\n\r\n"
_CHUNKED = _POST + b"transfer-encoding:chunked\r\n\r\n"
_CHUNK = b"10000\r\n%b\r\n" % (b" " * 65536)
_TRAILERS = b"0\r\n" + b"a:\r\n" * (HEAD // 4)
_IDS = b'{"model":"large","ids":[' + _ROWS + b"]}"
_TEXTS = json.dumps({"model": "large", "input": ["word-1 word-2"] * 2048}).encode()
_BASE64 = _TEXTS[:-1] + b',"encoding_format":"base64"}'
_FIELDS = request("GET /", *["a:"] * 95)


def _unfinished(line: str, size: int = 1_999_999) -> bytes:
    return f"{line} HTTP/1.1\r\nhost:x\r\ncontent-length:2000000\r\n\r\n".encode() + b" " * size


def _lookup(accept: str) -> bytes:
    return request("POST /lookup", _JSON, f"accept:{accept}", body=_IDS)


#: What each of many connections sends, and then neither sends nor reads more.
HELD = {
    "nothing": b"",
    "idle after a response": request("GET /livez"),
    "head of tiny fields": b"GET / HTTP/1.1\r\n" + b"a:\r\n" * (HEAD // 4),
    "head of a long field": b"GET / HTTP/1.1\r\na:" + b"b" * HEAD,
    "head of a long path": b"GET /" + b"b" * HEAD,
    "body, none of it": _unfinished("POST /lookup", 0),
    "body, 16 KB": _unfinished("POST /lookup", 16_000),
    "body, 100 KB": _unfinished("POST /lookup", 100_000),
    "body, 2 MB": _unfinished("POST /lookup"),
    "body, 2 MB in chunks": _CHUNKED + _CHUNK * 30,
    "body in tiny chunks": _CHUNKED + b"1\r\n \r\n" * 100_000,
    "body of a search": _unfinished("POST /neighbors"),
    "body of a GET": _unfinished("GET /models/large/file"),
    "body without a key": _unfinished("PUT /models/a"),
    "trailers": _CHUNKED + b"2\r\n{}\r\n" + _TRAILERS,
    "trailers after 64 KB": _CHUNKED + _CHUNK + _TRAILERS,
    "pipelined": request("GET /stats") * 120,
    "pipelined, tiny fields": _FIELDS * 120,
    "pipelined, long fields": request("GET /", "a:" + "b" * 55_000) * 4,
    "pipelined, bodies": request("POST /lookup", _JSON, body=_IDS[:30_000]) * 8,
    "pipelined, large response": _lookup(JSON) + _FIELDS * 120,
    "large bodies": BODIES["lists"],
    "large bodies of ids": BODIES["ids"],
    "large bodies of fields": BODIES["fields"],
    "large bodies, surrogates": BODIES["tokens, surrogates"],
    "unread: JSON": _lookup(JSON) * 2,
    "unread: raw": _lookup(RAW) * 2,
    "unread: safetensors": _lookup(SAFETENSORS) * 2,
    "unread: packed": _lookup(PACKED) * 2,
    "unread: embeddings": _post("/v1/embeddings", _TEXTS) * 2,
    "unread: base64": _post("/v1/embeddings", _BASE64) * 2,
    "unread: errors": request("GET /nothing" + "a" * 1900) * 100,
    "unread: searches": _post("/neighbors", b'{"model":"large","id":1,"k":1000}') * 4,
    "unread: small lookups": _post("/lookup", b'{"model":"large","ids":[1,2,3]}') * 100,
}
HELD |= {
    f"unread: {path}": request(f"GET {path}") * 100
    for path in (
        *("/models/large/file", "/stats", "/metrics", "/models", "/openapi.json", "/docs"),
        *("/dashboard/models", "/dashboard/index.html", "/dashboard/traffic?history=1"),
    )
}
