"""`save_pretrained` and `from_pretrained` of packed models."""

import copy
import json
import pickle
import shutil
import subprocess
import sys

import pytest
import torch
import transformers
from safetensors.torch import load_file, load_model
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    BertForSequenceClassification,
    BertModel,
    T5EncoderModel,
    T5ForSequenceClassification,
)

from smallfry import InputError, QuantEmbedding, quantize_embed
from smallfry.nn import TiedLinear
from tests.ecosystem.transformers import models
from tests.ecosystem.transformers.models import MODELS, assert_same, no_warnings, output


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_model_loads_as_the_same_model(name, tmp_path):
    model = quantize_embed(MODELS[name](), 4)
    with no_warnings():
        model.save_pretrained(tmp_path)
        loaded, report = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    assert any(isinstance(module, QuantEmbedding) for module in loaded.modules())
    assert_same(loaded, model)


@pytest.mark.parametrize("name", ["T5, tied", "BERT-MLM"])
def test_a_loaded_model_is_saved_again_and_keeps_its_ties(name, tmp_path):
    model = quantize_embed(MODELS[name](), 4)
    model.save_pretrained(tmp_path / "first")
    loaded = type(model).from_pretrained(tmp_path / "first")
    loaded.save_pretrained(tmp_path / "second")
    again = type(model).from_pretrained(tmp_path / "second")
    assert_same(again, model)
    head = again.get_output_embeddings()
    assert isinstance(head, TiedLinear) and head.embedding is again.get_input_embeddings()
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()


def test_a_table_is_saved_once(tmp_path):
    model = quantize_embed(models.t5(tied=True), 8)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    assert loaded.encoder.embed_tokens is loaded.decoder.embed_tokens is loaded.shared
    assert (tmp_path / "model.safetensors").stat().st_size < 160_000


TRELLIS = {"codebook_kind": "trellis", "trellis_state_bits": 12}


@pytest.mark.parametrize("nbit", [1, 2, 8, 16, 32])
def test_every_width(nbit, tmp_path):
    model = quantize_embed(models.gpt2(), nbit)
    model.save_pretrained(tmp_path)
    assert_same(type(model).from_pretrained(tmp_path), model)


@pytest.mark.parametrize(
    ("nbit", "options"), [(2, TRELLIS), (3, TRELLIS), (2, {"center": True}), (2, {"row_scale": True})]
)
def test_every_kind_of_table(nbit, options, tmp_path):
    model = quantize_embed(models.bert_mlm(), nbit, **options)
    model.save_pretrained(tmp_path)
    assert_same(type(model).from_pretrained(tmp_path), model)


def test_a_fresh_process_loads_the_model_through_an_auto_class(tmp_path):
    model = quantize_embed(models.gpt2(), 4)
    model.save_pretrained(tmp_path)
    torch.save(output(model), tmp_path / "expected.pt")
    code = f"""
import torch
import smallfry.transformers
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained({str(tmp_path)!r}).eval()
with torch.no_grad():
    logits = model(torch.tensor([[5, 2, 3, 0, 299]])).logits
assert torch.equal(logits, torch.load({str(tmp_path / "expected.pt")!r}))
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_smallfry_transformers_loading_raises(tmp_path):
    """The empty tensors that `save_pretrained` adds have the wrong size for float embeddings."""
    builders = MODELS | {"LLaVA": models.llava, "encoder and decoder": models.encoder_decoder}
    for name, build in builders.items():
        quantize_embed(build(), 4).save_pretrained(tmp_path / name)
    shutil.copytree(tmp_path / "BERT-MLM", tmp_path / "BERT, base")
    config = tmp_path / "BERT, base" / "config.json"
    config.write_text(config.read_text().replace("BertForMaskedLM", "BertModel"))
    code = f"""
import json, sys
from pathlib import Path
import pytest, transformers
for folder in Path({str(tmp_path)!r}).iterdir():
    (kind,) = json.loads((folder / "config.json").read_text())["architectures"]
    with pytest.raises(RuntimeError, match="size mismatch for weight|ignore_mismatched_sizes") as raised:
        getattr(transformers, kind).from_pretrained(folder)
    print(folder.name, raised.value, file=sys.stderr)
