import pytest

from smallfry.errors import InputError
from smallfry.readers.words import lines as lines_module
from smallfry.readers.words import open as module
from tests.helpers.word_lists import RISING, UNSORTED, lines, read_list


@pytest.mark.parametrize("tail", ["x", "x 5", "x\ty\tz"])
def test_a_deviation_after_the_sample_is_an_error(save, monkeypatch, tail):
    monkeypatch.setattr(module, "_SAMPLE_LINES", 10)
    with pytest.raises(InputError, match="line 31"):
        read_list(save(lines("{t}\t{n}") + tail), 31)


def test_tokens_with_spaces_and_tabs_before_a_score(save):
    text = "<unk>\t0\n\t\t-1\nNew York\t-2.5\n▁\t-3\n"
    assert read_list(save(text), 4)[0] == ["<unk>", "\t", "New York", "▁"]


@pytest.mark.parametrize(
    "text",
    [
        lines("{t}\t{n}").replace("\t876", ""),
        lines("{t}\tNN\t{n}").replace("\t876", ""),
        lines("{t} {n}").replace(" 876", ""),
        lines("{t},{n}").replace(",876", ""),
        lines("{n} {t}").replace("876 ", ""),
    ],
)
def test_a_line_with_other_columns_is_an_error(save, text):
    with pytest.raises(InputError, match=r"line 25: .*tok24.*, expected [23] columns separated by"):
        read_list(save(text), text.count("\n"))


@pytest.mark.parametrize("template", ["{n}\t{t}", "{n} {t}", "{n},{t}"])
@pytest.mark.parametrize("numbers, second", [(UNSORTED, 97), (range(5, 35), 6)])
def test_numbers_before_words_are_row_numbers_or_sorted(save, template, numbers, second):
    with pytest.raises(InputError, match=f"line 2: the number {second} is neither that of the row nor"):
        read_list(save(lines(template, numbers=numbers)), 30)


@pytest.mark.parametrize("template", ["{n}\t{t}", "{t} {n}", "{t}\t{n}"])
def test_row_numbers_are_those_of_the_lines(save, template):
    with pytest.raises(InputError, match="row numbers in another order"):
        read_list(save(lines(template, numbers=[*range(5, 30), *range(5)])), 30)
    with pytest.raises(InputError, match="line 30: the number 30 is neither that of the row nor"):
        read_list(save(lines(template, numbers=[*range(29), 30])), 30)
    assert read_list(save(lines(template, numbers=RISING)), 30)[0][29] == "tok29"


def test_quotes_that_are_not_closed_are_an_error(save, monkeypatch):
    monkeypatch.setattr(module, "_SAMPLE_LINES", 10)
    with pytest.raises(InputError, match=r"line 25: .*tok24"):
        read_list(save(lines('"{t}",{n}').replace('tok24"', "tok24")), 30)


@pytest.mark.parametrize("block", [1, 7, 1 << 21])
@pytest.mark.parametrize("text", ['word,count\n"a",3\n"b ",2\n', "word\tcount\na\t3\nb\t2\n"])
def test_columns_are_the_same_for_any_block_size(save, monkeypatch, block, text):
    monkeypatch.setattr(lines_module, "BLOCK_BYTES", block)
    words, report = read_list(save(text), 2)
    assert [word.strip() for word in words] == ["a", "b"]
    assert "first of 2 columns, without the header" in report.words
