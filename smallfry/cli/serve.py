"""``smallfry serve``: run the server, if it is installed."""

from __future__ import annotations

import argparse
import importlib.util

from smallfry.errors import InputError


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "serve",
        help="serve .sfq files over HTTP; the same as smallfry-serve",
        description="Serve .sfq files over HTTP. Takes the arguments of smallfry-serve.",
        add_help=False,
        prefix_chars="\0",
    )
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from service.__main__ import handle_early_signals

    handle_early_signals()
    missing = [name for name in ("fastapi", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"the server needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not "
            "installed. Install with: pip install 'smallfry[server]'"
        )
    from service.cli import main

    return main(arguments.arguments)
