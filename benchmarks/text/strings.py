"""Random texts that tokenizers treat differently: scripts, marks, emoji, white space, added tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random

Draw = Callable[[Random], str]

SPACES = " \t\n\r\v\f\x85\xa0\u1680\u2000\u2003\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
INVISIBLE = (
    "\0\x01\x08\x0e\x1b\x1c\x1f\x7f\x80\x8f\x9f\xad\u061c\u180e"
    "\u200b\u200c\u200d\u200e\u2060\ufeff\ufffd\ufffe"
)
PREPENDED = "\u0600\u0605\u06dd\u070f\u0890\u08e2\u0d4e\U000110bd\U00011a84"
PICTOGRAPHS = (
    "\xa9\xae\u203c\u2122\u2139\u24c2\u2764\u3297\U0001f469\U0001f4bb\U0001f9d1\U0001f3fd\U0001f1e6\U0001f1fa"
)
MARKS = (
    "\u0300\u0301\u0308\u0316\u0327\u0334\u0345\u0483\u05b0\u064b\u0903\u093c\u093e\u094d\u0e31\u1dca"
    "\u20d0\u302e\u3099\ufe0f\U0001d165\U0001d16d\U000e0100"
)
COMPATIBLE = "ﬁﬃĳǆ½²ªºΩKÅİıẞßſςΣŉΐﷺ㍿㈀①Ⅷⅷ０９ＡｚｶﾞＧ￥…‥〜﹏"
PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~¡§«·»¿–—‘’“”†•…‰€₿∑≤、。「」"


def character(rng: Random) -> str:
    """Return any code point."""
    code = rng.randrange(0x110000 - 0x800)
    return chr(code + 0x800 * (code >= 0xD800))


def basic(rng: Random) -> str:
    """Return any code point of the first plane."""
    code = rng.randrange(0x10000 - 0x800)
    return chr(code + 0x800 * (code >= 0xD800))


def _any_of(characters: Sequence[str]) -> Draw:
    return lambda rng: rng.choice(characters)


def _between(*ranges: tuple[int, int]) -> Draw:
    return lambda rng: chr(rng.randint(*rng.choice(ranges)))


latin = _between((0x41, 0x5A), (0x61, 0x7A), (0x61, 0x7A), (0xC0, 0x24F), (0x1E00, 0x1EFF))
digit = _between((0x30, 0x39), (0x30, 0x39), (0x660, 0x669), (0xFF10, 0xFF19), (0xB2, 0xB3))
other_script = _between((0x370, 0x52F), (0x5D0, 0x5EA), (0x620, 0x6FF), (0xE01, 0xE5B), (0x10A0, 0x10FF))
indic = _between((0x900, 0x97F), (0x980, 0x9FF), (0xC00, 0xC7F), (0xD00, 0xD7F), (0x1000, 0x104F))
hangul = _between((0x1100, 0x1112), (0x1161, 0x1175), (0x11A8, 0x11C2), (0xAC00, 0xD7A3), (0x3131, 0x318E))
ideograph = _between(
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x3041, 0x30FF), (0xF900, 0xFAFF), (0x20000, 0x2A6DF)
)
compatible = _between(
    (0xFB00, 0xFDFF), (0xFE30, 0xFFEF), (0x2070, 0x218F), (0x3200, 0x33FF), (0x1D400, 0x1D7FF)
)
symbol = _any_of(PUNCTUATION)
space = _any_of(SPACES)
invisible = _any_of(INVISIBLE)
mark = _any_of(MARKS)
pictograph = _any_of(PICTOGRAPHS)

_LETTERS = (latin, digit, other_script, indic, hangul, ideograph, pictograph, compatible, symbol)


def accented(rng: Random) -> str:
    """Return a letter and marks, at times after a prepended sign."""
    before = rng.choice(PREPENDED) if rng.random() < 0.2 else ""
    marks = "".join(mark(rng) for _ in range(rng.choice((0, 1, 1, 1, 2, 3))))
    return before + rng.choice(_LETTERS)(rng) + marks


def emoji(rng: Random) -> str:
    """Return pictographs joined by ZWJ, with variation selectors and marks."""
    glue = ("\u200d", "\u200d", "\ufe0f\u200d", "\u0301\u200d", "\u20e3", "")
    parts = [pictograph(rng) + rng.choice(("", "", "\ufe0f", "\u0301")) for _ in range(rng.randint(1, 4))]
    return rng.choice(glue).join(parts)


def conjunct(rng: Random) -> str:
    """Return Indic consonants joined by a virama."""
    return "".join(
        indic(rng) + rng.choice(("\u094d", "\u094d", "\u094d\u200d", "\u0301", ""))
        for _ in range(rng.randint(1, 3))
    )


def blank(rng: Random) -> str:
    """Return a run of white space, of which spaces are the most frequent."""
    return rng.choice((" ", " ", "  ", "   ", "\r\n", "\n\n", " \n ", space(rng), space(rng) + space(rng)))


def word(draw: Draw, longest: int) -> Draw:
    """Return a function that draws a word of one sort of characters."""
    return lambda rng: "".join(draw(rng) for _ in range(rng.randint(1, longest)))


def contraction(rng: Random) -> str:
    """Return the end of a contraction, which the patterns of GPT-2 and Llama 3 split off."""
    end = rng.choice(("s", "t", "re", "ve", "m", "ll", "d", "ſ", "r", "l", ""))
    return "".join(rng.choice((str.lower, str.lower, str.upper))(letter) for letter in "'" + end)


def repeated(rng: Random) -> str:
    """Return one character or two, many times."""
    unit = rng.choice((latin, symbol, digit, ideograph, mark, character))(rng)
    return (unit + rng.choice(("", latin(rng)))) * rng.choice((2, 3, 5, 49, 50, 51, 99, 100, 101, 300))


def spliced(tokens: Sequence[str]) -> Draw:
    """Return a function that draws a token, as it is or changed."""

    def draw(rng: Random) -> str:
        token = rng.choice(tokens)
        change = rng.choice((str, str, str, str.upper, str.lower, str.title))
        before = rng.choice(("", "", " ", "  ", "\t", "a", "_", "é", "\u0301", "."))
        after = rng.choice(("", "", " ", "\n ", "\u3000", "b", "1", "\u0301", "!"))
        return before + change(token) + after

    return draw


def joined(tokens: Sequence[str]) -> Draw:
    """Return a function that draws some tokens without their marks of continuation."""

    def draw(rng: Random) -> str:
        glue = rng.choice(("", "", " ", "-"))
        return glue.join(
            rng.choice(tokens).removeprefix("##").replace("▁", " ") for _ in range(rng.randint(1, 6))
        )

    return draw


def long_texts() -> list[str]:
    """Return texts of 100,000 characters or more, most of which are one word."""
    rng = Random(0)
    draws = (latin, ideograph, mark, emoji, character)
    units = ("a", "ab", " ", "\n", "é", "日本", "1", "'s", "\0", "\u0301", "👩\u200d", "x ")
    texts = ["".join(draw(rng) for _ in range(100_000)) for draw in draws]
    return texts + [unit * (100_000 // len(unit)) for unit in units]


def random_texts(count: int, added: Sequence[str], vocabulary: Sequence[str], seed: int = 0) -> Iterator[str]:
    """Return random texts, of which some hold added tokens, and others tokens of the vocabulary.

    Half of the texts are of one sort of pieces, the others mix them.
    """
    rng = Random(seed)
    pieces: list[Draw] = [
        *(word(draw, 12) for draw in (*_LETTERS, character, basic, accented, emoji, conjunct)),
        *(word(draw, 3) for draw in (invisible, mark)),
        word(_any_of(COMPATIBLE), 6),
        word(_any_of(PREPENDED), 2),
        joined(vocabulary),
        joined(vocabulary),
        repeated,
        contraction,
        word(latin, 250),
        *([spliced(added)] * 3 if added else []),
    ]
    for _ in range(count):
        chosen = [rng.choice(pieces)] if rng.random() < 0.5 else rng.choices(pieces, k=4)
        text = []
        for _ in range(rng.choice((1, 1, 2, 3, 5, 8, 12))):
            text.append(rng.choice(chosen)(rng))
            text.append(blank(rng) if rng.random() < 0.5 else "")
        yield blank(rng) * (rng.random() < 0.1) + "".join(text)
