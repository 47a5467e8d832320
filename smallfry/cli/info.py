"""``smallfry info``: the contents of a ``.sfq`` file and their sizes."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from typing import Any

from smallfry import console, store
from smallfry.cli import terminal


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "info",
        help="show the contents of a .sfq file",
        description="Show the contents and sizes of a .sfq file, compared with a float32 matrix and a dict.",
    )
    parser.add_argument("file", metavar="FILE", help="a .sfq file")
    parser.add_argument(
        "--residency", action="store_true", help="also show how much of the file is in memory"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    with store.open(arguments.file) as opened:
        resident = opened.residency().resident if arguments.residency else None
        if arguments.json:
            found = facts(opened) | ({} if resident is None else {"resident_nbytes": resident})
            report = json.dumps(found, indent=2)
        else:
            report = text(opened, resident)
    console.write(report + "\n")
    return 0


def facts(opened: store.Store) -> dict[str, Any]:
    """Return the contents and sizes of a file, for JSON."""
    described = opened.describe()
    names = ("rows", "dim", "nbit", "codebook_kind", "clip", "frobenius_error")
    return {
        "path": os.fspath(opened.path),
        **{name: described[name] for name in names},
        "rotated": opened.table.rotation is not None,
        "vocabulary": described["has_vocabulary"],
        "pooling": None if opened.pooling is None else dataclasses.asdict(opened.pooling),
        "source": _source(opened.metadata),
        "created_by": opened.metadata.get("created_by"),
        "digest": described["digest"],
        "nbytes": described["bytes"],
        "file_nbytes": os.path.getsize(opened.path),
        "baseline_nbytes": opened.baseline_nbytes,
    }


def _source(metadata: dict[str, str]) -> dict[str, str] | str | None:
    """Return the source as a dict of strings; any other JSON, which may contain NaN, stays text."""
    text = metadata.get("source")
    try:
        source = None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return text
    is_plain = isinstance(source, dict) and all(isinstance(value, str) for value in source.values())
    return source if is_plain else text


def text(opened: store.Store, resident: int | None = None) -> str:
    """Return the contents and sizes of a file as two columns, and how many bytes are in memory if given."""
    metadata, source = opened.metadata, _source(opened.metadata)
    if isinstance(source, dict):
        source = ", ".join(f"{name} {value}" for name, value in source.items())
    lines = [
        ("file", os.fspath(opened.path)),
        *terminal.contents(opened),
        ("rotation", "none" if opened.table.rotation is None else "principal basis"),
        ("source", source or "unknown"),
        ("created by", metadata.get("created_by", "unknown")),
        ("digest", opened.digest),
    ]
    measured = [] if resident is None else [("in memory", terminal.size(resident))]
    return terminal.columns(
        [(name, console.printable(value)) for name, value in lines] + terminal.sizes(opened) + measured
    )
