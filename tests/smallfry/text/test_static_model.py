import numpy as np
import pytest

import smallfry
from smallfry.errors import NoTokenizerError
from tests.helpers.text_models import TEXTS, write_text_model


def test_methods_are_those_of_the_encoder(tmp_path):
    path = write_text_model(tmp_path / "t.sfq")
    model, encoder = smallfry.StaticModel.from_pretrained(path), smallfry.open(path).encoder()
    np.testing.assert_array_equal(model.encode(TEXTS, show_progress_bar=True), encoder.encode(TEXTS))
    np.testing.assert_array_equal(model.encode("the cat"), encoder.encode("the cat"))
    assert model.tokenize(TEXTS) == encoder.tokenize(TEXTS)
    assert model.dim == encoder.dim


def test_arguments_that_would_change_vectors_are_rejected(tmp_path):
    model = smallfry.StaticModel.from_pretrained(write_text_model(tmp_path / "t.sfq"))
    for option in ({"normalize": False}, {"max_length": 3}):
        with pytest.raises(TypeError, match="unexpected keyword argument"):
            model.encode(TEXTS, **option)


def test_file_without_a_tokenizer_is_rejected(tmp_path):
    smallfry.save(tmp_path / "t.sfq", np.eye(2, dtype=np.float32), nbit=32)
    with pytest.raises(NoTokenizerError):
        smallfry.StaticModel.from_pretrained(tmp_path / "t.sfq")
