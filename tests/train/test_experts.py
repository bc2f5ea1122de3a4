"""Experts by recipe in the store: trained once, rebuilt from the adapter, errors before any work."""

import collections
import json
import shutil
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from harness.checkpoint import fingerprint
from harness.errors import HarnessError
from harness.families import tiny
from harness.family import parse_family
from harness.store import Store
from harness.train import experts, loop
from harness.train.recipe import RECORDED, Train
from tests.train.lora_family import SMALL, Told, content, family_with, made


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    results, screen = tmp_path_factory.mktemp("first"), Told()
    family, step = made(results, screen)
    return results, family, step, screen


def test_the_expert_is_a_model_in_the_store(first):
    results, family, step, screen = first
    assert family.experts["task"].train is None and family.label("task") == "safety"
    assert family.model_path("task") == step.model == step.folder.path.resolve() / "model"
    assert step.folder.path.parent == results / "tiny" / "experts"
    assert step.folder.path.name == f"task--{step.key[:8]}" and step.folder.recipe()["key"] == step.key
    names = {path.name for path in step.folder.path.iterdir()}
    assert names == {"recipe.yaml", "model", "adapter", "loss.jsonl", "done.json", ".lock"}
    record = step.folder.done()
    assert (record["steps"], record["rows"], record["resumed"]) == (6, 24, 0)
    assert record["seconds"].keys() == {"train", "merge"} and record["targets"] == ["q_proj", "v_proj"]
    assert screen.steps == list(range(7)) and screen.results[0].startswith("6 steps · loss ")


def test_the_second_run_trains_nothing(first):
    results, _, step, _ = first
    before, screen = content(step.folder.path), Told()
    made(results, screen)
    assert not screen.steps and not screen.results and content(step.folder.path) == before
    assert not experts.pending(family_with(), Store(results, "tiny"))


def test_deleted_weights_are_rebuilt_from_the_adapter(first):
    results, _, step, _ = first
    before, screen = fingerprint(step.model), Told()
    shutil.rmtree(step.model)
    assert experts.pending(family_with(), Store(results, "tiny"))
    made(results, screen)
    assert fingerprint(step.model) == before and not screen.steps
    assert screen.results == ["rebuilt from its adapter"]
    assert step.folder.done()["steps"] == 6


def test_the_key_is_of_settings_base_and_rows(tmp_path, first):
    results, _, step, _ = first
    store = Store(results, "tiny")

    def key(**given):
        return experts.steps(family_with(**given), store)[0].key

    assert key(micro_batch_size=2, gradient_checkpointing=True, placement="layers") == step.key
    others = [{"r": 5}, {"seed": 1}, {"n": 25}, {"base": "tiny/reasoning"}, {"template": "chat"}]
    assert len({step.key, *(key(**given) for given in others)}) == 1 + len(others)
    (tmp_path / "rows.json").write_text(json.dumps([row._asdict() for row in step.rows]))
    same = {"data": str(tmp_path / "rows.json"), "name": None, "question": "{question}", "input": "{input}"}
    assert key(**same, completion="{completion}") != step.key  # the templates are settings


def test_each_setting_is_in_the_key_or_recorded():
    """A test fails until a new one is put somewhere."""
    given = {"base", "data", "name", "split", "n"}  # count by content
    train = Train(base="b", data="d")
    assert {*train.identity, *RECORDED, *given} == set(Train.model_fields)
    assert not set(train.identity) & {*RECORDED, *given}
    assert all(field.description for field in Train.model_fields.values())


@pytest.mark.parametrize(
    ("given", "message", "hint"),
    [
        (
            {"targets": ["q_proj", "v_prj"]},
            "`targets` names `v_prj`, and base has no such module",
            "`v_proj`",
        ),
        ({"targets": ["lm_head"]}, "`targets` names `lm_head`", "known"),
        ({"n": 5}, "gives 5 rows, and batch_size is 8", "lower `batch_size:`"),
        (
            {"warmup_steps": 6},
            "warmup_steps is 6, and 24 rows in batches of 8 give 6 steps",
            "raise `epochs:`",
        ),
        ({"base": "./nowhere"}, "no checkpoint at", "a folder with config.json"),
        ({"data": "gone.json"}, "no training data at", "relative paths"),
    ],
)
def test_what_cannot_work_is_told_before_any_work(tmp_path, given, message, hint):
    with pytest.raises(HarnessError) as caught:
        made(tmp_path, **given)
    assert caught.value.message.startswith("expert `task`: ") and message in caught.value.message
    assert hint in caught.value.hint
    assert not list(tmp_path.glob("tiny/experts/*/training"))


