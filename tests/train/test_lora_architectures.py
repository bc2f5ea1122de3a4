"""Recipes on Qwen2, Llama with grouped queries, and Mistral; sharded, tied, `.bin`."""

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from harness.checkpoint import Checkpoint, check_fit
from harness.store import Store
from harness.train import experts
from harness.train.recipe import Train
from tests.families.stand_ins import stand_in
from tests.train.lora_family import Told, family_with


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A training file in the layout of safety-tuned-llamas."""
    file = tmp_path_factory.mktemp("data") / "safety_only_data_Instructions.json"
    rows = [
        {"instruction": f"how do i do harm {i} ?", "output": f"i will not {i} .", "input": ""}
        for i in range(16)
    ]
    file.write_text(json.dumps([*rows, {"instruction": "sum it up .", "input": "a b c", "output": "abc"}]))
    return file


def make(tmp_path, base, data, **given):
    train = Train(base=str(base), data=str(data), batch_size=8, warmup_steps=1, learning_rate=0.02, **given)
    family = family_with()
    expert = family.experts["task"].model_copy(update={"train": train})
    family = family.model_copy(update={"experts": {"task": expert}, "folder": tmp_path})
    store, screen = Store(tmp_path / "results", "f"), Told()
    experts.make(family, store, screen)
    return experts.steps(family, store)[0], screen


@pytest.mark.parametrize(
    ("kind", "how", "given"),
    [
        ("llama", {"shards": 3}, {}),
        ("mistral", {}, {"targets": "all-linear", "template": "chat", "loss_on": "completion"}),
        ("qwen2", {"tied": True}, {"targets": ["q_proj", "gate_proj"], "gradient_checkpointing": True}),
        ("llama", {}, {"targets": ["v_proj", "lm_head"]}),
    ],
)
def test_trained_and_merged(tmp_path, data, kind, how, given):
    base = stand_in(tmp_path / "base", kind, **how)
    step, screen = make(tmp_path, base, data, **given)
    assert screen.steps[-1] == 7  # 17 rows, three times, in batches of 8
    model, start = Checkpoint.open(step.model), Checkpoint.open(base)
    assert model.tensors.keys() == start.tensors.keys() and not check_fit(start, {"task": model})
    assert (model.tied, model.config) == (start.tied, start.config)
    adapted = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    expected = (
        PeftModel.from_pretrained(adapted, step.folder.path / "adapter").merge_and_unload().state_dict()
    )
    loaded, report = AutoModelForCausalLM.from_pretrained(
        step.model, dtype=torch.bfloat16, output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    for name, value in loaded.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=2**-7, atol=2**-12)


def test_a_base_of_pickled_weights_is_converted_first(tmp_path, data):
    base = stand_in(tmp_path / "base", "qwen2")
    torch.save(load_file(base / "model.safetensors"), base / "pytorch_model.bin")
    plain, _ = make(tmp_path / "plain", base, data)
    (base / "model.safetensors").unlink()
    step, _ = make(tmp_path, base, data)
    found, expected = (load_file(s.model / "model.safetensors") for s in (step, plain))
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_head_that_is_the_embedding_is_no_target(tmp_path, data):
    base = stand_in(tmp_path / "base", "qwen2", tied=True)
    with pytest.raises(Exception, match="`targets` names `lm_head`"):
        make(tmp_path, base, data, targets=["lm_head"])
