"""The table of code points: how the ``tokenizers`` package normalizes and classifies each."""

from __future__ import annotations

import struct
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smallfry.errors import InputError

if TYPE_CHECKING:
    from tokenizers.normalizers import Normalizer
    from tokenizers.pre_tokenizers import PreTokenizer

WHITE_SPACE = 1 << 0
PUNCTUATION = 1 << 1  # of Bert: that of Unicode, and all symbols of ASCII
WORD = 1 << 2  # \w
LETTER = 1 << 3  # \p{L}
NUMBER = 1 << 4  # \p{N}
JOINS_PREVIOUS = 1 << 5  # in a grapheme: Extend, SpacingMark, ZWJ
JOINS_NEXT = 1 << 6  # in a grapheme: Prepend
CONTROL = 1 << 7  # in a grapheme: Control, CR, LF
SPACED = 1 << 8  # between spaces after normalization
PICTOGRAPH = 1 << 9  # Extended_Pictographic, or Extend and ZWJ if it joins the previous character
INDIC = 1 << 10  # Indic_Conjunct_Break: Consonant, or Linker and Extend if it joins the previous character
LINKER = 1 << 11  # Indic_Conjunct_Break: Linker

CODE_POINTS = 0x110000
BLOCK = 256
TEXT_SHIFT = 12
_MAX_TEXT = 1 << 20
_CHUNK = 1 << 16
_SURROGATES = range(0xD800, 0xE000)
# All code points of a block in these planes have the same classes.
_UNASSIGNED = range(0x40000, 0xE0000)
_PRIVATE = range(0xF0000, CODE_POINTS)

_SEPARATORS = "\u1200\u13a0\ua000\u16a0"
"""Letters without case, accents or decomposition; one that the normalizer keeps separates the probes."""


class CharacterTable(NamedTuple):
    """The tensors of the table; `docs/reference/format.md` describes them."""

    blocks: NDArray[np.uint16]
    entries: NDArray[np.uint32]
    text: NDArray[np.uint8]

    def replacements(self) -> list[bytes]:
        """Return what code points are replaced by."""
        text, found, at = self.text.tobytes(), [], 0
        while at < len(text):
            end = at + 1 + text[at]
            found.append(text[at + 1 : end])
            at = end
        return found


def character_table(normalizer: Normalizer | None) -> CharacterTable:
    """Return the table for a normalizer that maps each code point by itself, or for none.

    Raises
    ------
    InputError
        A code point is replaced by more than 255 bytes, or all replacements take more than 1 MiB.
    """
    values = _classes().copy()
    text = bytearray()
    offsets: dict[str, int] = {}
    for code, replacement in [] if normalizer is None else _replacements(normalizer):
        character = chr(code)
        if len(replacement) > 2 and replacement[0] == replacement[-1] == " ":
            values[code] |= SPACED
            replacement = replacement[1:-1]
            if replacement == character:
                continue
        if replacement not in offsets:
            encoded = replacement.encode()
            if len(encoded) > 255 or len(text) + len(encoded) >= _MAX_TEXT:
                raise InputError(
                    f"the normalizer replaces U+{code:04X} by {len(encoded):,} bytes, "
                    "expected at most 255, and 1 MiB for all code points."
                )
            offsets[replacement] = len(text)
            text += bytes([len(encoded)]) + encoded
        values[code] |= (1 + offsets[replacement]) << TEXT_SHIFT
    distinct: dict[bytes, int] = {}
    blocks = [distinct.setdefault(b.tobytes(), len(distinct)) for b in values.reshape(-1, BLOCK)]
    return CharacterTable(
        np.array(blocks, np.uint16),
        np.frombuffer(b"".join(distinct), np.uint32),
        np.frombuffer(bytes(text), np.uint8),
    )


def _replacements(normalizer: Normalizer) -> list[tuple[int, str]]:
    """Return the code points that the normalizer changes, and what it makes of them."""
    separator = next((s for s in _SEPARATORS if normalizer.normalize_str(s) == s), None)
    if separator is None:
        raise InputError("the normalizer changes every character that could separate code points.")
    changed = []
    for begin in range(0, CODE_POINTS, BLOCK):
        if begin in _SURROGATES:
            continue
        characters = [chr(code) for code in range(begin, begin + BLOCK)]
        block = characters[0] if begin in _UNASSIGNED else "".join(characters)
        if normalizer.normalize_str(block) == block:
            continue
        parts = normalizer.normalize_str(separator.join(characters)).split(separator)
        if len(parts) != len(characters):  # the separator itself, or one that becomes it
            parts = [normalizer.normalize_str(character) for character in characters]
        changed += [(begin + i, part) for i, part in enumerate(parts) if part != characters[i]]
    return changed


