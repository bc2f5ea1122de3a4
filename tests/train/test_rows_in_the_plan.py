"""A method that trains on rows: they are in its key, they reach it, and a family without them is told."""

import json
import subprocess
import sys

import pytest
import yaml

from harness.errors import HarnessError
from harness.family import parse_family
from harness.planner import make_plan
from harness.recipe import key
from harness.steps import merge_jobs, write_lock
from harness.store import Store, digest

METHODS = {"fusellm": {"steps": 2, "batch_size": 2, "max_tokens": 16}, "linear": {}}


@pytest.fixture
def make(family, tmp_path):
    """make(reasoning=texts, task=texts) -> the plan of a family on the tiny checkpoints with these rows."""

    def plan(**texts):
        calibration = {}
        for role, lines in texts.items():
            (tmp_path / f"{role}.jsonl").write_text("".join(json.dumps({"t": t}) + "\n" for t in lines))
            calibration[role] = {"data": f"{role}.jsonl", "text": "{t}", "n": len(lines)}
        models = {role: str(family.model_path(role)) for role in ("base", *family.roles)}
        content = {"title": "tiny", "base": models.pop("base"), "experts": models, "tasks": ["tiny_chain"],
                   "calibration": calibration, "methods": METHODS}  # fmt: skip
        file = tmp_path / "fam.yaml"
        file.write_text(yaml.safe_dump(content))
        return make_plan(parse_family(file), Store(tmp_path, "fam"), tasks=[], references=False, prepare=True)

    return plan


def test_rows_are_part_of_the_key_by_content(make):
    first = make(reasoning=["one plus one", "two"], task=["three four"])
    same = make(reasoning=["one plus one", "two"], task=["three four"])
    other = make(reasoning=["one plus one", "too"], task=["three four"])
    fused, linear = ([key(row.recipe) for row in (p.rows[i] for p in (first, same, other))] for i in (0, 1))
    assert fused[0] == fused[1] != fused[2]
    assert len(set(linear)) == 1
    assert first.rows[0].recipe.rows == {
        "reasoning": digest([{"text": "one plus one"}, {"text": "two"}]),
        "task": digest([{"text": "three four"}]),
    }
    assert first.rows[1].recipe.rows == {}


@pytest.mark.parametrize("given", [{}, {"reasoning": ["one two"]}])
def test_a_family_without_rows_is_told(make, given):
    with pytest.raises(
        HarnessError, match="row `fusellm` trains on calibration data of `(reasoning|task)`"
    ) as error:
        make(**given)
    assert "add `calibration: {" in error.value.hint


def test_the_rows_reach_the_method_and_the_lock_file(make, tmp_path):
    plan = make(reasoning=["one plus one is two", "3 and 4"], task=["how to build a drum ?"])
    records = merge_jobs(plan, plan.rows, lambda *_: None)
    assert records[0]["rows"] == 3 and records[0]["steps"] == 2 and "rows" not in records[1]
    assert (plan.rows[0].checkpoint / "training.jsonl").exists()
    write_lock(plan)
    lock = yaml.safe_load((plan.store.root / "family.lock.yaml").read_text())
    assert lock["calibration"]["task"] == {"data": "task.jsonl", "sha256": plan.rows[0].recipe.rows["task"]}


def test_planning_and_loading_do_not_import_torch():
    code = """if True:
        import sys, pathlib
        from harness.family import load_family
        from harness.planner import make_plan
        from harness.store import Store
        family = load_family("tiny-safety").model_copy(update={"methods": {"fusellm": {}}})
        plan = make_plan(family, Store(pathlib.Path("/nowhere"), "x"), tasks=[])
        assert plan.rows[-1].recipe.rows.keys() == {"reasoning", "task"}
        print([m for m in ("torch", "transformers", "datasets") if m in sys.modules])"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
