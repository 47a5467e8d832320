r"""Train language models with a hashed n-gram table, and measure what compressing only the table costs them.

    python -m examples.ngram_lm --seeds 0,1,2 --folder build/ngram_lm --results results.jsonl

The model is trained at full precision, once per seed; nothing is fine-tuned. Appends a line of JSON for each
seed and method, and prints a Markdown table of the means. Training resumes from the checkpoint in the folder,
and seeds that the results have are not repeated. Several processes may share a folder that has the corpus.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from examples.ngram_lm import corpus
from examples.ngram_lm.evaluate import evaluate
from examples.ngram_lm.model import Size
from examples.ngram_lm.tables import METHODS, compress
from examples.ngram_lm.train import Recipe, Trained, train, windows

_BATCH = 16


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    args = _arguments().parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    size = Size(args.vocabulary, args.hidden, args.layers, rows=args.rows, dim=args.dim)
    recipe = replace(Recipe(), steps=args.steps, batch=args.batch)
    args.folder.mkdir(parents=True, exist_ok=True)
    text = corpus.cached(args.folder, args.roots or corpus.ROOTS, args.megabytes, size.vocabulary)
    print(f"{len(text.files)} files: {len(text.training)} training, {len(text.validation)} validation tokens")
    for seed in map(int, args.seeds.split(",")):
        if seed in {run["seed"] for run in read(args.results)}:
            continue
        checkpoint = args.folder / f"seed-{seed}.pt"
        trained = train(text.training, size, recipe, seed, checkpoint, args.device)
        runs = scores(
            trained, text, size, args.methods.split(","), args.validation, args.folder / f"seed-{seed}"
        )
        with args.results.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps({"seed": seed, **run}) + "\n" for run in runs)
    print(table(read(args.results)))


def scores(
    trained: Trained, text: corpus.Corpus, size: Size, methods: Sequence[str], tokens: int, folder: Path
) -> list[dict[str, Any]]:
    """Return the scores of each method, and those of the table as it is and of zeros."""
    folder.mkdir(exist_ok=True)
    rows = trained.table.cpu()
    offsets = torch.from_numpy(size.offsets[:-1])
    compressed = {name: compress(name, rows, size, folder) for name in methods}
    every = max(1, len(text.validation) // tokens)
    found = evaluate(
        trained.model,
        lambda ids: rows[ids + offsets],
        {"zeros": lambda ids: torch.zeros(*ids.shape, size.dim)}
        | {name: each.gather for name, each in compressed.items()},
        windows(text.validation, size, _BATCH, None, every),
        next(trained.model.parameters()).device.type,
    )
    nbytes = {"full": 4 * rows.numel(), "zeros": 0} | {name: each.nbytes for name, each in compressed.items()}
    return [
        {"method": name, "bytes_per_row": nbytes[name] / len(rows), "perplexity": score.perplexity}
        | asdict(score)
        for name, score in found.items()
    ]


def read(results: Path) -> list[dict[str, Any]]:
    """Read the results; none if the file does not exist."""
    return [json.loads(line) for line in results.read_text("utf-8").splitlines()] if results.exists() else []


def table(runs: Iterable[dict[str, Any]]) -> str:
    """Return a Markdown table: means over the seeds, and their standard deviations."""
    by_method: dict[str, list[dict[str, Any]]] = {}
    full: dict[int, float] = {}
    for run in runs:
        by_method.setdefault(run["method"], []).append(run)
        if run["method"] == "full":
            full[run["seed"]] = run["loss"]
    columns = ["bits, method", "seeds", "bytes per row", "error", "perplexity", "change of the loss", "KL"]
    lines = [f"| {' | '.join(columns)} |", f"|---{'|--:' * (len(columns) - 1)}|"]
    for name, found in by_method.items():
        cells = [
            name,
            str(len(found)),
            f"{found[0]['bytes_per_row']:.1f}",
            f"{statistics.mean(run['error'] for run in found):.3f}",
            _mean([run["perplexity"] for run in found], 2),
            _mean([run["loss"] - full[run["seed"]] for run in found], 4),
            _mean([run["divergence"] for run in found], 4),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean(values: Sequence[float], digits: int) -> str:
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{deviation}"


def _arguments() -> argparse.ArgumentParser:
    size, recipe = Size(), Recipe()
    parser = argparse.ArgumentParser(
        prog="python -m examples.ngram_lm", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--seeds", default="0,1,2", help="seeds, with commas (0,1,2)")
    parser.add_argument("--folder", type=Path, required=True, help="for the corpus, checkpoints and tables")
    parser.add_argument("--results", type=Path, required=True, help="scores, lines of JSON")
    parser.add_argument("--methods", default=",".join(METHODS), help=f"with commas ({','.join(METHODS)})")
    parser.add_argument(
        "--roots", type=Path, nargs="*", help="folders of text (Python's library, /usr/share)"
    )
    parser.add_argument("--megabytes", type=float, default=5, help="million characters of each root (5)")
    parser.add_argument("--validation", type=int, default=50_000, help="about this many tokens (50000)")
    parser.add_argument("--threads", type=int, help="threads of torch")
    parser.add_argument("--device", default="cpu", help="where to train and evaluate (cpu)")
    for name, value, what in (
        ("steps", recipe.steps, "training steps"),
        ("batch", recipe.batch, f"sequences of {size.length} tokens per step"),
        ("vocabulary", size.vocabulary, "tokens of the vocabulary, 65536 at most"),
        ("hidden", size.hidden, "width of the model"),
        ("layers", size.layers, "transformer blocks"),
        ("rows", size.rows, f"rows of each of the {len(size.orders)} heads of the table"),
        ("dim", size.dim, "values in a row"),
    ):
        parser.add_argument(f"--{name}", type=int, default=value, help=f"{what} ({value})")
    return parser


if __name__ == "__main__":
    main()
