import json
from functools import cache

import numpy as np
import pytest
import safetensors.numpy

import smallfry
from smallfry.compress import compress_file
from smallfry.errors import InputError, NonFiniteError
from smallfry.readers import static_model
from smallfry.readers.static_model import open_static_model
from smallfry.sfq import file as sfq
from smallfry.sfq.verify import verify
from smallfry.text.model import Pooling
from tests.helpers.text_models import TOKENIZERS, write_directory

STATIC = {
    "idx": 0,
    "name": "0",
    "path": "0_StaticEmbedding",
    "type": "sentence_transformers.models.StaticEmbedding",
}
NORMALIZE = {"idx": 1, "name": "1", "path": "1_Normalize", "type": "sentence_transformers.models.Normalize"}
DENSE = {"idx": 1, "name": "1", "path": "1_Dense", "type": "sentence_transformers.models.Dense"}

TOKENS = len(json.loads(TOKENIZERS["wordpiece"]())["model"]["vocab"])
CONVERT = cache(static_model.convert)  # takes half a second
MATRIX = np.random.default_rng(0).standard_normal((TOKENS, 8), np.float32)


def save(folder, tensors, tokenizer="tokenizer.json", weights="model.safetensors", **truncation):
    content = json.loads(TOKENIZERS["wordpiece"]())
    if truncation:
        content["truncation"] = {"max_length": 9, "strategy": "LongestFirst", "stride": 0} | truncation
    for name, write in (
        (weights, lambda path: safetensors.numpy.save_file(tensors, path)),
        (tokenizer, lambda path: path.write_text(json.dumps(content))),
    ):
        if name is not None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write(folder / name)
    return folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(static_model, "convert", CONVERT)
    return tmp_path / "model"


def compressed(folder, nbit=32, **options):
    path = folder.with_suffix(".sfq")
    report = compress_file(folder, path, nbit, **options)
    verify(path)
    return report, sfq.map(path)


def test_model2vec_directory(folder):
    report, file = compressed(write_directory(folder))
    assert report.format == "model2vec" and report.notes() == []
    assert file.text.pooling == Pooling(TOKENS, 512, 3 * 512, 1, True)
    np.testing.assert_array_equal(file.table.decode(), MATRIX)
    assert list(file.vocabulary)[:3] == ["[PAD]", "[UNK]", "[CLS]"]
    assert file.text.tensors.token_rows is None and file.text.tensors.token_weights is None
    assert json.loads(file.header.metadata["source"])["name"] == "model/model.safetensors"


def test_rows_that_tokens_share_have_no_vocabulary(folder):
    write_directory(folder, rows=10, max_length=None, normalize=False)
    stored = safetensors.numpy.load_file(folder / "model.safetensors")
    _, file = compressed(folder)
    assert file.vocabulary is None and file.table.rows == 10
    assert file.text.pooling == Pooling(TOKENS, None, None, 1, False)
    np.testing.assert_array_equal(file.text.tensors.token_rows, stored["mapping"])
    np.testing.assert_array_equal(file.text.tensors.token_weights, stored["weights"])


def test_characters_are_limited_to_the_median_length_of_tokens_times_max_length(folder):
    _, file = compressed(write_directory(folder, "unigram", max_length=5))
    tokens = [token for token, _ in json.loads(TOKENIZERS["unigram"]())["model"]["vocab"]]
    assert file.text.pooling.max_characters == 5 * int(np.median([len(token) for token in tokens]))
    assert file.text.pooling.max_tokens == 5 and file.text.pooling.skip == 0


@pytest.mark.parametrize("nested", ["0_StaticEmbedding", ".", ""])
def test_sentence_transformers_directory(folder, nested):
    save(folder / nested, {"embedding.weight": MATRIX}, direction="Right")
    (folder / "modules.json").write_text(json.dumps([STATIC | {"path": nested}, NORMALIZE]))
    report, file = compressed(folder)
    assert report.format == "sentence-transformers"
    assert file.text.pooling == Pooling(TOKENS, 9, None, None, True)


