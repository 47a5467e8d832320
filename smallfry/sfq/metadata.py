"""The metadata of a ``.sfq`` file: strings in the header, and their values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from smallfry.errors import BitWidthError, CodebookError, MetadataError, VersionError
from smallfry.table import KINDS, MAX_DIM, NBITS
from smallfry.text.model import Pooling

VERSION = 2
"""The major format version that is written and read."""

MAX_ROWS = 2**32 - 2
"""Row numbers have 32 bits in ``zero_rows`` and ``token_index``, where one value means an empty slot."""

MAX_PAGED_ROWS = 2**40
"""Paged tables have neither."""

_INTEGER = re.compile(r"[0-9]{1,20}")
_VERSION = re.compile(r"([0-9]{1,20})(\.[0-9]{1,20})?")
_NUMBER = re.compile(r"[0-9]{1,40}(\.[0-9]{1,40})?(e[+-]?[0-9]{1,3})?")


@dataclass(frozen=True)
class Metadata:
    """The metadata of the table; see `smallfry.table.Table`."""

    rows: int
    dim: int
    nbit: int
    codebook_kind: str
    clip: float
    frobenius_error: float
    token_hash_seed: int | None = None  # of ``token_index``; None without a vocabulary
    pooling: Pooling | None = None  # of a text model
    paged: bool = False

    @classmethod
    def parse(cls, strings: Mapping[str, str]) -> Metadata:
        """Parse the strings of a header; raise SfqError for a missing, malformed or out-of-range value."""
        nbit = _integer(strings, "nbit", 0, 2**64)
        if nbit not in NBITS:
            raise BitWidthError(
                f"nbit is {nbit}, expected one of {', '.join(map(str, NBITS))}. The file is damaged."
            )
        kind = _string(strings, "codebook_kind")
        if nbit not in KINDS.get(kind, ()):
            known = ", ".join(name for name, widths in KINDS.items() if nbit in widths)
            raise CodebookError(
                f"the codebook kind is {kind!r}, expected one of {known} at {nbit} bits. "
                "The file is damaged or from a newer release; please upgrade smallfry."
            )
        layout = strings.get("layout")
        if layout not in (None, "paged"):
            raise MetadataError(
                f"'layout' is {layout[:40]!r}, expected 'paged' or none. The file is from a newer release; "
                "please upgrade smallfry."
            )
        if layout == "paged" and kind == "float":
            raise MetadataError("a table of 32 bits is paged, expected 16 bits or fewer.")
        return cls(
            rows=_integer(strings, "rows", 1, MAX_ROWS if layout is None else MAX_PAGED_ROWS),
            dim=_integer(strings, "dim", 1, MAX_DIM),
            nbit=nbit,
            codebook_kind=kind,
            clip=_number(strings, "clip"),
            frobenius_error=_number(strings, "frobenius_error"),
            token_hash_seed=(
                _integer(strings, "token_hash_seed", 0, 2**64 - 1) if "token_hash_seed" in strings else None
            ),
            pooling=Pooling.parse(strings["pooling"]) if "pooling" in strings else None,
            paged=layout is not None,
        )

    def strings(self) -> dict[str, str]:
        """Return the strings of the header, with format and version; `parse` restores the exact values."""
        strings = {
            "format": "sfq",
            "version": str(VERSION),
            "rows": str(self.rows),
            "dim": str(self.dim),
            "nbit": str(self.nbit),
            "codebook_kind": self.codebook_kind,
            "clip": repr(float(self.clip)),
            "frobenius_error": repr(float(self.frobenius_error)),
        }
        if self.token_hash_seed is not None:
            strings["token_hash_seed"] = str(self.token_hash_seed)
        if self.pooling is not None:
            strings["pooling"] = self.pooling.serialize()
        if self.paged:
            strings["layout"] = "paged"
        return strings


def check_version(strings: Mapping[str, str]) -> None:
    """Raise VersionError if the major format version is not `VERSION`; readers ignore what minor ones add."""
    text = _string(strings, "version")
    match = _VERSION.fullmatch(text)
    major = int(match[1]) if match else 0
    if major == 0:
        raise MetadataError(f"'version' is {text[:40]!r}, expected MAJOR or MAJOR.MINOR, such as '2.1'.")
    if major != VERSION:
        remedy = "upgrade smallfry" if major > VERSION else "compress the vectors again"
        raise VersionError(
            f"the file has format version {text}, and this release of smallfry reads version {VERSION}. "
            f"Please {remedy}."
        )


def _string(strings: Mapping[str, str], name: str) -> str:
    if name not in strings:
        raise MetadataError(f"the metadata has no {name!r}. The file is damaged; please compress it again.")
    return strings[name]


def _integer(strings: Mapping[str, str], name: str, low: int, high: int) -> int:
    text = _string(strings, name)
    if not _INTEGER.fullmatch(text) or not low <= int(text) <= high:
        raise MetadataError(f"{name!r} is {text[:40]!r}, expected an integer from {low} to {high}.")
    return int(text)


def _number(strings: Mapping[str, str], name: str) -> float:
    text = _string(strings, name)
    if not _NUMBER.fullmatch(text) or float(text) == float("inf"):
        raise MetadataError(f"{name!r} is {text[:40]!r}, expected a finite number of at least 0.")
    return float(text)
