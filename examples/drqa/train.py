"""Train the reader on SQuAD over fixed word vectors, score it, print one line of JSON.

    python -m examples.drqa.train --data dev-v1.1.json.gz --embeddings vectors.npy --words words.txt --nbit 2

The same arguments on the same machine give the same result. An interrupted run resumes from its checkpoint.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional as F
from tqdm import tqdm

from examples.codings import CODINGS
from examples.drqa import metric, squad, vectors
from examples.drqa.batches import FEATURES, Dataset
from examples.drqa.model import Reader, best_spans
from examples.drqa.squad import Question
from smallfry.table import NBITS

_WARMUP_STEPS = 100
_MAX_GRADIENT_NORM = 10.0


@dataclass(frozen=True)
class Preset:
    """Size of the model and length of its training.

    Attributes
    ----------
    hidden, layers : int
        Units of one direction of one LSTM layer; layers.
    epochs, batch : int
        Passes over the training questions; questions in a step.
    learning_rate : float
        Learning rate of Adamax after a short warm-up; it decays linearly to zero.
    dropout : float
        See `model.Reader`.
    longest_passage : int
        Training questions about longer passages are skipped. All test questions are used.
    questions : int or None
        Maximum number of questions in each of training and test set.
    """

    hidden: int
    epochs: int
    batch: int
    learning_rate: float
    dropout: float
    longest_passage: int
    layers: int = 3
    questions: int | None = None


PRESETS = {
    "smoke": Preset(8, epochs=2, batch=8, learning_rate=8e-3, dropout=0.2, longest_passage=200, questions=64),
    "cpu": Preset(32, epochs=5, batch=16, learning_rate=8e-3, dropout=0.2, longest_passage=400),
    "full": Preset(128, epochs=40, batch=32, learning_rate=2e-3, dropout=0.4, longest_passage=1000),
}


class Trainer:
    """A reader with its optimizer and random state, which can be saved after each epoch.

    Parameters
    ----------
    reader : Reader
    train : Dataset
        Training questions; none about a passage longer than the preset allows.
    preset : Preset
    seed : int
        Seed of batch order and dropout.
    checkpoint : Path or None
        File of the state, saved after each epoch and loaded if it exists.
    """

    def __init__(
        self, reader: Reader, train: Dataset, preset: Preset, seed: int, checkpoint: Path | None = None
    ) -> None:
        self.reader, self.train, self.preset, self.checkpoint = reader, train, preset, checkpoint
        self.seed = seed
        self.losses: list[float] = []
        self.order = torch.Generator().manual_seed(seed)
        trained = [p for p in reader.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adamax(trained, lr=preset.learning_rate)
        steps = preset.epochs * -(-len(train) // preset.batch)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: min(1.0, (step + 1) / _WARMUP_STEPS) * max(0.0, 1 - step / steps)
        )
        if checkpoint is not None and checkpoint.exists():
            self._load(checkpoint)

    def run(self, epochs: int | None = None) -> float:
        """Train up to epoch `epochs` (default: the preset's); return the mean loss of the last epoch."""
        while len(self.losses) < (self.preset.epochs if epochs is None else epochs):
            self.losses.append(self._run_epoch())
            if self.checkpoint is not None:
                self._save(self.checkpoint)
        return self.losses[-1]

    def _run_epoch(self) -> float:
        self.reader.train()
        device = next(self.reader.parameters()).device
        losses = []
        batches = list(self.train.batches(self.preset.batch, self.order))
        for batch in tqdm(batches, desc=f"epoch {len(self.losses) + 1}/{self.preset.epochs}", disable=None):
            start, end = self.reader(*(t.to(device) for t in (batch.passage, batch.features, batch.question)))
            first, last = batch.target.to(device).unbind(1)
            loss = F.cross_entropy(start, first) + F.cross_entropy(end, last)
            self.optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.reader.parameters(), _MAX_GRADIENT_NORM)
            self.optimizer.step()
            self.schedule.step()
            losses.append(loss.item())
        return sum(losses) / len(losses)

    def _save(self, path: Path) -> None:
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        state = {
            "made_with": self._fingerprint(),
            "losses": self.losses,
            "reader": {k: v for k, v in self.reader.state_dict().items() if not k.startswith("embedding.")},
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "random": [self.order.get_state(), torch.get_rng_state(), *cuda],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, path)

    def _load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        saved, current = state.get("made_with", {}), self._fingerprint()
        differing = [name for name, value in current.items() if saved.get(name) != value]
        if differing:
            raise ValueError(
                f"{path} was made with another {' and another '.join(differing)}. "
                "Remove it to start over, or use the same arguments."
            )
        self.losses = state["losses"]
        self.reader.load_state_dict(state["reader"], strict=False)
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        order, cpu, *cuda = state["random"]
        self.order.set_state(order)
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)

    def _fingerprint(self) -> dict[str, object]:
        """Return everything that determines a run; vectors and questions as digests."""
        vectors, questions = hashlib.sha256(), hashlib.sha256()
        for tensor in self.reader.embedding.state_dict().values():
            vectors.update(tensor.cpu().numpy())
        for question in self.train.questions:
            questions.update(question.key.encode() + b"\0")
        return {
            "preset": dataclasses.asdict(self.preset),
            "seed": self.seed,
            "set of vectors": vectors.hexdigest(),
            "set of questions": questions.hexdigest(),
        }