def test_sentence_transformers_module_without_the_list_of_modules(folder):
    save(folder / "0_StaticEmbedding", {"embedding.weight": np.vstack([MATRIX, MATRIX[:2]])})
    _, file = compressed(folder)
    assert file.text.pooling == Pooling(TOKENS)
    assert file.table.rows == TOKENS + 2 and file.vocabulary is None


@pytest.mark.parametrize("folders", [("weights/", "tokenizers/"), ("", "")])
def test_wordllama_directory(folder, folders):
    weights, tokenizer = f"{folders[0]}x_8.safetensors", f"{folders[1]}x_tokenizer_config.json"
    save(folder, {"embedding.weight": MATRIX.astype(np.float16)}, tokenizer, weights, direction="Right")
    report, file = compressed(folder)
    assert report.format == "wordllama" and file.text.pooling == Pooling(TOKENS)
    np.testing.assert_array_equal(file.table.decode(), MATRIX.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("dtype", ["int8", "float16", "float64", "bfloat16"])
def test_values_are_those_that_are_stored(folder, dtype):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    write_directory(folder)
    matrix = (torch.from_numpy(MATRIX) * 20).to(getattr(torch, dtype))
    save_file({"embeddings": matrix}, folder / "model.safetensors")
    np.testing.assert_array_equal(compressed(folder)[1].table.decode(), matrix.float().numpy())


def test_size_includes_the_tokenizer(folder):
    write_directory(folder, dim=64)
    path = folder.with_suffix(".sfq")
    compress_file(folder, path, max_nbytes=1 << 20)
    with smallfry.open(path) as store:
        limit, most = store.nbytes["total"] - 1, store.nbit
    compress_file(folder, path, max_nbytes=limit)
    with smallfry.open(path) as store:
        assert store.nbit < most and store.nbytes["total"] <= limit


def test_progress_counts_the_bytes_of_the_matrix(folder):
    seen = []
    compressed(write_directory(folder), progress=lambda name, done, total: seen.append((name, done, total)))
    size = (folder / "model.safetensors").stat().st_size
    assert ("read", size, size) in seen and ("tokenizer", 1, 1) in seen


def change(folder, **tensors):
    path = folder / "model.safetensors"
    safetensors.numpy.save_file(safetensors.numpy.load_file(path) | tensors, path)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"mapping": np.arange(TOKENS)}, r"gives token 10 the row 10, and there are 10 rows"),
        ({"mapping": np.full(TOKENS, -1)}, "gives token 0 the row -1"),
        ({"mapping": np.zeros(TOKENS, np.float32)}, "mapping is float32, expected integers"),
        ({"mapping": np.zeros((TOKENS, 1), int)}, r"mapping is I64 of shape \[\d+, 1\]"),
        ({"mapping": np.zeros(3, int)}, rf"mapping has 3 values, and .* has {TOKENS} tokens"),
        ({"weights": np.ones(3, np.float32)}, rf"weights has 3 values, and .* has {TOKENS} tokens"),
        ({"weights": np.full(TOKENS, np.inf)}, "weight of token 0 is inf, not a finite number"),
        ({"embeddings": np.full((10, 8), np.nan, np.float32)}, "model.safetensors, row 0: value 1 is nan"),
        ({"embeddings": np.zeros(10, np.float32)}, r"embeddings has shape \[10\]"),
    ],
)
def test_tensors_that_contradict_each_other_are_rejected(folder, tensors, message):
    change(write_directory(folder, rows=10), **tensors)
    with pytest.raises(InputError, match=message):
        compressed(folder)


def test_non_finite_error_is_the_one_of_vectors(folder):
    change(write_directory(folder), embeddings=np.full((TOKENS, 8), np.inf, np.float32))
    with pytest.raises(NonFiniteError):
        compressed(folder)


