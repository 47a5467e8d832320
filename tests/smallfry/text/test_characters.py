"""The table of code points against what the ``tokenizers`` package does with whole strings."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from smallfry.errors import InputError
from smallfry.text import characters
from smallfry.text.characters import CharacterTable, character_table

normalizers = pytest.importorskip("tokenizers.normalizers")
pre_tokenizers = pytest.importorskip("tokenizers.pre_tokenizers")

NORMALIZERS = {
    "bert": normalizers.BertNormalizer(),
    "cased": normalizers.BertNormalizer(lowercase=False),
    "accents": normalizers.BertNormalizer(clean_text=False, strip_accents=False),
    "sequence": normalizers.Sequence(
        [normalizers.NFD(), normalizers.Lowercase(), normalizers.StripAccents()]
    ),
    "nmt": normalizers.Nmt(),
}


@pytest.fixture(scope="module")
def table() -> CharacterTable:
    return character_table(None)


def random_strings(count: int = 400, length: int = 40) -> Iterable[str]:
    """Return strings of which a half is ASCII, and the rest from all planes that have characters."""
    random = np.random.default_rng(7)
    limits = random.choice([0x80, 0x80, 0x250, 0x3000, 0xD800, 0x20000, 0x110000], (count, length))
    codes = (random.random((count, length)) * limits).astype(int)
    codes[(codes >= 0xD800) & (codes < 0xE000)] = ord(" ")
    return ["".join(map(chr, row)) for row in codes]


def entry(table: CharacterTable, character: str) -> int:
    block = table.blocks[ord(character) // 256]
    return int(table.entries[int(block) * 256 + ord(character) % 256])


def normalize(table: CharacterTable, text: str) -> str:
    """Apply the table as the native module does."""
    out = []
    for character in text:
        value = entry(table, character)
        if value >> 12:
            at = (value >> 12) - 1
            character = table.text[at + 1 : at + 1 + int(table.text[at])].tobytes().decode()
        out.append(f" {character} " if value & characters.SPACED else character)
    return "".join(out)


@pytest.mark.parametrize("name", NORMALIZERS)
def test_normalization(name: str) -> None:
    table = character_table(NORMALIZERS[name])
    for text in random_strings():
        assert normalize(table, text) == NORMALIZERS[name].normalize_str(text)


def test_no_normalizer_changes_nothing(table: CharacterTable) -> None:
    assert len(table.text) == 0
    assert not (table.entries >> 12).any()


def test_equal_blocks_are_stored_once() -> None:
    table = character_table(NORMALIZERS["bert"])
    assert table.blocks.shape == (4352,)
    assert len(table.entries) % 256 == 0
    assert len(table.entries) < 300 * 256


def split(text: str, removed: set[str], alone: set[str]) -> list[str]:
    pieces = [""]
    for character in text:
        if character in removed:
            pieces.append("")
        elif character in alone:
            pieces += [character, ""]
        else:
            pieces[-1] += character
    return [piece for piece in pieces if piece]


def test_white_space_and_punctuation(table: CharacterTable) -> None:
    bert = pre_tokenizers.BertPreTokenizer()
    for text in random_strings():
        space = {c for c in text if entry(table, c) & characters.WHITE_SPACE}
        punctuation = {c for c in text if entry(table, c) & characters.PUNCTUATION}
        assert split(text, space, punctuation) == [piece for piece, _ in bert.pre_tokenize_str(text)]


def test_words(table: CharacterTable) -> None:
    for text in random_strings():
        words: list[list[int]] = []
        for i, character in enumerate(text):
            value = entry(table, character)
            kind = value & (characters.WORD | characters.WHITE_SPACE)
            if words and words[-1][1] == i and words[-1][2] == kind:
                words[-1][1] += 1
            elif kind != characters.WHITE_SPACE:
                words.append([i, i + 1, kind])
        expected = pre_tokenizers.Whitespace().pre_tokenize_str(text)
        assert [(begin, end) for begin, end, _ in words] == [span for _, span in expected]


@pytest.mark.parametrize(("pattern", "flag"), [(r"\p{L}", characters.LETTER), (r"\p{N}", characters.NUMBER)])
def test_letters_and_numbers(table: CharacterTable, pattern: str, flag: int) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    rest = pre_tokenizers.Split(tokenizers.Regex(pattern), "removed")
    for text in random_strings():
        kept = "".join(character for character in text if not entry(table, character) & flag)
        assert kept == "".join(piece for piece, _ in rest.pre_tokenize_str(text))


@pytest.mark.parametrize(
    ("character", "classes"),
    [
        ("a", 0),
        ("\n", characters.CONTROL),
        ("\u200b", characters.CONTROL),
        ("\U000e0001", characters.CONTROL),
        ("\u0301", characters.JOINS_PREVIOUS | characters.PICTOGRAPH | characters.INDIC),
        ("\u0903", characters.JOINS_PREVIOUS),
        ("\u200d", characters.JOINS_PREVIOUS | characters.PICTOGRAPH | characters.INDIC),
        ("\u0600", characters.JOINS_NEXT),
        ("\xa9", characters.PICTOGRAPH),
        ("\U0001f469", characters.PICTOGRAPH),
        ("\u0915", characters.INDIC),
        ("\u094d", characters.JOINS_PREVIOUS | characters.PICTOGRAPH | characters.INDIC | characters.LINKER),
    ],
)
def test_graphemes(table: CharacterTable, character: str, classes: int) -> None:
    mask = (
        characters.JOINS_PREVIOUS
        | characters.JOINS_NEXT
        | characters.CONTROL
        | characters.PICTOGRAPH
        | characters.INDIC
        | characters.LINKER
    )
    assert entry(table, character) & mask == classes


def test_long_replacements_are_rejected() -> None:
    replace = normalizers.Replace("a", "b" * 256)
    with pytest.raises(InputError, match=r"replaces U\+0061 by 256 bytes"):
        character_table(replace)
