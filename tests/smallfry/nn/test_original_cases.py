"""The cases of HazyResearch/smallfry's quant_embedding_test.py, for every number of bits."""

import os
import sys
import unittest
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from smallfry import compress, kernels
from smallfry.compress import compress_uniform
from smallfry.nn import QuantEmbedding, quantize_embed
from smallfry.table import KINDS

WORDS, DIM = 60, 23
NBITS = (*KINDS["uniform"], *KINDS["float"])


def random_matrix(nbit, quantized):
    rng = np.random.default_rng(nbit)
    if not quantized:
        return rng.random((WORDS, DIM), np.float32)
    values = rng.random(2 ** min(nbit, 16), np.float32)
    return values[rng.integers(0, len(values), (WORDS, DIM))]


def compressed(matrix, nbit):
    """Return the expected table: a matrix of at most 2**nbit values itself, or the rounded one."""
    if len(np.unique(matrix)) <= 2**nbit:
        return torch.from_numpy(matrix)
    return torch.from_numpy(compress_uniform(matrix, nbit, adaptive_range=True)[0])


@settings(max_examples=60, deadline=None)
@given(nbit=st.sampled_from([1, 2, 4, 8, 16]), rows=st.integers(0, 9), dim=st.integers(1, 99), data=st.data())
def test_pack_and_unpack_are_inverse(nbit, rows, dim, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    codes = rng.integers(0, 2**nbit, (rows, dim), np.uint16)
    assert np.array_equal(kernels.unpack(kernels.pack(codes, nbit), dim, nbit), codes)


@pytest.mark.parametrize("container", [nn.ModuleList, lambda modules: nn.Sequential(*modules)])
@pytest.mark.parametrize("nbit", NBITS)
def test_embeddings_in_nested_modules_are_replaced(container, nbit):
    layers = [nn.Embedding(100 * k, 10 * k) for k in (1, 2, 3, 4)]
    model = quantize_embed(container([container(layers[:2]), container(layers[2:])]), nbit=nbit)
    for outer in model:
        for inner in outer:
            assert isinstance(inner, QuantEmbedding)
            assert inner.nbit == nbit


@pytest.mark.parametrize("quantized", [True, False], ids=["quantized", "float"])
@pytest.mark.parametrize("from_file", [True, False], ids=["file", "tensor"])
@pytest.mark.parametrize("nbit", NBITS)
def test_each_way_to_initialize_gives_the_rows_of_compress_uniform(tmp_path, nbit, from_file, quantized):
    matrix = random_matrix(nbit, quantized)
    options = {"_weight": torch.from_numpy(matrix)}
    if from_file:
        lines = (f"x{row} {' '.join(map(str, values))}\n" for row, values in enumerate(matrix.tolist()))
        (tmp_path / "vectors.txt").write_text("".join(lines))
        options = {"embedding_file": tmp_path / "vectors.txt"}
    embedding = QuantEmbedding(num_embeddings=WORDS, embedding_dim=DIM, padding_idx=0, nbit=nbit, **options)
    ids = torch.randint(0, WORDS, (5, 40, DIM))
    assert embedding.embedding_dim == DIM
    assert torch.equal(embedding(ids), compressed(matrix, nbit)[ids])


@settings(max_examples=100, deadline=None)
@given(
    nbit=st.sampled_from(NBITS), rows=st.integers(1, 99), dim=st.integers(1, 99), seed=st.integers(0, 2**32)
)
def test_module_and_compress_uniform_give_the_same_bits(nbit, rows, dim, seed):
    matrix = np.random.default_rng(seed).random((rows, dim), np.float32)
    embedding = QuantEmbedding(rows, dim, _weight=torch.from_numpy(matrix), nbit=nbit)
    rounded, _, _ = compress_uniform(matrix, nbit, adaptive_range=True)
    assert torch.equal(embedding(torch.arange(rows)), torch.from_numpy(rounded))


def compress_long_mat(values, nbit):
    """Pack values along the last axis, as the function of this name of the original project."""
    rows = values.numpy().reshape(-1, values.shape[-1])
    codes = rows.astype(np.uint32).view(np.uint16) if nbit == 32 else rows.astype(np.uint16)
    packed = kernels.pack(codes, min(nbit, 16))
    return torch.from_numpy(packed.reshape(*values.shape[:-1], -1))


def decompress_long_mat(packed, nbit, dim):
    rows = packed.numpy().reshape(-1, packed.shape[-1])
    codes = kernels.unpack(rows, dim * max(1, nbit // 16), min(nbit, 16))
    values = np.ascontiguousarray(codes).view(np.uint32) if nbit == 32 else codes
    return torch.from_numpy(values.astype(np.int64).reshape(*packed.shape[:-1], dim))


@pytest.mark.skipif("ORIGINAL" not in os.environ, reason="ORIGINAL is not set to a checkout")
def test_file_of_the_original_passes(monkeypatch, tmp_path):
    module = ModuleType("quant_embedding")
    vars(module).update(
        QuantEmbedding=QuantEmbedding,
        quantize_embed=quantize_embed,
        compress_long_mat=compress_long_mat,
        decompress_long_mat=decompress_long_mat,
    )
    monkeypatch.setattr(QuantEmbedding, "value_list", property(lambda self: self.codebook), raising=False)
    monkeypatch.setitem(sys.modules, "quant_embedding", module)
    monkeypatch.setitem(sys.modules, "compress", compress)
    source = Path(os.environ["ORIGINAL"]) / "src" / "smallfry" / "quant_embedding_test.py"
    tests = ModuleType("quant_embedding_test")
    monkeypatch.chdir(tmp_path)  # the tests write to the working directory
    exec(compile(source.read_text(), str(source), "exec"), vars(tests))
    for _ in range(10):  # they draw sizes and bits at random
        result = unittest.TestResult()
        unittest.defaultTestLoader.loadTestsFromModule(tests).run(result)
        assert result.testsRun == 4
        assert result.wasSuccessful(), result.errors + result.failures
