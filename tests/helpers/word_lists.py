"""Read a whole word list, for the tests of word lists."""

from contextlib import ExitStack

from smallfry.readers.options import ReadOptions
from smallfry.readers.report import ReadReport
from smallfry.readers.words.open import open_words
from tests.helpers.readers import words as unpack

TOKENS = [f"tok{i}" for i in range(30)]
RISING = list(range(30))
FALLING = list(range(900, 870, -1))
UNSORTED = [(7 * i) % 31 + 90 for i in range(30)]


def lines(template, tokens=TOKENS, numbers=FALLING):
    return "".join(template.format(t=token, n=n) + "\n" for token, n in zip(tokens, numbers, strict=True))


def read_list(path, rows, step=3, **options):
    """Return the words of a list, taken `step` at a time, and the report."""
    report = ReadReport("npy")
    with ExitStack() as stack:
        words = open_words(path, rows, ReadOptions(words=path, **options), report, stack)
        found = []
        for begin in range(0, rows, step):
            found += unpack(words.take(min(step, rows - begin)))
        words.finish()
    return found, report
