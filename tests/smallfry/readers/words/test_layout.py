import pytest

from smallfry.errors import InputError
from tests.helpers.word_lists import RISING, TOKENS, UNSORTED, lines, read_list


@pytest.mark.parametrize(
    "text, kind",
    [
        (lines("{t}"), ""),
        ("\ufeff" + lines("{t}"), ""),
        (lines("{t}  \t"), ""),
        (lines("{t}\t{n}"), " (first of 2 columns)"),
        (lines("{t}\t-{n}.25"), " (first of 2 columns)"),
        (lines("{t}\t{n}", numbers=UNSORTED), " (first of 2 columns)"),
        (lines("{t}\t{n}", numbers=RISING), " (first of 2 columns)"),
        (lines("{t}\tNOUN"), " (first of 2 columns)"),
        (lines("{t}\tNOUN\t{n}"), " (first of 3 columns)"),
        ("word\tcount\n" + lines("{t}\t{n}"), " (first of 2 columns, without the header 'word\\tcount')"),
        ("Word\tPOS\n" + lines("{t}\tNOUN"), " (first of 2 columns, without the header 'Word\\tPOS')"),
        ("n\tword\n" + lines("{n}\t{t}"), " (second of 2 columns, without the header 'n\\tword')"),
        (lines("{t} {n}"), " (first of 2 columns)"),
        (lines("{t} {n}", numbers=UNSORTED), " (first of 2 columns)"),
        (lines("{t}    {n}"), " (first of 2 columns)"),
        ("word count\n" + lines("{t} {n}"), " (first of 2 columns, without the header 'word count')"),
        ("30\n" + lines("{t} {n}"), " (first of 2 columns, without the header '30')"),
        (lines("{t},{n}"), " (first of 2 columns)"),
        (lines("{t};{n}"), " (first of 2 columns)"),
        (lines('"{t}",{n}'), " (first of 2 columns)"),
        (lines('"{t}"\t{n}'), " (first of 2 columns)"),
        (lines('"{t}" {n}'), " (first of 2 columns)"),
        (
            '"word","count"\n' + lines('"{t}",{n}'),
            ' (first of 2 columns, without the header \'"word","count"\')',
        ),
        (
            ",word,count\n" + lines("{n},{t},5", numbers=RISING),
            " (second of 3 columns, without the header ',word,count')",
        ),
        (lines('"{t}"'), " (in quotes)"),
        (lines('{n},"{t}"', numbers=RISING), " (second of 2 columns)"),
        (
            '"","word"\n' + lines('{n},"{t}"', numbers=RISING),
            ' (second of 2 columns, without the header \'"","word"\')',
        ),
        (
            '"x"\n' + lines('"{n}" "{t}"', numbers=RISING),
            " (second of 2 columns, without the header '\"x\"')",
        ),
        (lines("{n}\t{t}", numbers=RISING), " (second of 2 columns)"),
        (lines("{n},{t}", numbers=range(1, 31)), " (second of 2 columns)"),
        (lines("{n} {t}", numbers=RISING), " (second of 2 columns)"),
        (lines("{n}\t{t}"), " (second of 2 columns)"),
        (lines("{n:>7} {t}"), " (second of 2 columns)"),
        (lines("{n:>7} {t}", numbers=UNSORTED), " (second of 2 columns)"),
        (lines("{t} 0.1 -0.2 3e-2"), " (tokens of text vectors of dim 3)"),
        ("30 3\n" + lines("{t} 0.1 -0.2 3e-2"), " (tokens of text vectors of dim 3)"),
    ],
)
def test_kinds_of_lists(save, text, kind):
    words, report = read_list(save(text), 30)
    assert words == TOKENS
    assert report.words == "words.txt" + kind


@pytest.mark.parametrize(
    "words",
    [
        ["area 51", "windows 95", "the", "of", "channel", "New York", "x", "y", "z", "q", "r"],
        ["the", "of", "area 51", "New York", "x"],
        [f"Film {i} ({1950 + i})" for i in range(30)],
        [f"12:{i:02}" for i in range(60)],
        [f"user {i}" for i in range(30)],
        ["Boeing 737", "Boeing 747", "Boeing 757", "Airbus 320", "Airbus 340"],
        [
            "the",
            "",
            " ",
            "  ",
            "\t",
            "##ing",
            "Ġthe",
            "Ċ",
            "\u00a0",
            "a,b",
            ",",
            '"',
            '""',
            "10,000",
            "3 musketeers",
        ],
        ["[PAD]", "[unused0]", "[UNK]"],
        ["{", "}", "[", "]"],
        ["1", "2", "3"],
        ["Paris, France", "London, England"],
        ["<s>", "<html>", "</s>"],
        ["#hash", "a"],
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_plain_lists_are_read_as_they_are(save, words, end):
    found, report = read_list(save("".join(word + end for word in words)), len(words))
    assert found == words
    assert report.words == "words.txt"


@pytest.mark.parametrize(
    "text, message",
    [
        (lines("{t}: {n}"), "a number or a mark after the word in many lines, such as 'tok29: 871'"),
        (lines("{t}|{n}"), "after the word"),
        (lines("{t} ({n})"), "after the word"),
        (lines("{t}, {n}"), "after the word"),
        (lines("{t} 1,{n}"), "after the word"),
        (lines("{t} {n}%"), "after the word"),
        (lines("{t},"), "after the word"),
        (lines("{n}. {t}", numbers=RISING), "before the word"),
        (lines("{n} 5 {t}"), "before the word"),
        (lines("'{t}',"), "after the word"),
        (lines("'{t}'"), "before the word"),
        (lines('"{t}","NN"').replace('"tok24"', '"tok24'), "before the word"),
        (lines("- {t}"), "before the word"),
        (lines("{t} NN"), "one of 1 words at the end"),
        (lines('"{t}\\u0041"'), "JSON strings"),
        (lines("{n}\t5"), "numbers in all of its columns"),
        (lines("0.1\t0.2\t0.3"), "numbers in all of its columns"),
    ],
)
def test_lists_whose_words_are_unclear_are_rejected(save, text, message):
    with pytest.raises(InputError, match=message) as caught:
        read_list(save(text), 30)
    assert len(str(caught.value)) <= 500


@pytest.mark.parametrize("text", ["area 51\nroute 66\nformula 1\n", "area 51\n", "a b 3\nc d 2\ne f 1\n"])
def test_numbers_that_may_be_part_of_the_word_are_rejected(save, text):
    with pytest.raises(InputError, match="a count or a part of the word"):
        read_list(save(text), text.count("\n"))


@pytest.mark.parametrize(
    "text, words", [('";"\n', [";"]), ("\n\n", ["", ""]), ("a", ["a"]), ("a\tb\n\n", ["a"])]
)
def test_short_lists(save, text, words):
    assert read_list(save(text), len(words))[0] == words


@pytest.mark.parametrize(
    "text, words",
    [
        ('""""\n","\nthe\n', ['"', ",", "the"]),
        ('the,9\n""""\n",",8\n'.replace('""""\n', '"""",8\n'), ["the", '"', ","]),
        ('"a\\"b"\n"c"\n', ['a"b', "c"]),
        ('"a""b"\n"c"\n', ['a"b', "c"]),
        (",,9\na,8\n10,000,7\n", [",", "a", "10,000"]),
        ('",9\na,8\n', ['"', "a"]),
    ],
)
def test_quotes_and_commas(save, text, words):
    assert read_list(save(text), len(words))[0] == words
