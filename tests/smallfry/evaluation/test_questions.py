import gzip

import pytest

from smallfry.errors import BadLineError, InputError
from smallfry.evaluation import AnalogySet, SimilaritySet, read_analogies, read_similarity

PAIRS = SimilaritySet("set", (("cat", "New York"), ("café", "queen")), (3.5, 7.0))


@pytest.fixture
def save(tmp_path):
    def save(text, encoding="utf-8", name="set.csv"):
        path = tmp_path / name
        path.write_bytes(text.encode(encoding) if isinstance(text, str) else text)
        return path

    return save


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1"])
@pytest.mark.parametrize(
    "text",
    [
        "cat\tNew York\t3.5\ncafé\tqueen\t7\n",
        "cat,New York,3.5\ncafé,queen,7\n",
        "cat;New York;3,5\ncafé;queen;7\n",
        '"cat","New York",3.5\n"café","queen",7\n',
        '"cat" "New York" 3.5\n"café" "queen" 7\n',
        '"w1"\t"w2"\t"score"\n"cat"\t"New York"\t3.5\n"café"\t"queen"\t7\n',
        "w1,w2,score\r\ncat,New York,3.5\r\ncafé,queen,7\r\n",
        "# pairs\n\nw1, w2, score\ncat, New York, 3.5\ncafé, queen, 7",
        ",w1,w2,score\n0,cat,New York,3.5\n1,café,queen,7\n",
        "cat\tNew York\t3.5\rcafé\tqueen\t7\r",
    ],
)
def test_layouts_of_word_pairs(save, text, encoding):
    given = None if encoding in ("utf-8", "utf-8-sig", "utf-16") else encoding
    assert read_similarity(save(text, encoding), given) == PAIRS


def test_compressed_tests(save):
    data = gzip.compress(b"cat dog 3\nking queen 7\n")
    assert read_similarity(save(data)).scores == (3, 7)


@pytest.mark.parametrize("text", ["a,b,c,d\nNew York,x,y,z\n", '"a" "b" "c" "d"\n"New York" "x" "y" "z"\n'])
def test_layouts_of_analogies(save, text):
    expected = (("a", "b", "c", "d"), ("New York", "x", "y", "z"))
    assert read_analogies(save(text)) == [AnalogySet("set", expected)]


@pytest.mark.parametrize("read", [read_similarity, read_analogies])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"\n# nothing\n", "is empty"),
        ("cat caf\xe9 3\n".encode("latin-1"), r"line 1: not valid UTF-8.*--test-encoding"),
        (b"a b\nc \xff d\n", "line 2: not valid UTF-8"),
        (bytes(100), "a binary file"),
        (b"a " * 10_000, "line 1: longer than 10,000"),
        (b"word word\n", "line 1: expected"),
        (b"7 cat dog 3\n3 king queen 5\n4 a b 5\n", "line 1: a number before the words"),
    ],
)
def test_other_files_are_rejected(save, read, data, message):
    with pytest.raises(InputError, match=message) as caught:
        read(save(data))
    assert len(str(caught.value)) <= 500 + len(str(save(data)))


def test_a_line_without_the_second_word_is_named(save):
    with pytest.raises(BadLineError, match="line 2: expected 'word word score'"):
        read_similarity(save("cat,dog,3\nking,,7\n"))


def test_missing_files_and_directories(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_similarity(tmp_path / "missing")
    with pytest.raises(IsADirectoryError):
        read_similarity(tmp_path)
