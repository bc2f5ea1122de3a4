"""The LoRA against oracles: gradients row by row, PEFT's own merge, any split of a batch."""

import json
import time
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from harness.checkpoint import fingerprint
from harness.errors import HarnessError
from harness.family import load_family
from harness.train import loop, lora, rows, samples
from harness.train.recipe import Train
from tests.train.killing import killed
from tests.train.lora_family import SMALL, Told, content, family_with, made, train_until

STILL = {"dropout": 0.0}


def adapter(step) -> dict[str, torch.Tensor]:
    return load_file(step.folder.path / "adapter" / "adapter_model.safetensors")


def model_of(step, folder="model"):
    return load_file(step.folder.path / folder / "model.safetensors")


@pytest.fixture(scope="module")
def base():
    return load_family("tiny-safety").model_path("base")


@pytest.fixture(scope="module")
def still(tmp_path_factory):
    return made(tmp_path_factory.mktemp("still"), **STILL)[1]


def test_the_first_gradient_is_that_of_the_mean_over_all_learned_tokens(base, tmp_path, monkeypatch):
    """By transformers' own loss, row by row and unpadded, weighted by hand."""
    train = Train(**{**SMALL, **STILL, "loss_on": "completion"})
    encoded = samples.encode(rows.load(train, tmp_path), train, base).samples
    kept = {}

    class Stop(Exception):
        pass

    def first_step(model, gradients, count, schedule, folder, **_):
        batch = loop.rows_of(0, 8, count, 0)
        kept["loss"] = gradients(0, batch)["loss"]
        kept["found"] = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
        model.zero_grad()
        total = sum(len(encoded[row].tokens) - encoded[row].given for row in batch)
        for row in batch:
            tokens = torch.tensor([encoded[row].tokens])
            labels = tokens.clone()
            labels[:, : encoded[row].given] = -100
            n = len(encoded[row].tokens) - encoded[row].given
            (model(input_ids=tokens, labels=labels).loss * n / total).backward()
        kept["expected"] = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
        raise Stop

    monkeypatch.setattr(lora.loop, "optimize", first_step)
    with pytest.raises(Stop):
        lora.fit(base, train, ["q_proj", "v_proj"], encoded, tmp_path, lambda *_: None)
    assert len(kept["found"]) == 16  # A and B of two modules in four layers
    for name, value in kept["expected"].items():
        torch.testing.assert_close(kept["found"][name], value, rtol=1e-4, atol=1e-6)
    assert any(value.abs().max() > 1e-3 for value in kept["expected"].values())


@pytest.mark.parametrize("size", [1, 3, 8])
def test_the_size_of_a_micro_batch_changes_nothing_but_the_order_of_additions(tmp_path, still, size):
    _, step = made(tmp_path, **STILL, micro_batch_size=size)
    assert step.folder.path.name == still.folder.path.name  # it is in no key
    for name, value in adapter(still).items():
        torch.testing.assert_close(adapter(step)[name], value, rtol=1e-3, atol=2e-5)


def test_checkpointed_gradients_are_the_same(tmp_path, still):
    _, step = made(tmp_path, **STILL, gradient_checkpointing=True)
    for name, value in adapter(still).items():
        torch.testing.assert_close(adapter(step)[name], value, rtol=1e-4, atol=1e-6)


def test_bfloat16_trains_nearly_the_same(tmp_path, still):
    _, step = made(tmp_path, **STILL, dtype="bfloat16")
    assert step.folder.path.name != still.folder.path.name
    first, other = (
        json.loads((s.folder.path / "loss.jsonl").read_text().splitlines()[0]) for s in (still, step)
    )
    assert first["loss"] == pytest.approx(other["loss"], rel=0.02) and first["loss"] != other["loss"]


