"""Counts of irregularities in an input."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class ReadReport:
    """Counts of irregularities in an input; complete once the source has been read.

    Attributes
    ----------
    rows : int
        Vectors yielded.
    declared_rows : int or None
        Rows that the header declares; None without a header.
    duplicates : int
        Rows dropped because their token occurred before.
    invalid_utf8 : int
        Tokens in which bytes that are not UTF-8 were replaced by U+FFFD.
    bad_lines : int
        Malformed lines or records skipped, including those with NaN or infinity.
    non_finite : int
        Lines, records or rows skipped because a value is NaN or infinite.
    empty_lines : int
        Lines that contain only spaces.
    spaced_tokens : int
        Tokens that contain spaces or tabs.
    crlf_lines : int
        Lines that end in CRLF.
    byte_order_mark : bool
        Whether the input begins with one.
    missing_newline : bool
        Whether the last line has no newline.
    gzipped : bool
        Whether the input is gzipped.
    """

    rows: int = 0
    declared_rows: int | None = None
    duplicates: int = 0
    invalid_utf8: int = 0
    bad_lines: int = 0
    non_finite: int = 0
    empty_lines: int = 0
    spaced_tokens: int = 0
    crlf_lines: int = 0
    byte_order_mark: bool = False
    missing_newline: bool = False
    gzipped: bool = False

    def notes(self) -> list[str]:
        """Return one phrase for each kind of irregularity found."""
        counts = (
            ("duplicate tokens, of which the first was kept", self.duplicates),
            ("tokens with invalid UTF-8, replaced by U+FFFD", self.invalid_utf8),
            ("malformed lines, skipped", self.bad_lines - self.non_finite),
            ("vectors with NaN or infinity, skipped", self.non_finite),
            ("empty lines", self.empty_lines),
            ("tokens with spaces", self.spaced_tokens),
            ("lines that end in CRLF", self.crlf_lines),
        )
        notes = [f"{noun}: {count:,}" for noun, count in counts if count]
        if self.byte_order_mark:
            notes.append("a byte-order mark")
        if self.missing_newline:
            notes.append("no newline at the end")
        if self.declared_rows is not None and self.declared_rows != self.read_rows:
            notes.append(f"rows declared: {self.declared_rows:,}, found: {self.read_rows:,}")
        return notes

    @property
    def read_rows(self) -> int:
        """Rows in the input, including dropped and malformed rows."""
        return self.rows + self.duplicates + self.bad_lines
