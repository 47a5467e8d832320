import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from smallfry import QuantEmbedding
from smallfry.nn import quantize


class Float32(TorchDispatchMode):
    """Remembers the largest float32 tensor that torch makes."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float32:
                self.largest = max(self.largest, tensor.numel())
        return made


def test_a_table_is_built_a_chunk_of_float32_at_a_time(monkeypatch):
    monkeypatch.setattr(quantize, "_CHUNK_VALUES", 16 * 10)
    weight = torch.randn(500, 16).half()
    with Float32() as made:
        QuantEmbedding(500, 16, _weight=weight, nbit=2)
    assert 0 < made.largest <= 16 * 10
