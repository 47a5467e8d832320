"""``smallfry fetch``: download a model from a server."""

from __future__ import annotations

import argparse
from pathlib import Path

from smallfry import console
from smallfry.errors import InputError


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "fetch",
        help="download a model from a server",
        description="Download the .sfq file of a model from a server, and verify it before it gets its name. "
        "A file that has the model's digest already is kept.",
    )
    parser.add_argument("url", metavar="URL", help="http://HOST:PORT/models/NAME")
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="the .sfq file to write")
    parser.add_argument("--api-key-file", metavar="PATH", help="file that holds the API key")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from smallfry.download import fetch_file, is_url, model_url

    if not is_url(arguments.url):
        raise InputError(
            f"{arguments.url!r} is not the address of a model, expected http://HOST:PORT/models/NAME"
        )
    path = Path(arguments.output)
    file = arguments.api_key_file
    key = None if file is None else Path(file).read_text(encoding="utf-8", errors="replace").strip()
    if key == "":
        raise InputError(f"{file} holds no key; give it one, or leave --api-key-file out")
    is_new = fetch_file(model_url(arguments.url), path, api_key=key)
    console.write(f"{console.printable(str(path))}: {'downloaded' if is_new else 'up to date'}\n")
    return 0
