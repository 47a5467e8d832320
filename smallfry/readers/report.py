"""What was met while a file of vectors was read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class ReadReport:
    """Counts of what was met; complete once the pass over the source has ended.

    Attributes
    ----------
    rows : int
        Vectors handed out.
    declared_rows : int or None
        Rows that the file's header declares; None where it has no header.
    duplicates : int
        Rows dropped because their token had occurred before.
    invalid_utf8 : int
        Tokens in which bytes that are not UTF-8 were replaced by U+FFFD.
    bad_lines : int
        Malformed lines or records skipped, those with NaN or infinity among them.
    non_finite : int
        Lines, records or rows skipped because a value is NaN or infinity.
    empty_lines : int
        Lines of nothing but spaces.
    spaced_tokens : int
        Tokens that contain spaces or tabs.
    crlf_lines : int
        Lines that end in CRLF.
    byte_order_mark : bool
        Whether the file begins with one.
    missing_newline : bool
        Whether the last line ends without one.
    gzipped : bool
        Whether the input was compressed.
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
        """Return one phrase for each thing met that a clean file does not have."""
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
        """Rows in the input, dropped and malformed ones included."""
        return self.rows + self.duplicates + self.bad_lines
