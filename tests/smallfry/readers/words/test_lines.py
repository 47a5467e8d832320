import pytest

from smallfry.errors import InputError
from smallfry.readers.words import lines as lines_module
from tests.helpers.word_lists import lines, read_list


@pytest.mark.parametrize("block", [1, 2, 7, 1 << 21])
def test_words_are_the_same_for_any_block_size(save, monkeypatch, block):
    monkeypatch.setattr(lines_module, "BLOCK_BYTES", block)
    expected = [f"w{i}" for i in range(20)] + ["", "New York", "é"]
    assert read_list(save("\r\n".join(expected)), len(expected))[0] == expected


@pytest.mark.parametrize("text", ["a\nb\nc\r\n", "a\r\nb\nc", "a\nb \nc\n", "a\nb\nc\n"])
def test_mixed_line_ends(save, text):
    assert read_list(save(text), 3)[0] == ["a", "b", "c"]


def test_empty_lines_after_the_last_row_are_dropped(save):
    words, report = read_list(save("a\n\nb\n\n\n"), 3)
    assert words == ["a", "", "b"]
    assert report.empty_lines == 2


def test_spaces_after_words_are_counted(save):
    words, report = read_list(save("a \nb\t \r\n c\n \n"), 4)
    assert words == ["a", "b", " c", " "]
    assert report.stripped_words == 2
    assert "words followed by spaces, which were removed: 2" in report.notes()


def test_few_words_contain_tabs(save):
    with pytest.raises(InputError, match="line 25: has columns separated by tabs, as 1 of 30 lines"):
        read_list(save(lines("{t}").replace("tok24", "tok24\t876")), 30)
    assert read_list(save("\t\treturn\n \tx\n"), 2)[0] == ["\t\treturn", " \tx"]
