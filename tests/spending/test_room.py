"""What a killed run has begun, several GPUs, training rows that are not here, `--device cpu`."""

import dataclasses
import json
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness import hub
from harness.costs import bill as bills
from harness.costs import demand, sizes
from harness.costs.bill import bill
from harness.costs.draft import Draft, Model, drafted, find_models
from harness.costs.machine import Gpu, Machine
from harness.errors import HarnessError
from harness.family import load_family
from harness.merge import engine
from harness.planner import make_plan
from harness.run import local
from harness.run.evaluating import row_groups
from harness.store import Store
from harness.verbs import estimate
from tests.spending.test_estimate import A100, GB, LAPTOP, SEVEN, THIRTY_TWO, a_bill

EIGHT = Machine(64, 1000 * GB, 900 * GB, 8 * A100.gpus)
SEVEN_B = sizes.of_config(SEVEN)
SUMS = {"kinds": 1, "votes": False, "rows": 100, "tokens": 512, "dtype": "bfloat16", "accumulate": "float32"}


def tiny(workdir, name="tiny-safety", **chosen):
    family = load_family(name)
    plan = make_plan(family, Store(workdir / "results", family.name), limit=4, **chosen)
    return Draft(plan.family, plan, find_models(family, ask=False))


def test_what_a_killed_run_has_begun_is_not_asked_for_again(workdir):
    draft = tiny(workdir, methods=["linear", "reasonany"], tasks=[])

    def wanted(kind):
        return sum(item.disk for item in bill(draft, ask=False).items if item.kind == kind)

    before = wanted("scores"), wanted("merge")
    row = next(row for row in draft.plan.rows if row.is_merge)
    for folder in (row.checkpoint.with_name(".model.part"), draft.plan.scores[0].folder.path):
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"w" * 40960)
    assert (wanted("scores"), wanted("merge")) == tuple(nbytes - 40960 for nbytes in before)


def test_a_small_run_is_not_refused_a_disk_that_holds_it():
    assert not estimate._refusals(a_bill(needed=12_000_000, free=900_000_000))
    assert estimate._refusals(a_bill(needed=12_000_000, free=12_500_000))


def test_an_interrupted_fetch_is_asked_the_rest(no_login):
    from huggingface_hub import constants

    told = hub.Repository(
        "org/m", "model", None, "open", "c0ffee", {"a.safetensors": 900_000, "b.safetensors": 900_000}
    )
    cache = Path(constants.HF_HUB_CACHE) / "models--org--m"
    model = Model("org/m", "base", repository=told)
    assert model.download == 1_800_000
    for file, nbytes in (("snapshots/c0ffee/a.safetensors", 900_000), ("blobs/1.incomplete", 40960)):
        (cache / file).parent.mkdir(parents=True)
        (cache / file).write_bytes(b"w" * nbytes)
    assert model.download == 900_000 - 40960


def test_only_what_is_spread_may_take_all_gpus_together():
    two = dataclasses.replace(A100, gpus=2 * A100.gpus)
    (error,) = estimate._refusals(a_bill(two, demand.Need(1, 90 * GB)))
    assert "90.0 GB on a GPU and the largest here has 80.0 GB" in error.message
    assert not estimate._refusals(a_bill(two, demand.Need(1, 90 * GB, spread=True)))
    (error,) = estimate._refusals(a_bill(two, demand.Need(1, 190 * GB, spread=True)))
    assert "190.0 GB on all GPUs and these have 160.0 GB" in error.message


def test_every_process_reads_the_weights_and_leaves_its_sums():
    one, eight = (demand.scores(SEVEN_B, machine, **SUMS) for machine in (A100, EIGHT))
    assert (one.processes, one.scratch, eight.processes) == (1, 0, 8)
    assert eight.host > 8 * 2 * SEVEN_B.parameters and eight.scratch == 7 * 4 * SEVEN_B.parameters
    large = demand.scores(sizes.of_config(THIRTY_TWO), EIGHT, **SUMS)
    assert large.offload and 1 < large.processes < 8 and large.host < EIGHT.memory
    assert large.devices == [f"cuda:{i}" for i in range(large.processes)]
    given = {"rows": 10, "tokens": 256, "micro": 4, "dtype": "bfloat16"}
    assert demand.training(SEVEN_B, EIGHT, **given).host > 8 * 2 * SEVEN_B.parameters
    spread = demand.training(SEVEN_B, EIGHT, spread=True, **given)
    assert spread.spread and spread.host < 3 * SEVEN_B.parameters


