"""The lock: what a run finds is kept, what moves is told, what is not known is null and shown as unlocked."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

import harness
from harness import lock
from harness.errors import HarnessError
from harness.family import load_family
from harness.planner import make_plan
from harness.store import Store
from tests.spending.conftest import COMMIT

TINY = Path(harness.__file__).parent / "families" / "tiny"


@pytest.fixture
def plan(workdir):
    """The tiny family with models of its own, and a function that plans it anew."""
    for name in ("base", "reasoning", "safety"):
        shutil.copytree(TINY / name, workdir / name)
    rows = {
        "extends": "tiny-safety",
        "base": "./base",
        "experts": {"reasoning": "./reasoning", "task": "./safety"},
    }
    (workdir / "own.yaml").write_text(yaml.safe_dump({**rows, "methods": {"linear": {}, "reasonany": {}}}))

    def made():
        family = load_family("./own.yaml")
        return make_plan(family, Store(Path("results"), family.name), prepare=True)

    return made


def held(file="results/own/family.lock.yaml"):
    return yaml.safe_load(Path(file).read_text())


def test_the_first_run_locks_and_the_next_says_nothing(plan):
    one = plan()
    assert lock.keep(one) == []
    assert held()["models"]["task"] == {"model": "./safety", "revision": None, "sha256": one.prints["task"]}
    rows = {step.recipe.role: step.recipe.rows for step in one.scores}
    assert {role: entry["sha256"] for role, entry in held()["calibration"].items()} == rows
    assert lock.keep(plan()) == [] and lock.footnotes(plan()) == []


def test_a_model_that_moved_is_told_until_it_is_accepted(plan, capsys):
    lock.keep(plan())
    before = held()["models"]["task"]["sha256"]
    shutil.rmtree("safety")
    shutil.copytree(TINY / "reasoning", "safety")
    moved = plan()
    said = lock.keep(moved)
    assert (
        f"`task` (./safety) moved since it was locked: sha256 {before[:12]} → {moved.prints['task'][:12]}"
        in said[0]
    )
    assert "harness lock" in said[-1]
    assert held()["models"]["task"]["sha256"] == before  # it stays as it was locked
    assert lock.footnotes(plan()) == said[:1]
    assert lock.lock("./own.yaml", Path("results")) == 0
    assert "moved" in capsys.readouterr().out
    assert lock.keep(plan()) == []


def test_to_another_file_and_as_data(plan, capsys):
    lock.lock("./own.yaml", Path("results"), Path("pins") / "own.lock.yaml", as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told == held("pins/own.lock.yaml")
    assert set(told["models"]) == {"base", "reasoning", "task"}


def test_what_is_null_is_filled_and_never_moved(plan):
    before = {"models": {"base": {"model": "a/b", "revision": None, "sha256": "1" * 64}}}
    now = {"models": {"base": {"model": "a/b", "revision": COMMIT, "sha256": None}}}
    assert lock.moved(before, now) == []


HUB = """
title: on the hub
base: org/base
experts: {reasoning: "org/reasoning@%s", task: org/gated}
calibration: {task: {data: org/rows, text: "{text}"}}
tasks: [gsm8k]
methods: {linear: {}}
""" % ("3" * 40)


def files():
    return {"config.json": b"{}", "model.safetensors": b"w" * 64}


def test_revisions_come_from_the_hub(workdir, online, capsys):
    (workdir / "far.yaml").write_text(HUB)
    online.models["org/base"] = {"files": files()}
    online.models["org/reasoning"] = {"files": files(), "revisions": ["3" * 40]}
    online.models["org/gated"] = {"files": files(), "gated": "auto"}
    online.data["org/rows"] = {"files": {"rows.jsonl": b"{}"}}
    assert lock.lock("./far.yaml", Path("results")) == 0
    found = held("results/far/family.lock.yaml")
    assert found["models"]["base"] == {"model": "org/base", "revision": COMMIT, "sha256": None}
    assert found["models"]["reasoning"]["revision"] == "3" * 40
    assert found["calibration"]["task"] == {"data": "org/rows", "revision": COMMIT, "sha256": None}
    pinned = lock.pinned(load_family("./far.yaml"), Store(Path("results"), "far"))
    assert pinned.base == f"org/base@{COMMIT}"
    assert pinned.experts["reasoning"].model == "org/reasoning@" + "3" * 40


def test_offline_nothing_is_invented(workdir, unreachable, capsys):
    (workdir / "far.yaml").write_text(HUB)
    assert lock.lock("./far.yaml", Path("results")) == 0
    found = held("results/far/family.lock.yaml")
    assert found["models"]["base"] == {"model": "org/base", "revision": None, "sha256": None}
    out = capsys.readouterr().out
    assert "unlocked" in out and "everything is locked" not in out
    family = load_family("./far.yaml")
    assert lock.pinned(family, Store(Path("results"), "far")).base == "org/base"


def test_a_revision_that_moved_on_the_hub(workdir, online, capsys):
    (workdir / "far.yaml").write_text(HUB)
    online.models["org/base"] = {"files": files()}
    lock.lock("./far.yaml", Path("results"))
    file = Path("results/far/family.lock.yaml")
    file.write_text(file.read_text().replace(COMMIT, "9" * 40))
    capsys.readouterr()
    lock.lock("./far.yaml", Path("results"))
    assert "revision 999999999999 → 111111111111" in capsys.readouterr().out


def test_a_cached_model_has_its_commit(tmp_path):
    folder = tmp_path / "models--org--base" / "snapshots" / COMMIT
    assert lock.revision_of("org/base", folder) == COMMIT
    assert lock.revision_of("org/base", tmp_path) is None
    assert lock.revision_of("org/base@main", tmp_path) is None


def test_a_damaged_lock(plan):
    Path("results/own").mkdir(parents=True)
    Path("results/own/family.lock.yaml").write_text("models: [")
    with pytest.raises(HarnessError, match="cannot be read"):
        lock.keep(plan())
