"""Examples: short tokens that a lookup finds."""

import numpy as np

import smallfry
from service.models.examples import examples
from smallfry.compress import quantize
from smallfry.sfq import file as sfq
from smallfry.vocabulary import Vocabulary
from tests.helpers.crafted_files import Crafted


def test_examples_are_short_words_that_a_lookup_finds(tmp_path):
    matrix = np.random.default_rng(0).standard_normal((8, 4), np.float32)
    matrix[0] = 0
    names = ["padding", "", "x" * 300, "again", "again", "!", "سلام", "last"]
    table = quantize(matrix, 2)
    sfq.write(tmp_path / "named.sfq", table, Vocabulary.build(names, unnamed=True))
    sfq.write(tmp_path / "plain.sfq", table)
    with smallfry.open(tmp_path / "named.sfq") as named, smallfry.open(tmp_path / "plain.sfq") as plain:
        assert examples(named) == ["again", "سلام", "last"]
        assert examples(plain) == []


def test_a_damaged_vocabulary_has_no_examples(tmp_path):
    path, decreasing = tmp_path / "damaged.sfq", np.array([0, 3, 1, 2, 4], np.uint64)
    for damage in ({"token_offsets": decreasing}, {"token_index": np.full(69, 2**32 - 1, np.uint32)}):
        crafted = Crafted()
        crafted.arrays |= damage
        path.write_bytes(crafted.raw())
        assert examples(smallfry.open(path)) == []
