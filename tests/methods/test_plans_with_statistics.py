"""From a family file to merged weights: the statistics that the official profile and RCP-Merging ask for."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import harness.families
from harness import steps
from harness.family import load_family
from harness.planner import make_plan
from harness.run import Outcome
from harness.run.scoring import make_scores, score_groups
from harness.store import Store
from tests.reference import profiles

TINY = Path(harness.families.__file__).parent / "tiny"
FAMILY = f"""
title: a short one
base: {TINY}/base
experts: {{reasoning: {TINY}/reasoning, task: {TINY}/safety}}
calibration:
  reasoning: {{data: "harness.families.tiny.data:calibration", name: reasoning, n: 2, max_tokens: 24,
              text: "{{prompt}}{{completion}}"}}
  task: {{data: "harness.families.tiny.data:calibration", name: task, n: 3, max_tokens: 24,
         text: "{{prompt}}{{completion}}"}}
methods:
  rcp: {{penalty: 10.0}}
  reasonany: {{profile: official, p: 0.0005}}
"""
ROLES = ("reasoning", "task")


class Quiet:
    def __getattr__(self, name):
        return lambda *args, **kwargs: None


@pytest.fixture(scope="module")
def carried_out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plans")
    (folder / "short.yaml").write_text(FAMILY)
    plan = make_plan(
        load_family(str(folder / "short.yaml")), Store(folder / "results", "short"), tasks=[], prepare=True
    )
    outcome = Outcome(Quiet())
    assert all([make_scores(plan, group, outcome) for group in score_groups(plan, plan.merges_to_make())])
    assert outcome.made == len(plan.scores) and not outcome.failed
    records = steps.merge_rows(plan, plan.merges_to_make(), lambda *args: None)
    assert [record["error"] for record in records] == [None, None]
    return plan


def arrays(path):
    return {name: t.float().numpy() for name, t in load_file(path / "model.safetensors").items()}


def test_every_statistic_comes_after_those_that_it_reads(carried_out):
    recipes = [step.recipe for step in carried_out.scores]
    labels = [(recipe.kind, recipe.role, recipe.of, recipe.pad) for recipe in recipes]
    fisher, votes = (labels.index((kind, role, "expert", False)) for kind, role in
                     (("snip_squared", "reasoning"), ("votes", "task")))  # fmt: skip
    assert fisher < votes
    official = {label[1:3] for label in labels if label[3]}
    assert official == {(role, of) for role in ROLES for of in ("expert", "base")}
    by_kind = {step.recipe.kind: step.recipe for step in carried_out.scores}
    assert by_kind["gradient"].tokenizer == carried_out.prints["base"]
    assert by_kind["gradient"].dtype == by_kind["gradient"].accumulate == "bfloat16"
    assert by_kind["votes"].against["penalty"] == 10.0


def test_rcp_is_the_votes_of_the_store_on_the_models_of_the_family(carried_out):
    row = next(row for row in carried_out.rows if row.is_merge and row.recipe.method == "rcp")
    votes = arrays(next(iter(row.scores.values())).folder.path)
    base, reasoning, task = (arrays(carried_out.inputs[role]) for role in ("base", *ROLES))
    merged = arrays(row.checkpoint)
    taken = 0
    for name in base:
        tau = task[name] - base[name]
        expected = reasoning[name] + np.where(votes[name] > 0.5, tau, 0)
        rounded = torch.from_numpy(expected).to(torch.bfloat16).float().numpy()
        np.testing.assert_array_equal(merged[name], rounded)
        taken += (votes[name] > 0.5).sum()
    assert 0 < taken < sum(v.size for v in base.values())


def test_official_reasonany_is_the_codes_formula_on_the_scores_of_the_store(carried_out):
    row = next(row for row in carried_out.rows if row.is_merge and row.recipe.method == "reasonany")
    scores = {key: arrays(step.folder.path) for key, step in row.scores.items()}
    base, *experts = (arrays(carried_out.inputs[role]) for role in ("base", *ROLES))
    on_expert = {role: scores[f"{role}.gradient.official"] for role in ROLES}
    on_base = {role: scores[f"{role}.gradient.base.official"] for role in ROLES}
    ends = {"reasoning": "lowest", "task": "highest"}
    same = dict.fromkeys(ROLES, 0.0005), ends, dict.fromkeys(ROLES, 1.0)
    expected = profiles.reasonany_official(
        lambda a: torch.from_numpy(np.asarray(a, np.float32)).bfloat16().float().numpy(),
        base, dict(zip(ROLES, experts, strict=True)), on_expert, on_base, *same,
    )  # fmt: skip
    merged = arrays(row.checkpoint)
    for name in base:
        np.testing.assert_array_equal(merged[name], expected[name])
    assert any((merged[n] != base[n]).any() for n in base)


def test_a_changed_penalty_is_another_statistic_and_f_stays(carried_out, tmp_path):
    text = FAMILY.replace("penalty: 10.0", "penalty: 20.0")
    (tmp_path / "short.yaml").write_text(text)
    other = make_plan(load_family(str(tmp_path / "short.yaml")), carried_out.store, tasks=[])
    assert [step.recipe.kind for step in other.scores_to_make(other.merges_to_make())] == ["votes"]


def test_votes_are_not_taken_when_f_failed(carried_out, tmp_path, monkeypatch):
    plan = make_plan(carried_out.family, Store(tmp_path, "short"), tasks=[], prepare=True, methods=["rcp"])
    asked = []

    def broken(group, *_):
        asked.append([step.recipe.kind for step in group])
        raise RuntimeError("no memory")

    monkeypatch.setattr(steps, "compute_scores", broken)
    outcome = Outcome(Quiet())
    groups = score_groups(plan, plan.merges_to_make())
    assert [make_scores(plan, group, outcome) for group in groups] == [False, False]
    assert asked == [["snip_squared"]] and "a statistic that it reads failed" in outcome.failed[1]
