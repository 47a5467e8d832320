"""SQuAD 1.1: read its JSON, tokenize text, and split the articles into train and test sets."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# In order: "3.5" and "10,000"; the word before "n't"; "n't"; clitics such as "'s"; a word; any other sign.
_TOKEN = re.compile(
    r"\d+(?:[.,]\d+)+|\w+?(?=n't\b)|n't\b|'(?:s|t|re|ve|ll|d|m)\b|[^\W_]+|[^\w\s]|_",
    re.IGNORECASE,
)

TEST_ARTICLES = (Path(__file__).parent / "test_articles.txt").read_text("utf-8").split()
"""Titles of the articles in the development set that are held out for testing."""


@dataclass(frozen=True)
class Text:
    """A text and its tokens.

    Attributes
    ----------
    raw : str
    tokens : tuple of str
    spans : tuple of (int, int)
        Start and end of each token in `raw`.
    """

    raw: str
    tokens: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]

    def slice(self, first: int, last: int) -> str:
        """Return the text from token `first` to token `last`, inclusive."""
        return self.raw[self.spans[first][0] : self.spans[last][1]]


@dataclass(frozen=True)
class Question:
    """One question about one passage.

    Attributes
    ----------
    key : str
        SQuAD's id.
    passage, question : Text
    answers : tuple of str
        All true answers.
    target : tuple of (int, int)
        First and last token of the first answer in the passage.
    """

    key: str
    passage: Text
    question: Text
    answers: tuple[str, ...]
    target: tuple[int, int]


def tokenize(raw: str) -> Text:
    """Split a text into words, numbers and single signs; only white space is lost.

    >>> tokenize("It didn't cost $3.50, he says.").tokens
    ('It', 'did', "n't", 'cost', '$', '3.50', ',', 'he', 'says', '.')
    """
    found = list(_TOKEN.finditer(raw))
    return Text(raw, tuple(m.group() for m in found), tuple(m.span() for m in found))


def read(path: str | Path) -> dict[str, list[Question]]:
    """Read a SQuAD 1.1 file (plain or ``.gz``): article title to its questions.

    Raises
    ------
    ValueError
        The file is not SQuAD 1.1, or an answer does not match its position.
    """
    path = Path(path)
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        content = json.load(file)
    if not isinstance(content, dict) or not str(content.get("version", "")).startswith("1."):
        raise ValueError(f"{path} is not a SQuAD 1.1 file: expected an object with a version 1.x.")
    return {article["title"]: list(_questions(article)) for article in content["data"]}


def split(articles: dict[str, list[Question]]) -> tuple[list[Question], list[Question]]:
    """Split the development set by article, so that train and test share no passage and no subject.

    The ten articles in `TEST_ARTICLES` are the test set.
    """
    missing = [title for title in TEST_ARTICLES if title not in articles]
    if missing:
        raise ValueError(
            f"{len(missing)} of the {len(TEST_ARTICLES)} test articles are not in the file "
            f"(first: {missing[0]!r}). The split is defined for the development set of SQuAD 1.1."
        )
    held_out = set(TEST_ARTICLES)
    train = [q for title, questions in articles.items() if title not in held_out for q in questions]
    test = [q for title in TEST_ARTICLES for q in articles[title]]
    return train, test


def _questions(article: dict[str, object]) -> Iterator[Question]:
    for paragraph in article["paragraphs"]:  # type: ignore[attr-defined]
        passage = tokenize(paragraph["context"])
        for entry in paragraph["qas"]:
            answers = entry["answers"]
            target = _token_span(passage, answers[0]["answer_start"], answers[0]["text"], entry["id"])
            texts = tuple(answer["text"] for answer in answers)
            yield Question(entry["id"], passage, tokenize(entry["question"]), texts, target)


def _token_span(passage: Text, start: int, answer: str, key: str) -> tuple[int, int]:
    """Return the smallest token span that covers an answer."""
    end = start + len(answer)
    if passage.raw[start:end] != answer:
        raise ValueError(
            f"Question {key}: the passage has {passage.raw[start:end]!r} at {start}, "
            f"the file says {answer!r}."
        )
    covered = [i for i, (first, last) in enumerate(passage.spans) if first < end and last > start]
    if not covered:
        raise ValueError(f"Question {key}: the answer {answer!r} at {start} contains no token.")
    return covered[0], covered[-1]
