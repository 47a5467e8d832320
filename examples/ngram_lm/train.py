"""Train the model and its table: AdamW for the model, row-wise Adagrad for the rows of a batch."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from examples.ngram_lm.model import LanguageModel, Size, ngrams

_WARMUP = 100
_SAVE_SECONDS = 300


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes
    ----------
    steps, batch : int
        Steps of `batch` sequences.
    rate, table_rate : float
        Highest learning rates of the model and of the table; see `schedule`.
    """

    steps: int = 2000
    batch: int = 4
    rate: float = 2e-3
    table_rate: float = 0.2


@dataclass
class Trained:
    """A model and its table, float32 ``[heads * rows, dim]``."""

    model: LanguageModel
    table: Tensor


def train(
    tokens: NDArray[np.int64],
    size: Size,
    recipe: Recipe,
    seed: int,
    checkpoint: Path,
    device: str = "cpu",
) -> Trained:
    """Train on the tokens, or continue from the checkpoint, which is replaced every five minutes.

    Raises
    ------
    ValueError
        The checkpoint has another size, recipe or seed.
    """
    torch.manual_seed(seed)
    model = LanguageModel(size).to(device)
    table = torch.zeros(size.table, device=device)
    squares = torch.zeros(len(table), device=device)
    optimizer = torch.optim.AdamW(model.parameters(), recipe.rate, (0.9, 0.95), weight_decay=0.1, fused=True)
    offsets = torch.from_numpy(size.offsets[:-1]).to(device)
    settings = {"size": asdict(size), "recipe": asdict(recipe), "seed": seed}
    state: dict[str, Any] = {"step": 0, "table": table, "squares": squares, "settings": settings}
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device)
        if state["settings"] != settings:
            raise ValueError(
                f"{checkpoint} was trained with {state['settings']}, expected {settings}. "
                "Remove it, or give another folder."
            )
        table, squares = state["table"], state["squares"]
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    saved = shown = time.monotonic()
    batches = windows(tokens, size, recipe.batch, seed)
    for step, (inputs, ids) in zip(range(recipe.steps), batches, strict=False):
        if step < state["step"]:
            continue
        factor = schedule(step, recipe.steps)
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate * factor
        inputs, ids = inputs.to(device), ids.to(device)
        ids = ids + offsets
        rows = table[ids].requires_grad_()
        with torch.autocast(device, torch.bfloat16):
            logits = model(inputs[:, :-1], rows)
            loss = F.cross_entropy(logits.flatten(0, 1).float(), inputs[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        assert rows.grad is not None
        update(table, squares, ids, rows.grad, recipe.table_rate * factor)
        now = time.monotonic()
        if now - saved > _SAVE_SECONDS or step + 1 == recipe.steps:
            saved = now
            parts = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            _save(checkpoint, {**state, "step": step + 1, **parts})
        if now - shown > 10 or step + 1 == recipe.steps:
            shown = now
            print(f"seed {seed}, step {step + 1} of {recipe.steps}: loss {loss.item():.3f}", flush=True)
    return Trained(model.eval(), table)


def update(table: Tensor, squares: Tensor, ids: Tensor, grad: Tensor, rate: float) -> None:
    """Apply row-wise Adagrad, in place: each row has one sum of squared gradients."""
    unique, inverse = ids.flatten().unique(return_inverse=True)
    summed = torch.zeros(len(unique), table.shape[1], device=table.device)
    summed.index_add_(0, inverse, grad.flatten(0, -2).float())
    squares[unique] += summed.square().mean(1)
    table[unique] -= rate * summed / (squares[unique].sqrt() + 1e-10)[:, None]


def windows(
    tokens: NDArray[np.int64], size: Size, batch: int, seed: int | None, every: int = 1
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield sequences ``[batch, length + 1]`` and the rows of all their tokens except the last.

    With a seed, shuffled and without end; otherwise one sequence of each `every` once and in order, with a
    smaller batch at the end.
    """
    count = (len(tokens) - 1) // size.length
    heads = ngrams(tokens, size)
    generator = None if seed is None else np.random.default_rng(seed)
    while True:
        order = np.arange(0, count, every) if generator is None else generator.permutation(count)
        for start in range(0, len(order) if generator is None else count - batch + 1, batch):
            at = order[start : start + batch, None] * size.length + np.arange(size.length + 1)
            yield torch.from_numpy(tokens[at]), torch.from_numpy(heads[at[:, :-1]])
        if generator is None:
            return


def schedule(step: int, steps: int) -> float:
    """Return the factor of the learning rates: linear warmup, constant, linear decay in the last quarter."""
    return min(1.0, (step + 1) / _WARMUP, 4 * (steps - step) / steps)


def _save(path: Path, state: dict[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)
