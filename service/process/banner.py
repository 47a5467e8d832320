"""What the server says when it starts."""

from __future__ import annotations

import json
import shlex

from service.models.registry import Models
from smallfry import __version__


def banner(models: Models, address: str) -> str:
    """Return what is printed on start: what is served, what it takes, and a command to try."""
    lines = [f"smallfry-serve {__version__}"]
    for model in models.values():
        store = model.store
        total, replaced = store.nbytes["total"], store.baseline_nbytes["total"]
        bits = "1 bit" if store.nbit == 1 else f"{store.nbit} bits"
        lines.append(
            f"  {model.name}: {len(store):,} rows x {store.dim} at {bits}, {_size(total)} "
            f"({replaced / total:.1f}x less than float32 and a dict: {_size(replaced)})"
        )
    lines.append(f"listening on {address}")
    first = next(iter(models.values()), None)
    if first is None:
        return "\n".join([*lines, "try: PUT /models/NAME, nothing is served yet"])
    query: dict[str, object] = {"ids": [0]}
    if first.store.vocabulary is not None:
        query = {"tokens": [first.store.token(0)]}
    if len(models) > 1:
        query["model"] = first.name
    data = shlex.quote(json.dumps(query))
    path = address.removeprefix("unix:")
    target = (
        f"{address}/lookup"
        if path == address
        else f"--unix-socket {shlex.quote(path)} http://localhost/lookup"
    )
    lines.append(f"try: curl -s {target} -H 'content-type: application/json' -d {data}")
    return "\n".join(lines)


def _size(count: float) -> str:
    for unit in ("B", "KB", "MB"):
        if count < 1000:
            return f"{count:.4g} {unit}"
        count /= 1000
    return f"{count:.4g} GB"
