import gzip

import numpy as np
import pytest

from smallfry.errors import InputError
from tests.helpers.readers import npy, read

GLOVE = b"the 1 2\nof 3 4\nNew York 5 6\nand 7 8\nof 9 9\n"


@pytest.fixture
def keep(tmp_path):
    path = tmp_path / "keep.txt"
    path.write_text("and\nof\nand\nmissing\nalso missing\n")
    return path


def test_only_the_words_of_the_list_are_read_in_the_order_of_the_file(keep):
    tokens, matrix, report = read(GLOVE, keep=keep)
    assert tokens == ["of", "and"]
    assert matrix.tolist() == [[3, 4], [7, 8]]
    assert (report.rows, report.left_out, report.duplicates, report.missing_words) == (2, 2, 1, 2)
    assert "rows of other words, left out: 2" in report.notes()
    assert "words to keep, not found: 2 ('missing', 'also missing')" in report.notes()


@pytest.mark.parametrize("keep", [["New York", "the", "the"], iter(["the", "New York"]), {"the", "New York"}])
def test_words_may_be_given_themselves(keep):
    tokens, _, report = read(GLOVE, keep=keep)
    assert (tokens, report.missing_words) == (["the", "New York"], 0)


def test_list_may_be_compressed_and_end_its_lines_in_crlf(tmp_path):
    (tmp_path / "keep.gz").write_bytes(gzip.compress(b"of\r\nand\r\n"))
    tokens, _, report = read(GLOVE, keep=tmp_path / "keep.gz")
    assert (tokens, report.crlf_lines) == (["of", "and"], 0)


def test_limit_counts_rows_kept_and_missing_words_are_not_counted(keep):
    tokens, _, report = read(GLOVE, keep=keep, limit=1)
    assert (tokens, report.left_out, report.missing_words) == (["of"], 2, 0)


def test_bad_rows_of_other_words_do_not_matter(keep):
    tokens, _, report = read(b"the nan 1\nof 3 4\n\xff 1 2\n", keep=keep)
    assert (tokens, report.invalid_utf8, report.non_finite) == (["of"], 0, 0)


def test_rows_of_a_matrix_are_selected_by_their_words(tmp_path, keep):
    (tmp_path / "words.txt").write_bytes(b"of\n\xff\nof\nthe\nand\n")
    matrix = np.arange(10, dtype=np.float32).reshape(5, 2)
    tokens, kept, report = read(npy(matrix), words=tmp_path / "words.txt", keep=keep)
    assert (tokens, kept.tolist()) == (["of", "and"], [[0, 1], [8, 9]])
    assert (report.duplicates, report.duplicate_words) == (1, 0)


def test_matrix_without_words_has_nothing_to_keep(keep):
    with pytest.raises(InputError, match=r"keep\.txt has words to keep, but the vectors have no words"):
        read(npy(np.ones((2, 2))), keep=keep)


def test_list_of_which_nothing_is_found_is_rejected(tmp_path):
    (tmp_path / "keep.txt").write_text("".join(f"x{i}\n" for i in range(1000)))
    with pytest.raises(InputError, match=r"none of the 1,000 words of keep\.txt: 'x0', 'x1', .*, …\."):
        read(GLOVE, keep=tmp_path / "keep.txt")


def test_list_without_words_is_rejected(tmp_path):
    (tmp_path / "keep.txt").write_bytes(b"")
    with pytest.raises(InputError, match=r"keep\.txt has no words"):
        read(GLOVE, keep=tmp_path / "keep.txt")


def test_list_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "keep.txt").write_bytes(b"of\ncaf\xe9\n")
    with pytest.raises(InputError, match=r"keep\.txt.*not valid UTF-8"):
        read(GLOVE, keep=tmp_path / "keep.txt")


def test_message_about_long_words_and_names_stays_short(tmp_path):
    (tmp_path / ("v" * 255)).write_bytes(GLOVE)
    (tmp_path / ("k" * 255)).write_text("".join("x" * 1000 + f"{i}\n" for i in range(10)))
    with pytest.raises(InputError) as caught:
        read(tmp_path / ("v" * 255), keep=tmp_path / ("k" * 255))
    assert len(str(caught.value)) <= 500
