"""Terminal output that several verbs share: columns, sizes, and progress bars."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from smallfry import console
from smallfry.estimate import Estimate
from smallfry.progress import Progress
from smallfry.store import Store
from smallfry.text.model import Pooling

if TYPE_CHECKING:
    from tqdm import tqdm


def size(nbytes: int) -> str:
    """Return a number of bytes in decimal units with three digits."""
    value = float(nbytes)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 999.5 or unit == "GB":
            break
        value /= 1000
    return f"{nbytes} bytes" if unit == "bytes" else f"{value:.{max(0, 3 - len(str(int(value))))}f} {unit}"


def columns(lines: Sequence[tuple[str, str]]) -> str:
    """Return names and values as two aligned columns."""
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in lines)


def contents(store: Store) -> list[tuple[str, str]]:
    """Return the shape, encoding and error of a table, for `columns`."""
    table = store.table
    tokenizer = [] if store.pooling is None else [("tokenizer", _pooling(store.pooling))]
    return [
        ("rows", f"{table.rows:,}{'' if store.vocabulary is not None else ' (no vocabulary)'}"),
        ("dim", str(table.dim)),
        *tokenizer,
        ("bits a value", str(table.nbit)),
        *_layout(store),
        ("codebook kind", f"{table.codebook_kind}, clip {table.clip:.6g}"),
        ("relative error", f"{table.frobenius_error:.6g}"),
    ]


def _layout(store: Store) -> list[tuple[str, str]]:
    """Return the layout of a paged table, and its heads."""
    table, paging = store.table, store.table.paging
    lines = []
    if paging is not None:
        share = paging.padding / table.nbytes["codes"]
        row = table.nbytes["codes"] / max(1, table.rows)
        lines.append(("layout", f"paged, {row:.1f} bytes a row, padding {share:.1%}"))
    if table.head_offsets is not None:
        lines.append(("heads", f"{table.head_offsets.size - 1:,}"))
    return lines


def _pooling(pooling: Pooling) -> str:
    limit = "" if pooling.max_tokens is None else f", the first {pooling.max_tokens:,} of a text"
    return f"{pooling.tokens:,} tokens{limit}{', normalized' if pooling.normalize else ''}"


def sizes(store: Store) -> list[tuple[str, str]]:
    """Return the bytes of a store by part, of its file, and of a float32 matrix and a dict, for `columns`."""
    baseline, file_nbytes = store.baseline_nbytes, os.path.getsize(store.path)
    matrix = baseline["float32"] / sum(store.table.nbytes.values())
    whole = baseline["total"] / file_nbytes
    lines = [
        *((name, size(part)) for name, part in store.nbytes.items() if part and name != "total"),
        ("whole file", size(file_nbytes)),
        ("float32 matrix", f"{size(baseline['float32'])}, {matrix:.1f} times the matrix here"),
    ]
    if not store.has_tokenizer:
        lines.append(("float32 + dict", f"{size(baseline['total'])}, {whole:.1f} times the whole file"))
    return lines


def announce(estimate: Estimate) -> None:
    """Print the size of a table before it is made, if standard error is a terminal."""
    if not sys.stderr.isatty():
        return
    tensors = f"{estimate.tensors:,} tensors, " if estimate.tensors > 1 else ""
    padding = f", padding {estimate.padding / estimate.nbytes:.1%}" if estimate.paged else ""
    console.note(
        f"{tensors}{estimate.rows:,} rows of {estimate.dim} values at {estimate.nbit} bits: "
        f"{size(estimate.nbytes)}, {estimate.nbytes / estimate.rows:.1f} bytes a row{padding}"
    )


@contextmanager
def progress() -> Iterator[Progress | None]:
    """Yield a callback that draws a progress bar for each stage; None if standard error is not a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    bars: dict[str, tqdm[Any]] = {}

    def show(name: str, done: int, total: int) -> None:
        if name not in bars or done < bars[name].n:
            for bar in bars.values():
                bar.close()
            bars.clear()
            bars[name] = tqdm(desc=name, total=total or None, unit_scale=True, leave=False)
        bars[name].update(done - bars[name].n)

    try:
        yield show
    finally:
        for bar in bars.values():
            bar.close()
