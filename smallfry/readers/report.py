"""Counts of irregularities in an input."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass
class ReadReport:
    """Counts of irregularities in an input; complete once the source has been read."""

    format: str  # one of `smallfry.readers.FORMATS`, or of `StaticLayout`
    declared_rows: int | None = None  # by the header; None without one
    rows: int = 0  # vectors yielded
    duplicates: int = 0  # rows dropped because their token occurred before
    invalid_utf8: int = 0  # tokens in which bytes that are not UTF-8 were replaced by U+FFFD
    duplicate_words: int = 0  # rows of a matrix left unnamed because an earlier row has their word
    invalid_words: int = 0  # rows of a matrix left unnamed because their word is not valid UTF-8
    rows_without_word: int = 0  # rows of a matrix for which a word list in JSON has no word
    zeroed_rows: int = 0  # rows of a matrix with NaN or infinity, stored as zeros
    left_out: int = 0  # rows whose token is not one of the words to keep
    missing_words: int = 0  # words to keep that were not found
    missing_examples: str = ""  # the first of them
    bad_lines: int = 0  # malformed lines or records skipped, including those with NaN or infinity
    non_finite: int = 0  # lines, records or rows skipped because a value is NaN or infinite
    empty_lines: int = 0  # lines that contain only spaces
    spaced_tokens: int = 0  # tokens that contain spaces or tabs
    unquoted_tokens: int = 0  # tokens whose quotes were removed
    crlf_lines: int = 0  # lines that end in CRLF
    encoding: str | None = None  # that was converted to UTF-8
    delimiter: str = ""  # "commas", "semicolons" or "tabs" if these separate the fields
    column_names: bool = False  # whether a first line of column names was skipped
    byte_order_mark: bool = False  # whether the input begins with one
    missing_newline: bool = False  # whether the last line has no newline
    compression: str | None = None  # of the input, such as "gzip"
    tensor: str = ""  # read from a file of several, and its scale; empty if the caller named it
    words: str = ""  # file that the words of a matrix are from, and what they are in it
    words_path: Path | None = None
    stripped_words: int = 0  # words of a list that were followed by spaces or tabs

    def notes(self) -> list[str]:
        """Return one phrase for each kind of irregularity found."""
        counts = (
            ("duplicate tokens, of which the first was kept", self.duplicates),
            ("tokens with invalid UTF-8, replaced by U+FFFD", self.invalid_utf8),
            ("rows left unnamed, because an earlier row has their word", self.duplicate_words),
            ("rows left unnamed, because their word is not valid UTF-8", self.invalid_words),
            ("rows left unnamed, because the list has no word for them", self.rows_without_word),
            ("rows with NaN or infinity, stored as zeros", self.zeroed_rows),
            ("rows of other words, left out", self.left_out),
            ("malformed lines, skipped", self.bad_lines - self.non_finite),
            ("vectors with NaN or infinity, skipped", self.non_finite),
            ("empty lines", self.empty_lines),
            ("tokens with spaces", self.spaced_tokens),
            ("quoted tokens, whose quotes were removed", self.unquoted_tokens),
            ("lines that end in CRLF", self.crlf_lines),
            ("words followed by spaces, which were removed", self.stripped_words),
        )
        notes = [f"words: {self.words}"] if self.words else []
        notes += [f"{noun}: {count:,}" for noun, count in counts if count]
        if self.missing_words:
            notes.append(f"words to keep, not found: {self.missing_words:,} ({self.missing_examples})")
        if self.encoding is not None:
            notes.append(f"text in {self.encoding}")
        if self.delimiter not in ("", "tabs"):
            notes.append(f"fields separated by {self.delimiter}")
        if self.column_names:
            notes.append("a line of column names, skipped")
        if self.byte_order_mark:
            notes.append("a byte-order mark")
        if self.missing_newline:
            notes.append("no newline at the end")
        if self.tensor:
            notes.append(f"tensor read: {self.tensor}")
        found = self.rows + self.duplicates + self.bad_lines + self.left_out
        if self.declared_rows not in (None, found):
            notes.append(f"rows declared: {self.declared_rows:,}, found: {found:,}")
        return notes
