import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.library import opcheck

from smallfry.errors import SfqError
from smallfry.nn import StoreEmbedding, stores
from smallfry.nn.kernels.gather import gather, gather_out
from smallfry.sfq import file as sfq
from tests.helpers.tables import random_table

ROOT = Path(__file__).resolve().parents[4]
CPU = torch.device("cpu")
IDS = torch.tensor([[3, 149], [3, 0]])


@pytest.fixture
def opened(tmp_path):
    sfq.write(tmp_path / "table.sfq", random_table(150, 32, 3, "trellis", parts=("row_scale",)).paged())
    return stores.share(tmp_path / "table.sfq")


def rows_at(ids, opened, dtype=torch.float32):
    return gather(ids, str(opened.path), opened.digest, opened.dim, dtype, CPU)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("ids", [IDS, IDS.int(), IDS.T, IDS[0, 0], IDS[:0]], ids=lambda ids: str(ids.shape))
def test_rows_are_those_of_the_store(opened, ids, dtype):
    expected = torch.from_numpy(opened.rows(ids.reshape(-1).numpy())).reshape(*ids.shape, 32).to(dtype)
    assert torch.equal(rows_at(ids, opened, dtype), expected)
    out = torch.empty_like(expected, memory_format=torch.contiguous_format)
    gather_out(ids, str(opened.path), opened.digest, out)
    assert torch.equal(out, expected)


def test_operators_are_registered_as_torch_requires(opened):
    table = str(opened.path), opened.digest
    opcheck(gather, (IDS, *table, 32, torch.bfloat16, CPU))
    opcheck(gather_out, (IDS, *table, torch.empty(2, 2, 32)))


def test_compiled_graphs_of_any_shape_are_whole(opened):
    def double(ids):
        return rows_at(ids, opened) * 2

    compiled = torch.compile(double, fullgraph=True, backend="aot_eager", dynamic=True)
    for count in (2, 5):
        ids = torch.arange(count * 3).reshape(count, 3)
        assert torch.equal(compiled(ids), rows_at(ids, opened) * 2)


def test_compiled_graphs_write_to_the_tensor_that_they_are_given(opened):
    def double(ids, out):
        gather_out(ids, str(opened.path), opened.digest, out)
        return out * 2

    out = torch.zeros(2, 2, 32)
    doubled = torch.compile(double, fullgraph=True, backend="aot_eager")(IDS, out)
    assert torch.equal(out, rows_at(IDS, opened))
    assert torch.equal(doubled, 2 * out)


def test_vmap_over_ids_is_one_gather(opened):
    assert torch.equal(torch.vmap(lambda ids: rows_at(ids, opened))(IDS), rows_at(IDS, opened))


def test_operators_split_cuda_graphs():
    assert all(torch.Tag.cudagraph_unsafe in operator.tags for operator in (gather, gather_out))


class Lookup(torch.nn.Module):
    def __init__(self, opened):
        super().__init__()
        self.table = str(opened.path), opened.digest, opened.dim

    def forward(self, ids):
        return gather(ids, *self.table, torch.float32, CPU)


def test_exported_program_opens_the_file_in_a_new_process(opened, tmp_path):
    program = torch.export.export(Lookup(opened), (IDS,))
    torch.export.save(program, tmp_path / "program.pt2")
    torch.save(IDS, tmp_path / "ids.pt")
    code = (
        "import torch, smallfry.nn; program = torch.export.load('program.pt2').module(); "
        "torch.save(program(torch.load('ids.pt')), 'rows.pt')"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environ, check=True, timeout=120)
    assert torch.equal(torch.load(tmp_path / "rows.pt"), rows_at(IDS, opened))


def test_file_that_was_replaced_is_an_error(opened):
    with pytest.raises(SfqError, match="was replaced by another file"):
        gather(IDS, str(opened.path), "0" * 64, 32, torch.float32, CPU)


def test_file_is_opened_once_and_forgotten_with_its_last_module(opened):
    key = str(opened.path), opened.digest
    assert stores.share(opened.path) is stores.find(*key) is opened
    moved = opened.path.rename(opened.path.with_name("moved.sfq"))
    module = StoreEmbedding(moved)
    key = module.path, module.digest
    assert stores._shared[key] is module.store
    del module
    assert key not in stores._shared


def test_id_out_of_range_is_an_index_error(opened):
    with pytest.raises(IndexError, match="150"):
        rows_at(torch.tensor([3, 150]), opened)


def test_values_have_no_gradient_and_no_memory_on_meta(opened):
    assert not rows_at(IDS, opened).requires_grad
    rows = rows_at(IDS.to("meta"), opened)
    assert rows.is_meta
    assert rows.shape == (2, 2, 32)