assert "smallfry" not in sys.modules
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert "Unknown quantization type, got smallfry" in process.stderr
    # transformers 5 names the tensor in a report, 4 its module's class in the error.
    assert "transformer.wte.weight" in process.stderr or "for Embedding" in process.stderr


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("GPT-2", torch.float16),
        ("GPT-2", torch.bfloat16),
        ("BERT-MLM", torch.bfloat16),
        ("T5, tied", torch.bfloat16),
    ],
)
def test_dtype_converts_the_output(name, dtype, tmp_path):
    model = quantize_embed(MODELS[name](), 4)
    model.save_pretrained(tmp_path / "float32")
    converted = type(model).from_pretrained(tmp_path / "float32", dtype=dtype)
    assert_same(converted, model.to(dtype))
    converted.save_pretrained(tmp_path / "half")
    with no_warnings():
        assert_same(type(model).from_pretrained(tmp_path / "half", dtype="auto"), converted)


@pytest.mark.parametrize("device_map", ["cpu", "auto"])
def test_device_map(device_map, tmp_path):
    model = quantize_embed(models.gpt2(), 4)
    model.save_pretrained(tmp_path)
    assert_same(type(model).from_pretrained(tmp_path, device_map=device_map), model)


@pytest.mark.parametrize("name", ["GPT-2", "BERT-MLM"])
def test_shards(name, tmp_path):
    model = quantize_embed(MODELS[name](), 4)
    with no_warnings():
        model.save_pretrained(tmp_path, max_shard_size="5KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert_same(type(model).from_pretrained(tmp_path, low_cpu_mem_usage=True), model)


def test_an_explicit_state_dict(tmp_path):
    model = quantize_embed(models.bert_mlm(), 4)
    state = model.state_dict()
    names = list(state)
    model.save_pretrained(tmp_path, state_dict=state)
    assert list(state) == names
    added = load_file(tmp_path / "model.safetensors").keys() - state.keys()
    assert added == {f"bert.embeddings.{name}_embeddings.weight" for name in ("word", "position")}
    assert_same(type(model).from_pretrained(None, config=model.config, state_dict=dict(state)), model)


def test_the_tensors_of_a_saved_model_load_into_a_packed_model(tmp_path):
    model = quantize_embed(models.gpt2(), 4)
    model.save_pretrained(tmp_path)
    other = quantize_embed(models.gpt2(), 4)
    load_model(other, tmp_path / "model.safetensors")
    assert_same(other, model)


def test_a_copy_and_a_part_of_a_model_are_saved_with_the_empty_tensors(tmp_path):
    model = quantize_embed(models.gpt2(), 4)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        nn.init.normal_(copied.transformer.ln_f.weight)
        copied.save_pretrained(tmp_path)
        assert len(load_file(tmp_path / "model.safetensors")["transformer.wte.weight"]) == 0
        assert_same(type(model).from_pretrained(tmp_path), copied)
    model.transformer.save_pretrained(tmp_path)
    assert len(load_file(tmp_path / "model.safetensors")["wte.weight"]) == 0


def test_a_base_model_and_a_task_model_load_from_each_other(tmp_path):
    model = quantize_embed(models.bert_mlm(), 4)
    model.save_pretrained(tmp_path / "task")
    base, report = BertModel.from_pretrained(
        tmp_path / "task", add_pooling_layer=False, output_loading_info=True
    )
    assert all(name.startswith("cls.") for name in report["unexpected_keys"])
    assert torch.equal(base.embeddings.word_embeddings.codes, model.bert.embeddings.word_embeddings.codes)
    base.save_pretrained(tmp_path / "base")
    task, report = BertForSequenceClassification.from_pretrained(tmp_path / "base", output_loading_info=True)
    assert not report["unexpected_keys"]
    assert torch.equal(task.bert.embeddings.word_embeddings.codes, base.embeddings.word_embeddings.codes)
    model.bert.save_pretrained(tmp_path / "part")
    part = AutoModel.from_pretrained(tmp_path / "part", add_pooling_layer=False)
    assert_same(part, model.bert)


@pytest.mark.parametrize("kind", [T5EncoderModel, T5ForSequenceClassification])
def test_other_classes_of_the_same_architecture_load_it(kind, tmp_path):
    model = quantize_embed(models.t5(tied=True), 4)
    model.save_pretrained(tmp_path)
    assert torch.equal(kind.from_pretrained(tmp_path).get_input_embeddings().codes, model.shared.codes)


@pytest.mark.parametrize("build", [models.llava, models.encoder_decoder, models.clip])
def test_composite_models(build, tmp_path):
    model = quantize_embed(build(), 4)
    model.save_pretrained(tmp_path)
    with no_warnings():
        loaded = type(model).from_pretrained(tmp_path)
    state, expected = loaded.state_dict(), model.state_dict()
    assert list(state) == list(expected)
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_tables_that_differ_in_scale_are_saved_once_after_a_move(tmp_path):
    model = quantize_embed(models.bart(scaled=True), 4)
    for module in model.modules():
        if isinstance(module, QuantEmbedding):  # as a move to another device does
            module._set(module.packed._replace(codes=module.packed.codes.clone()))
    model.load_state_dict(model.state_dict())
    model.save_pretrained(tmp_path)
    with no_warnings():
        assert_same(type(model).from_pretrained(tmp_path), model)


@pytest.mark.parametrize("offloaded", ["transformer.wte", "transformer.h"])
def test_disk_offload(offloaded, tmp_path):
    model = quantize_embed(models.gpt2(), 4)
    model.save_pretrained(tmp_path)
    names = ("transformer.wte", "transformer.wpe", "transformer.h", "transformer.ln_f", "lm_head")
    loaded = type(model).from_pretrained(
        tmp_path,
        device_map=dict.fromkeys(names, "cpu") | {offloaded: "disk"},
        offload_folder=tmp_path / "offload",
        offload_buffers=True,
    )
    assert torch.equal(output(loaded), output(model))


def test_a_half_precision_model_keeps_its_row_scale(tmp_path):
    model = quantize_embed(models.bert_mlm(), 2, row_scale=True)
    model.save_pretrained(tmp_path)
    if int(transformers.__version__.split(".")[0]) < 5:
        with pytest.raises(InputError, match=r"transformers 4 rounds .*row_scale"):
            type(model).from_pretrained(tmp_path, dtype=torch.bfloat16)
    else:
        loaded = type(model).from_pretrained(tmp_path, dtype=torch.bfloat16)
        assert_same(loaded, model.to(torch.bfloat16))


def test_a_missing_or_damaged_table_is_an_error(tmp_path):
    model = quantize_embed(models.gpt2(), 4)
    model.save_pretrained(tmp_path)
    state = model.state_dict()
    del state["transformer.wte.codes"]
    with pytest.raises(InputError, match=r"the checkpoint has no transformer\.wte\.codes"):
        type(model).from_pretrained(None, config=model.config, state_dict=dict(state))
    state["transformer.wte.codes"] = torch.zeros(3, 16, dtype=torch.uint8)
    with pytest.raises(InputError, match=r"transformer\.wte: codes is torch\.uint8 \[3, 16\]"):
        type(model).from_pretrained(None, config=model.config, state_dict=dict(state))


def test_a_head_tied_by_hand_stays_tied(tmp_path):
    model = models.llama(tied=False)
    model.lm_head.weight = model.model.embed_tokens.weight
    quantize_embed(model, 4).save_pretrained(tmp_path)
    with no_warnings():
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert_same(loaded, model)


def test_a_float_checkpoint_loaded_into_a_packed_model_is_saved(tmp_path):
    model = quantize_embed(models.gpt2(), 4)
    checkpoint = models.gpt2()
    nn.init.zeros_(checkpoint.transformer.wte.weight[7])
    model.load_state_dict(checkpoint.state_dict())
    assert model.transformer.wte.zero_rows is not None
    model.save_pretrained(tmp_path)
    with no_warnings():
        assert_same(type(model).from_pretrained(tmp_path), model)


def test_config_names_the_method_and_the_packed_modules(tmp_path):
    quantize_embed(models.gpt2(), {"transformer.wte": 4}).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["quantization_config"] == {
        "quant_method": "smallfry",
        "nbit": {"transformer.wte": 4},
        "parts": {},
        "tied": {"lm_head": "transformer.wte"},
    }