@pytest.mark.parametrize("rows", [TOKENS - 1, TOKENS + 1])
def test_number_of_tokens_is_the_number_of_rows(folder, rows):
    change(write_directory(folder), embeddings=np.zeros((rows, 8), np.float32))
    with pytest.raises(InputError, match=rf"tokens \({TOKENS}\) .* number of rows \({rows}\)"):
        compressed(folder)


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ([STATIC, DENSE], "whose module 1 is 'Dense': only a StaticEmbedding, and Normalize after it"),
        ([DENSE | {"type": "sentence_transformers.models.Transformer"}], "whose module 0 is 'Transformer'"),
        ([NORMALIZE, STATIC], "whose module 0 is 'Normalize'"),
        ([], "lists no module"),
        ({"type": 1}, "is not a list of modules with type and path"),
        ([STATIC | {"path": "../other"}], "outside its folder"),
    ],
)
def test_other_modules_of_sentence_transformers_are_rejected_by_name(folder, modules, message):
    save(folder / "0_StaticEmbedding", {"embedding.weight": MATRIX})
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(InputError, match=message):
        compressed(folder)


def test_default_prompt_of_sentence_transformers_is_rejected_by_name(folder):
    save(folder / "0_StaticEmbedding", {"embedding.weight": MATRIX})
    (folder / "modules.json").write_text(json.dumps([STATIC]))
    settings = {"prompts": {"query": "query: "}, "default_prompt_name": "query"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match="has the default prompt 'query'"):
        compressed(folder)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "is not the directory of a static embedding model: it has no model.safetensors"),
        (["a.txt", "tokenizer.json"], "is not the directory of a static embedding model"),
        (["a.safetensors"], "has a.safetensors and no tokenizer"),
        (["model.safetensors"], "no tokenizer.json, which a text model needs"),
        (["modules.json"], "is not valid JSON"),
        (
            ["weights/a.safetensors", "weights/b.safetensors", "tokenizers/a_tokenizer_config.json"],
            "has 2 models: a.safetensors, b.safetensors",
        ),
        (
            [
                "weights/a.safetensors",
                "tokenizers/a_tokenizer_config.json",
                "tokenizers/b_tokenizer_config.json",
            ],
            "has 2 models: a_tokenizer_config.json, b_tokenizer_config.json",
        ),
    ],
)
def test_directories_of_other_files_are_rejected(folder, names, message):
    folder.mkdir()
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        if name.endswith(".safetensors"):
            safetensors.numpy.save_file({"embedding.weight": MATRIX}, folder / name)
        else:
            (folder / name).write_text("")
    with pytest.raises(InputError, match=message):
        compressed(folder)


def test_matrix_of_another_name_is_rejected(folder):
    save(folder, {"a": MATRIX, "b": MATRIX})
    with pytest.raises(InputError, match=r"has no tensor 'embeddings' .* It has a, b"):
        compressed(folder)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"max_length": 0}, "max_length = 0, expected a positive integer or null"),
        ({"max_length": "9"}, "max_length = '9'"),
        ({"normalize": "yes"}, "normalize = 'yes', expected true or false"),
    ],
)
def test_malformed_config_is_rejected(folder, config, message):
    with pytest.raises(InputError, match=message):
        compressed(write_directory(folder, **config))


def test_tokenizer_that_is_not_supported_is_named(folder):
    write_directory(folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["pre_tokenizer"] = {"type": "Digits", "individual_digits": True}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(InputError, match=r"tokenizer\.json: the pre-tokenizer 'Digits' is not supported"):
        compressed(folder)


@pytest.mark.parametrize(
    "option",
    [
        {"words": "w.txt"},
        {"words": False},
        {"keep": ["a"]},
        {"limit": 3},
        {"tensor": "embeddings"},
        {"strict": True},
    ],
)
def test_options_of_vectors_do_not_apply(folder, option):
    with pytest.raises(InputError, match=f"{next(iter(option))} is set, but .* read whole"):
        open_static_model(write_directory(folder), **option)