def predict(reader: Reader, dataset: Dataset, batch: int = 32) -> dict[str, str]:
    """Return the reader's answer to each question, by the question's id."""
    reader.eval()
    device = next(reader.parameters()).device
    answers = {}
    with torch.inference_mode():
        for group in tqdm(list(dataset.batches(batch)), desc="answer", disable=None):
            logits = reader(*(t.to(device) for t in (group.passage, group.features, group.question)))
            for question, span in zip(group.questions, best_spans(*logits), strict=True):
                answers[question.key] = question.passage.slice(*span)
    return answers


def questions(data: Path, test: Path | None) -> tuple[list[Question], list[Question]]:
    """Return training and test questions, from two files or from the split development set."""
    articles = squad.read(data)
    if test is None:
        return squad.split(articles)
    return [q for qs in articles.values() for q in qs], [q for qs in squad.read(test).values() for q in qs]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    args = _arguments().parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    preset = PRESETS[args.preset]
    train, test = questions(args.data, args.test)
    train = [q for q in train if len(q.passage.tokens) <= preset.longest_passage][: preset.questions]
    test = test[: preset.questions]

    embedding, rows, dim = vectors.load(args.embeddings, args.words, args.nbit, CODINGS[args.coding])
    torch.manual_seed(args.seed)
    reader = Reader(embedding, dim, FEATURES, preset.hidden, preset.layers, preset.dropout).to(args.device)
    began = time.process_time()
    trainer = Trainer(reader, Dataset(train, rows), preset, args.seed, args.checkpoint)
    loss = trainer.run()
    predictions = predict(reader, Dataset(test, rows))
    if args.predictions:
        args.predictions.write_text(json.dumps(predictions, ensure_ascii=False), "utf-8")
    result = {
        "preset": args.preset,
        "coding": f"{args.nbit} {args.coding}",
        "seed": args.seed,
        **metric.score(predictions, {q.key: q.answers for q in test}),
        "loss": loss,
        "train_questions": len(train),
        "test_questions": len(test),
        "cpu_seconds": round(time.process_time() - began, 1),
    }
    print(json.dumps(result), flush=True)


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="SQuAD 1.1 JSON, plain or .gz")
    parser.add_argument("--test", type=Path, help="test on this file (default: split --data by article)")
    parser.add_argument("--embeddings", type=Path, required=True, help="word vectors")
    parser.add_argument("--words", type=Path, help="their words, one a line, if the vectors have none")
    parser.add_argument("--nbit", type=int, default=32, choices=NBITS, help="bits a value")
    parser.add_argument("--coding", default="uniform", choices=tuple(CODINGS), help="coding (uniform)")
    parser.add_argument("--preset", choices=tuple(PRESETS), default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--checkpoint", type=Path, help="save the state here after each epoch; resume from it"
    )
    parser.add_argument("--predictions", type=Path, help="write the answers to this file as SQuAD JSON")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, help="number of torch threads")
    return parser


if __name__ == "__main__":
    main()
