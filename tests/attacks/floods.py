"""Attacks with valid requests that cost much."""

from __future__ import annotations

from collections import Counter

from tests.attacks.target import JSON, Statuses, Target, repeat, request

SECONDS = 2.0


async def search_flood(target: Target) -> Statuses:
    """Searches of a whole table, from more connections than the server has places for."""
    search = request(b'{"model":"wide","id":1}', line="POST /neighbors HTTP/1.1")
    return await repeat(target, search, min(100 * target.scale, 600), SECONDS)


async def statistics_flood(target: Target) -> Statuses:
    """Statistics, metrics and descriptions of all models."""
    statuses: Statuses = Counter()
    for path in ("/stats", "/metrics", "/models", "/openapi.json", "/dashboard/models", "/dashboard/traffic"):
        get = request(b"", "", f"GET {path} HTTP/1.1")
        statuses += await repeat(target, get, min(30 * target.scale, 300), SECONDS / 3)
    return statuses


async def wide_tables(target: Target) -> Statuses:
    """What takes whole rows of a table of 20,000 values per row."""
    pooled = b'{"model":"wide","pool":"sum","ids":[[' + b"1," * 16_000 + b"1]]}"
    sent = [request(b'{"model":"wide","tokens":["?"],"oov":"mean"}'), request(pooled)]
    sent += [request(b"", "", f"GET /dashboard/models{path} HTTP/1.1") for path in ("", "/wide")]
    ids = b'{"model":"wide","ids":[' + b"1," * 100 + b"1]}"
    sent.append(request(ids, JSON + "accept: application/octet-stream\r\n"))
    statuses: Statuses = Counter()
    for data in sent:
        statuses += await repeat(target, data, 4 * target.scale, SECONDS / 3)
    return statuses
