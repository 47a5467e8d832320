"""Metadata with escape codes, which would be obeyed by a terminal that shows them."""

import json

from crafting import Crafted

from smallfry.errors import DigestError

REFUSED_BY_VERIFY = DigestError


def raw() -> bytes:
    crafted = Crafted()
    crafted.metadata["created_by"] = "\x1b]0;owned\x07\x1b[2J\r\n"
    crafted.metadata["source"] = json.dumps({"name": "\x1b[31m\u202e"}) + " " * 9
    crafted.metadata["sha256.codes"] = "0" * 64
    return crafted.raw()
