"""`Trainer` on packed models: the layers other than the embeddings train."""

import copy

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from smallfry import quantize_embed
from tests.ecosystem.transformers import models
from tests.ecosystem.transformers.models import assert_same


class Tokens(Dataset):
    """Four sequences of eight tokens."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        ids = (torch.arange(8) * (index + 3)) % 300
        return {"input_ids": ids, "labels": ids}


def trainer(model, folder, **arguments):
    arguments = TrainingArguments(
        str(folder),
        per_device_train_batch_size=2,
        learning_rate=0.01,
        save_strategy="steps",
        save_steps=1,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        **{"max_steps": 4} | arguments,
    )
    return Trainer(model=model, args=arguments, train_dataset=Tokens(), eval_dataset=Tokens())


@pytest.fixture(params=["quantized", "loaded"])
def model(request, tmp_path):
    model = quantize_embed(models.gpt2(), 4)
    if request.param == "loaded":
        model.save_pretrained(tmp_path / "model")
        model = type(model).from_pretrained(tmp_path / "model")
    return model


def test_a_resumed_run_equals_one_without_interruption(model, tmp_path):
    resumed = copy.deepcopy(model)
    start = copy.deepcopy(model)
    trainer(model, tmp_path / "whole").train()
    assert not torch.equal(model.transformer.h[0].mlp.c_fc.weight, start.transformer.h[0].mlp.c_fc.weight)
    assert torch.equal(model.transformer.wte.codes, start.transformer.wte.codes)
    trainer(resumed, tmp_path / "whole").train(
        resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2")
    )
    assert_same(resumed, model)
    checkpoint = tmp_path / "whole" / "checkpoint-4"
    assert_same(type(model).from_pretrained(checkpoint), model)
    assert len(load_file(checkpoint / "model.safetensors")["transformer.wte.weight"]) == 0


def test_the_best_model_is_loaded_at_the_end(tmp_path):
    model = quantize_embed(models.gpt2(), 4)
    options = {"eval_strategy": "steps", "eval_steps": 1, "load_best_model_at_end": True}
    # The highest loss, so that the best model is not the last.
    run = trainer(model, tmp_path, max_steps=3, greater_is_better=True, **options)
    run.train()
    assert run.state.best_model_checkpoint.endswith("checkpoint-1")
    assert_same(model, type(model).from_pretrained(tmp_path / "checkpoint-1"))
