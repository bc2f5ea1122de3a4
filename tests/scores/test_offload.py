"""Sums in host memory and activations computed twice: the same bytes, and chosen as the plan says."""

import json

import pytest
import torch

from harness import steps
from harness.costs import machine as machines
from harness.costs.machine import Gpu, Machine
from harness.family import load_family
from harness.planner import make_plan
from harness.scores import Against, compute
from harness.scores.gradients import _load
from harness.scores.sums import Sums
from harness.store import Store
from tests.scores.conftest import ROWS

KINDS = ("gradient", "snip", "fisher", "snip_squared")
SAVING = {"offload": True, "checkpointing": True}


def same(one, other):
    return (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


def test_the_bytes_are_those_of_sums_on_the_device(model_folder, tmp_path):
    for name, given in (("plain", {}), ("saving", SAVING)):
        facts = compute(model_folder, ROWS, kind=KINDS, to={k: tmp_path / name / k for k in KINDS}, **given)
        assert (facts["offload"], facts["checkpointing"]) == (bool(given), bool(given))
    assert all(same(tmp_path / "plain" / kind, tmp_path / "saving" / kind) for kind in KINDS)


def test_votes_and_several_processes_too(checkpoint, tmp_path):
    reasoning, task = checkpoint(seed=1), checkpoint(seed=2)
    compute(reasoning, ROWS, kind="snip_squared", to=tmp_path / "fisher")
    against = Against(reasoning, tmp_path / "fisher", 100.0)
    for name, given in (("plain", {}), ("saving", SAVING)):
        compute(task, ROWS, kind="votes", to=tmp_path / name, against=against, **given)
        compute(task, ROWS, to=tmp_path / f"{name}-two", devices=["cpu", "cpu"], **given)
    assert same(tmp_path / "plain", tmp_path / "saving")
    assert same(tmp_path / "plain-two", tmp_path / "saving-two")


def test_sums_lie_in_host_memory_wherever_the_model_is(model_folder):
    model = _load(model_folder, torch.float32).to("meta")
    for offload, place in ((False, "meta"), (True, "cpu")):
        sums = Sums(model, ("gradient",), torch.float32, offload=offload)
        assert {total.device.type for total in sums.of["gradient"].values()} == {place}


@pytest.mark.parametrize(("gpu", "saves"), [(80 << 30, False), (1 << 20, True)])
def test_a_step_saves_memory_where_the_plan_says_so(workdir, monkeypatch, gpu, saves):
    """The machine of the estimate has a GPU of that size; the sums themselves are computed here."""
    import harness.scores

    here = Machine(2, 64 << 30, 60 << 30, (Gpu("NVIDIA H100", gpu, gpu),))
    monkeypatch.setattr(machines, "machine", lambda: here)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    told, asked = {}, []

    def on_cpu(*args, devices, **given):
        asked.append(devices)
        return compute(*args, devices=["cpu"], **given)

    monkeypatch.setattr(harness.scores, "compute", on_cpu)
    family = load_family("tiny-safety")
    plan = make_plan(
        family, Store(workdir / "results", "tiny"), methods=["reasonany"], tasks=[], prepare=True
    )
    step = plan.scores[0]
    told = steps.compute_scores([step], plan, lambda i, n: None)
    assert asked == [["cuda:0"]]
    assert told["offload"] is told["checkpointing"] is saves
    assert json.loads((step.folder.path / "done.json").read_text())["offload"] is saves