@cache
def _classes() -> NDArray[np.uint32]:
    """Return the classes of each code point, uint32 ``[0x110000]``."""
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import Punctuation, Split, WhitespaceSplit

    values = np.zeros((CODE_POINTS // BLOCK, BLOCK), np.uint32)
    flat = values.reshape(-1)
    uniform = np.array([*_UNASSIGNED, *_PRIVATE])[::BLOCK]
    probed = np.ones(CODE_POINTS, bool)
    for left_out in (_SURROGATES, _UNASSIGNED, _PRIVATE):
        probed[left_out.start : left_out.stop] = False
    probed[uniform] = True
    codes = np.flatnonzero(probed)
    for chunk in np.split(codes, range(_CHUNK, len(codes), _CHUNK)):
        space = _removed(WhitespaceSplit(), chunk)
        classes = {
            WHITE_SPACE: space,
            PUNCTUATION: _removed(Punctuation("removed"), chunk),
            WORD: _words(chunk, space),
            LETTER: _removed(Split(Regex(r"\p{L}+"), "removed"), chunk),
            NUMBER: _removed(Split(Regex(r"\p{N}+"), "removed"), chunk),
            **_grapheme_classes(chunk),
        }
        for flag, members in classes.items():
            flat[chunk[members]] |= flag
    values[uniform // BLOCK] = flat[uniform, None]
    return flat


def _removed(pre_tokenizer: PreTokenizer, codes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which characters are in no piece."""
    edges = np.zeros(len(codes) + 1, np.int8)
    for _, (begin, end) in pre_tokenizer.pre_tokenize_str(_text(codes)):
        edges[begin] += 1
        edges[end] -= 1
    outside: NDArray[np.bool_] = np.cumsum(edges[:-1], dtype=np.int8) == 0
    return outside


def _text(codes: NDArray[np.int64]) -> str:
    return codes.astype("<u4").tobytes().decode("utf-32-le")


def _words(codes: NDArray[np.int64], space: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which characters are word characters in the regular expression of `Whitespace`."""
    from tokenizers.pre_tokenizers import Whitespace

    words = np.zeros(len(codes) + 1, bool)
    text = "a" + _text(np.where(space, ord("a"), codes))
    # Without white space, words and other pieces take turns.
    for _, (begin, end) in Whitespace().pre_tokenize_str(text)[::2]:
        words[begin:end] = True
    return words[1:] & ~space


def _grapheme_classes(codes: NDArray[np.int64]) -> dict[int, NDArray[np.bool_]]:
    """Return the members of the classes that decide where graphemes end.

    `Precompiled` replaces a whole grapheme of fewer than 6 bytes by what its first bytes map to. With a
    map from every first byte to one character, the result has one for each such grapheme, and one for
    each character of a longer one.
    """
    from tokenizers.normalizers import Precompiled

    normalizer = Precompiled(first_byte_map())
    characters = np.where(np.isin(codes, [0xA, 0xD]), ord("a"), codes)

    def has_length(length: int, pattern: str, members: NDArray[np.bool_]) -> NDArray[np.bool_]:
        before, after = pattern.split("{}")
        text = (after + "\n" + before).join(_text(characters[members]))
        results = normalizer.normalize_str(before + text + after).split("\n")
        found = np.zeros(len(codes), bool)
        found[members] = np.array(list(map(len, results))) == length
        return found

    joins = has_length(1, "a{}", np.ones(len(codes), bool))
    control = has_length(2, "\u0600\u0600{}", ~joins) | np.isin(codes, [0xA, 0xD])
    prepend = has_length(1, "{}a", ~(joins | control))
    base = ~(joins | control | prepend)
    # ©, ZWJ and a pictograph are one grapheme of 6 bytes at least.
    pictograph = has_length(3, "\xa9\u200d{}", base) | (codes == 0x200D)
    # The last pictograph and its accent take 5 bytes, and add 1 unless they continue a sequence.
    pictograph |= has_length(5, "\xa9{}\u200d\u203c\u0301", joins)
    # The last letter and its accent take 5 bytes, and add 1 unless they continue a conjunct.
    consonant = has_length(4, "{}\u094d\u0915\u0301", base)
    linker = has_length(4, "\u0915{}\u0915\u0301", joins)
    extend = has_length(5, "\u0915\u094d{}\u0915\u0301", joins)
    return {
        JOINS_PREVIOUS: joins,
        JOINS_NEXT: prepend,
        CONTROL: control,
        PICTOGRAPH: pictograph,
        INDIC: consonant | extend,
        LINKER: linker,
    }


def first_byte_map() -> bytes:
    """Return a charsmap of SentencePiece that maps every first byte but that of a line feed to ``x``."""
    root, leaf = 256, 512
    units = np.zeros(768, np.uint32)
    units[0] = root << 10
    for byte in range(1, 256):
        if byte != 0xA:
            node = root ^ byte
            units[node] = (node ^ leaf) << 10 | 1 << 8 | byte
    units[leaf] = 1 << 31
    return struct.pack("<I", units.nbytes) + units.astype("<u4").tobytes() + b"x\0"