def test_a_disk_too_small(tmp_path, monkeypatch):
    space = collections.namedtuple("space", "f_bavail f_frsize")
    monkeypatch.setattr("harness.checkpoint.write.os.statvfs", lambda path: space(10, 1024))
    with pytest.raises(
        HarnessError, match="expert `task`: .* needs 18.7 MB and its disk has 0.0 MB free"
    ) as e:
        made(tmp_path)
    assert "--results DIR" in e.value.hint


def test_a_memory_too_small(tmp_path, monkeypatch):
    free = collections.namedtuple("free", "available")
    monkeypatch.setattr("psutil.virtual_memory", lambda: free(1_000_000))
    with pytest.raises(HarnessError, match="takes 0.0 GB of memory and more, and this machine has 0.0 GB"):
        made(tmp_path)


def test_a_target_may_name_one_layer(tmp_path):
    _, step = made(tmp_path, targets=["layers.1.self_attn.q_proj"])
    from safetensors import safe_open

    with safe_open(step.folder.path / "adapter" / "adapter_model.safetensors", "np") as held:
        assert len(list(held.keys())) == 2 and all("layers.1.self_attn.q_proj" in key for key in held.keys())
    assert step.folder.done()["targets"] == ["layers.1.self_attn.q_proj"]


def test_more_processes_than_gpus(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(HarnessError, match="`processes` is 4, and this machine has 1 GPU") as caught:
        made(tmp_path, processes=4)
    assert "`processes: 1`" in caught.value.hint


def test_a_gpu_that_is_full(tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")

    monkeypatch.setattr("harness.train.lora.fit", full)
    with pytest.raises(HarnessError, match="expert `task`: the memory of a GPU does not suffice: CUDA") as e:
        made(tmp_path)
    assert all(key in e.value.hint for key in ("micro_batch_size", "gradient_checkpointing", "layers"))


def test_a_loss_that_is_not_finite(tmp_path):
    """Of a base with a weight that is none: what overflows where the rate is too high depends on the CPU."""
    base = shutil.copytree(Path(tiny.__file__).parent / "base", tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    weights["model.norm.weight"][0] = torch.nan
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(HarnessError, match="expert `task`: at step 0 the loss is nan"):
        made(tmp_path / "results", base=str(base))
    folder = next((tmp_path / "results" / "tiny" / "experts").iterdir())
    assert "the loss is" in (folder / "error.txt").read_text() and not (folder / "done.json").exists()


def test_a_training_of_other_versions_is_not_gone_on_with(tmp_path, first, monkeypatch):
    def stop(done):
        if done == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "SECONDS", 0.0)
    monkeypatch.setattr(loop, "TIMES", 0.0)
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path, Told(stop))
    folder = next((tmp_path / "tiny" / "experts").iterdir())
    (folder / "training" / ".key").write_text("of other code")
    screen = Told()
    _, step = made(tmp_path, screen)
    assert any("begun by other versions" in note for note in screen.notes)
    assert content(step.folder.path) == content(first[2].folder.path) and screen.steps[0] == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"r": 0}, "greater than or equal to 1"),
        ({"dropout": 1.0}, "less than 1"),
        ({"question": "no column"}, "names no column"),
        ({"completion": "{a"}, "not a format string"),
        ({"targets": []}, "`targets` is empty"),
        ({"placement": "layers", "processes": 2}, "one copy of the model"),
        ({"lora_r": 8}, "Extra inputs"),
        ({"dtype": "int8"}, "'bfloat16' or 'float32'"),
    ],
)
def test_settings_out_of_range(given, message):
    with pytest.raises(ValidationError, match=message):
        Train(**{**SMALL, **given})


def test_the_defaults_are_those_of_the_safety_tuned_script():
    train = Train(base="b", data="d")
    found = (train.r, train.alpha, train.dropout, train.targets, train.epochs, train.batch_size)
    assert found == (8, 16, 0.05, ("q_proj", "v_proj"), 3, 128)
    assert (train.micro_batch_size, train.learning_rate, train.warmup_steps) == (4, 3e-4, 10)
    assert (train.max_tokens, train.template, train.loss_on, train.weight_decay) == (256, "alpaca", "all", 0)
    assert train.steps(2483) == 59


def test_a_family_file_names_file_line_and_key(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "extends: tiny-safety\ntitle: t\nexperts:\n  task:\n    train:\n      base: b\n      data: d.json\n"
        "      lerning_rate: 1e-4\n"
    )
    with pytest.raises(
        HarnessError, match=r"mine.yaml:8: unknown key `experts.task.train.lerning_rate`"
    ) as e:
        parse_family(file)
    assert "learning_rate" in e.value.hint
