import json

import numpy as np
import pytest

import smallfry
from smallfry.compress import compress_file
from smallfry.errors import InputError
from tests.helpers.word_lists import TOKENS, read_list


@pytest.mark.parametrize(
    "text, kind",
    [
        (json.dumps({t: i for i, t in enumerate(TOKENS)}), " (JSON object of ids)"),
        (json.dumps({str(i): t for i, t in enumerate(TOKENS)}), " (JSON object by id)"),
        (json.dumps(TOKENS, indent=1), " (JSON array)"),
        (json.dumps([[t, -1.5] for t in TOKENS]), " (JSON array)"),
        (json.dumps({"model": {"vocab": {t: i for i, t in enumerate(TOKENS)}}}), " (tokenizer)"),
        (json.dumps({"model": {"vocab": [[t, -1.0] for t in TOKENS]}}), " (tokenizer)"),
    ],
)
def test_kinds_of_json(save, text, kind):
    words, report = read_list(save(text), 30)
    assert words == TOKENS
    assert report.words == "words.txt" + kind


@pytest.mark.parametrize(
    "text, message",
    [
        (json.dumps(dict.fromkeys(TOKENS, 900)), "has 900 for 'tok0'"),
        (json.dumps(dict.fromkeys(TOKENS, 5)), "id 5 twice, for 'tok0' and 'tok1'"),
        (json.dumps([["t", "h"]] * 30), "item 0: .*expected a string"),
        (json.dumps({"model": {"vocab": {"a": "b"}}}), "has b for 'a'"),
        (json.dumps({"model": {"vocab": None}}), "lack ids of tokens"),
        (json.dumps({"tokenizer_class": "Bert", "do_lower_case": True}), "tokenizer_class"),
        (json.dumps([{"token": "a"}] * 30), "item 0: .*expected a string"),
        ('{"a": 0,\n', "cannot be parsed"),
        ('["a",' + "[" * 100_000, "cannot be parsed"),
        ('["' + "[" * 10, "cannot be parsed"),
    ],
)
def test_other_json_is_rejected(save, text, message):
    with pytest.raises(InputError, match=message) as caught:
        read_list(save(text), 30)
    assert len(str(caught.value)) <= 500


def test_rows_without_a_word_are_unnamed(save, tmp_path):
    words, matrix = save(json.dumps({"a": 0, "": 2})), tmp_path / "v.npy"
    np.save(matrix, np.ones((400, 2), np.float32))
    report = compress_file(matrix, tmp_path / "v.sfq", words=words, strict=True)
    assert report.notes() == [
        "words: words.txt (JSON object of ids)",
        "rows left unnamed, because the list has no word for them: 398",
    ]
    assert smallfry.open(tmp_path / "v.sfq").vocabulary.find(["a", "", "\ufffd"]).tolist() == [0, 2, -1]


def test_added_tokens_of_a_tokenizer(save):
    added = [{"id": 0, "content": "a"}, {"id": 2, "content": "<pad>"}]
    text = json.dumps({"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": added})
    assert read_list(save(text), 3)[0] == ["a", "b", "<pad>"]
