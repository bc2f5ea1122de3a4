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
from harness.store import Folder, Store
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


def test_rows_that_no_chosen_method_reads_are_not_read(plan, monkeypatch):
    monkeypatch.setattr(lock, "load_rows", lambda *_: pytest.fail("read"))
    family = load_family("./own.yaml")
    one = make_plan(family, Store(Path("results"), family.name), methods=["linear"], prepare=True)
    assert lock.keep(one) == []
    assert {entry["sha256"] for entry in held()["calibration"].values()} == {None}


def test_locked_revisions_are_read_of_what_is_trained_on_and_of_rows(workdir):
    text = HUB.replace("task: org/gated", "task: {train: {base: org/chat, data: rows.json}}")
    (workdir / "far.yaml").write_text(text)
    store = Store(Path("results"), "far")
    store.root.mkdir(parents=True)
    known = {
        "models": {"task (trained on)": {"model": "org/chat", "revision": COMMIT}},
        "calibration": {"task": {"data": "org/rows", "revision": COMMIT}},
    }
    (store.root / lock.FILE).write_text(yaml.safe_dump(known))
    pinned = lock.pinned(load_family("./far.yaml"), store)
    assert pinned.experts["task"].train.base == f"org/chat@{COMMIT}"
    assert pinned.calibration["task"].data == f"org/rows@{COMMIT}"


def test_a_trained_expert_is_named_trained_wherever_it_lies(workdir):
    store = Store(Path("results"), "own")
    folder = store.root / "experts" / "task--12345678"
    (folder / "model").mkdir(parents=True)
    recipe = {"train": {"base": f"org/chat@{COMMIT}"}, "base": "5" * 64}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    made = lock._made_of(store, str((folder / "model").resolve()))
    assert made == {"model": "org/chat", "revision": COMMIT, "sha256": "5" * 64}
    assert lock._made_of(store, "./safety") is None and lock._made_of(store, str(workdir)) is None


def test_a_damaged_lock(plan):
    Path("results/own").mkdir(parents=True)
    Path("results/own/family.lock.yaml").write_text("models: [")
    with pytest.raises(HarnessError, match="cannot be read"):
        lock.keep(plan())


def test_folders_are_locked_in_one_order_and_work_of_another_process_is_not_done_again(plan, monkeypatch):
    from harness import steps

    taken = []
    working = Folder.working

    def noted(self, recipe, *given):
        taken.append(self.path)
        return working(self, recipe, *given)

    monkeypatch.setattr(Folder, "working", noted)
    monkeypatch.setattr(steps, "merge_jobs", lambda _, rows, *a, **k: [{"error": "none made"} for _ in rows])
    one = plan()
    rows = [row for row in one.rows if row.is_merge]
    for given in (rows, rows[::-1]):
        taken.clear()
        steps.merge_rows(one, given, lambda *_: None)
        assert len(taken) == len(rows) > 2 and taken == sorted(taken)
    monkeypatch.setattr("harness.scores.calibration.load_rows", lambda *_: pytest.fail("computed again"))
    group = one.scores[:1]
    group[0].folder.path.mkdir(parents=True)
    group[0].folder.finish({"kind": "of another process"})
    assert steps.compute_scores(group, one, lambda *_: None) == {"kind": "of another process"}