def test_the_seed_is_the_only_chance(tmp_path, still):
    again = made(tmp_path / "again", **STILL)[1]
    other = made(tmp_path / "other", **STILL, seed=1)[1]
    assert fingerprint(again.model) == fingerprint(still.model) != fingerprint(other.model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_merged_as_peft_merges(tmp_path, base, dtype):
    """Bit for bit in float32; in bfloat16 PEFT rounds twice, so a unit in the last place apart."""
    start = tmp_path / "start"
    AutoModelForCausalLM.from_pretrained(base, dtype=dtype).save_pretrained(start)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (start / name).write_bytes((base / name).read_bytes())
    _, step = made(tmp_path, base=str(start), targets="all-linear", learning_rate=0.05)
    peft = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(start, dtype=dtype), step.folder.path / "adapter"
    )
    expected = peft.merge_and_unload().state_dict()
    before, found = load_file(start / "model.safetensors"), model_of(step)
    assert found.keys() == before.keys()
    moved = 0
    for name, value in found.items():
        assert value.dtype == dtype
        moved += int((value != before[name]).sum())
        if dtype == torch.float32:
            assert torch.equal(value, expected[name]), name
        else:
            torch.testing.assert_close(value, expected[name], rtol=2**-7, atol=0.0)
    assert moved > 300_000


def test_the_merged_model_answers_as_the_adapted_one(base, still):
    tokens = torch.tensor([[5, 40, 300, 7]])
    whole = AutoModelForCausalLM.from_pretrained(still.model, dtype=torch.float32)
    adapted = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), still.folder.path / "adapter"
    )
    with torch.no_grad():
        torch.testing.assert_close(whole(tokens).logits, adapted(tokens).logits, rtol=0.05, atol=0.05)


def test_rates_rise_and_fall():
    train = Train(**{**SMALL, "epochs": 10, "warmup_steps": 10, "learning_rate": 1.0})
    for decay, half in (("linear", 0.5), ("cosine", 0.5), ("none", 1.0)):
        schedule = lora.Schedule.of(train.model_copy(update={"decay": decay}), 24)
        rates = [schedule.rate(step) for step in range(schedule.steps)]
        assert schedule.steps == 30 and rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
        assert rates[10] == 1.0 and rates[20] == pytest.approx(half) and rates[-1] > 0


@pytest.mark.slow
def test_two_processes_of_accelerate_are_one(tmp_path, still):
    screen = Told()
    _, step = made(tmp_path, screen, **STILL, processes=2)
    assert step.folder.done()["processes"] == 2 and screen.steps[-1] == 6
    for name, value in adapter(still).items():
        torch.testing.assert_close(adapter(step)[name], value, rtol=1e-3, atol=2e-5)


@pytest.mark.slow
def test_two_processes_end_with_their_owner_and_go_on_to_the_same_bytes(tmp_path):
    whole = content(made(tmp_path / "whole", processes=2)[1].folder.path)
    killed(train_until, tmp_path / "parts", 3, 2)
    deadline = time.monotonic() + 30
    while left := _processes_of(tmp_path / "parts"):
        assert time.monotonic() < deadline, left
        time.sleep(0.2)
    _, step = made(tmp_path / "parts", processes=2)
    assert step.folder.done()["resumed"] >= 3 and content(step.folder.path) == whole


def _processes_of(folder):
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += [place] if str(folder) in place.read_text() else []
        except OSError:  # it ended meanwhile
            continue
    return found


@pytest.mark.slow
def test_what_stops_a_process_is_told_by_the_first(tmp_path):
    with pytest.raises(HarnessError, match="at step 0 the loss is nan"):
        made(tmp_path, processes=2, base=str(_broken(tmp_path)))


def _broken(tmp_path):
    base, to = load_family("tiny-safety").model_path("base"), tmp_path / "broken"
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    model.save_pretrained(to)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (to / name).write_bytes((base / name).read_bytes())
    return to


def test_a_family_without_recipes_is_left_as_it_is(tmp_path):
    from harness.store import Store
    from harness.train import experts

    family = load_family("tiny-safety")
    assert experts.make(family, Store(tmp_path, "tiny"), Told()) is family
    assert experts.pending(family_with(), Store(tmp_path, "tiny"))[0].role == "task"
    assert not (tmp_path / "tiny").exists()