def test_sums_of_other_processes_take_disk_meanwhile(workdir):
    draft = tiny(workdir, methods=["reasonany"], tasks=[])
    (room,) = bill(draft, ask=False, here=EIGHT).rooms
    assert room.parts["sums of the processes"] == 7 * 4 * draft.size("base").parameters
    (room,) = bill(draft, ask=False, here=A100).rooms
    assert "sums of the processes" not in room.parts


def test_checkpointing_makes_a_training_smaller_and_longer():
    given = {"rows": 1000, "tokens": 256, "micro": 4, "dtype": "bfloat16"}
    whole, twice = (demand.training(SEVEN_B, A100, checkpointing=c, **given) for c in (False, True))
    assert twice.gpu < whole.gpu - 5 * GB and twice.seconds == 1.5 * whole.seconds


TRAINED = """
extends: tiny-safety
experts: {{task: {{model: null, train: {{base: {base}, data: rows.jsonl, max_tokens: 32, epochs: 2}}}}}}
"""


def test_training_rows_are_counted_or_said_to_be_unknown(workdir):
    (workdir / "own.yaml").write_text(TRAINED.format(base=load_family("tiny-safety").base))

    def planned():
        family = load_family("./own.yaml")
        with drafted(family, Store(workdir / "results", "own"), methods=["linear"], tasks=[]) as draft:
            return draft, bill(draft, here=LAPTOP)

    draft, found = planned()
    assert not found.items[0].need.timed and found.items[0].need.seconds == 0 and found.untimed
    assert any("the rows that task is trained on" in line for line in found.unknown)
    (workdir / "rows.jsonl").write_text(json.dumps({"instruction": "a", "output": "b"}) + "\n")
    draft, found = planned()
    one = found.items[0].need.seconds
    (workdir / "rows.jsonl").write_text(100 * (json.dumps({"instruction": "a", "output": "b"}) + "\n"))
    _, found = planned()
    assert found.items[0].need.seconds == pytest.approx(100 * one) and one > 0 and not found.untimed


def test_the_cpu_is_estimated_as_the_cpu(workdir, monkeypatch):
    plan = tiny(workdir, methods=["fusellm", "reasonany"], tasks=[]).plan
    full = dataclasses.replace(A100, gpus=(Gpu("NVIDIA A100", 1, 1),))
    monkeypatch.setattr(bills, "machine", lambda: full)
    with pytest.raises(HarnessError, match="on a GPU and the largest here has 1 B"):
        estimate.refuse_plan(plan)
    estimate.refuse_plan(plan, "cpu")
    assert [len(EIGHT.on(device).gpus) for device in ("auto", "cuda", "cuda:7", "cpu")] == [8, 8, 1, 0]


@pytest.mark.parametrize(("rows", "cuda", "place"), [
    ({"task": [{"text": "a"}]}, True, "cuda"), ({"task": [{"text": "a"}]}, False, "cpu"), ({}, True, "cpu"),
])  # fmt: skip
def test_what_trains_goes_to_the_gpu_by_itself(monkeypatch, rows, cuda, place):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    assert engine._trains_on(SimpleNamespace(rows=rows)) == place


@pytest.mark.parametrize(("gpu", "device", "method", "order"), [
    (True, "auto", "reasonany", ["scores", "base", "merges", "merge"]),
    (True, "auto", "fusellm", ["merges", "base", "merge"]),
    (True, "auto", "linear", ["base", "merges", "merge"]),
    (True, "cpu", "reasonany", ["base", "scores", "merges", "merge"]),
    (False, "auto", "reasonany", ["base", "scores", "merges", "merge"]),
])  # fmt: skip
def test_engines_wait_while_gradients_are_on_the_gpu(workdir, monkeypatch, gpu, device, method, order):
    plan, happened = tiny(workdir, methods=[method], tasks=["tiny_chain"]).plan, []
    monkeypatch.setattr(local, "visible_gpus", lambda: ["0"] * gpu)
    quiet = SimpleNamespace(note=lambda *_: None, now=lambda *_: None, done=lambda *_: None)
    made = local._Run(plan, quiet, device=device)

    @contextmanager
    def evaluating(evaluators):
        yield SimpleNamespace(put=lambda group: happened.append(group[0].row.role))

    monkeypatch.setattr(made, "evaluating", evaluating)
    monkeypatch.setattr(local.merging, "check_inputs", lambda *_: None)
    monkeypatch.setattr(local, "with_scores", lambda rows, _: rows)
    monkeypatch.setattr(local, "make_scores", lambda *_: happened.append("scores"))
    make = lambda plan, rows, *_, **__: happened.append("merges") or rows  # noqa: E731
    monkeypatch.setattr(local.merging, "make_merges", make)
    made.make_all(plan.merges_to_make(), row_groups(plan.evals_to_make()), [])
    assert list(dict.fromkeys(what for what in happened if what in order)) == order
