"""Several seeds: what draws is made and asked again, all else is not; cells are means with their spread."""

import dataclasses
import json
import math

import pytest
from click.testing import CliRunner

from harness import registry
from harness.board import Cell, read_board
from harness.board.cells import folded
from harness.cli import main
from harness.family import load_family
from harness.method import configure
from harness.planner import make_plan
from harness.store import Store

SAMPLED = {"merge": {"do_sample": True, "temperature": 0.8}}


def plan(tmp_path, seeds, methods=("linear", "dare"), **changes):
    family = load_family("tiny-safety")
    rows = {name: {} for name in methods}
    data = {**family.model_dump(by_alias=True), "methods": rows, **changes}
    family = type(family).model_validate(data)
    return make_plan(family, Store(tmp_path, family.name), tasks=["tiny_chain", "tiny_prose"], seeds=seeds)


@pytest.mark.parametrize(
    ("method", "settings", "draws"),
    [("dare", {}, True), ("dare", {"density": 1.0}, False), ("reasonany", {}, False),
     ("reasonany", {"reasoning_end": "random"}, True), ("ties", {}, False), ("linear", {}, False)],
)  # fmt: skip
def test_methods_say_whether_they_draw(method, settings, draws):
    assert configure(registry.method(method), settings).draws is draws


def test_only_what_draws_is_made_again(tmp_path):
    one, three = plan(tmp_path, 1), plan(tmp_path, 3)
    assert {row.label: row.seed_of for row in three.rows if row.seed_of} == {
        "DARE (seed 1)": "DARE", "DARE (seed 2)": "DARE"
    }  # fmt: skip
    assert [r.folder for r in three.rows if not r.seed_of] == [r.folder for r in one.rows]
    assert len(three.evals) == len(one.evals) + 2 * 2  # the tiny family decodes greedily
    assert len({step.folder.path for step in three.evals}) == len(three.evals)
    assert len(three.probes) == len(one.probes)
    seeds = {row.label: row.recipe.seed for row in three.rows if row.is_merge}
    assert seeds == {"Linear": 0, "DARE": 0, "DARE (seed 1)": 1, "DARE (seed 2)": 2}


def test_sampled_responses_are_drawn_again_for_every_row_without_a_new_merge(tmp_path):
    one, two = (
        plan(tmp_path, 1, ("linear",), generation=SAMPLED),
        plan(tmp_path, 2, ("linear",), generation=SAMPLED),
    )
    assert [row.label for row in two.rows] == [row.label for row in one.rows]
    added = [step for step in two.evals if step.folder not in [s.folder for s in one.evals]]
    assert [(s.row.label, s.task.name, s.recipe.seed) for s in added] == [("Linear", "tiny_chain", 1)]
    assert added[0].folder.path.parent.parent == next(r for r in two.rows if r.label == "Linear").folder.path


def test_a_folded_cell_is_the_mean_with_all_values_behind_it():
    runs = [
        Cell(value, 0.1, 20, {"empty": value}, f"run{i}", tokens=4.0)
        for i, value in enumerate((0.2, 0.4, 0.6))
    ]
    cell = folded(runs, "accuracy")
    assert cell.value == pytest.approx(0.4) and cell.sd == pytest.approx(0.2)
    assert cell.values == [0.2, 0.4, 0.6] and cell.folders == ["run0", "run1", "run2"]
    assert cell.rates == {"empty": pytest.approx(0.4)} and cell.tokens == 4.0
    half = 1.96 * math.sqrt(0.1**2 + 0.2**2 / 3)
    assert cell.interval == pytest.approx([0.4 - half, 0.4 + half], abs=1e-4)
    assert folded(runs[:1], "accuracy") is runs[0]
    certain = folded([dataclasses.replace(r, value=1.0) for r in runs], "accuracy")
    assert certain.interval[1] == 1.0 and certain.sd == 0.0


@pytest.mark.slow
def test_a_comparison_with_seeds_adds_only_what_is_missing(tmp_path):
    given = [
        "--methods",
        "linear,dare",
        "--tasks",
        "tiny_chain,tiny_prose",
        "--limit",
        "8",
        "--results",
        str(tmp_path),
    ]

    def run(*more):
        done = CliRunner().invoke(main, ["compare", *given, *more])
        assert done.exit_code == 0, done.output
        board = read_board(tmp_path / "tiny-safety" / "report" / "board.json")
        return {row.label: row.cells["tiny_chain", "accuracy"] for row in board.rows}, done.output

    once, _ = run()
    twice, _ = run("--seeds", "2")
    thrice, said = run("--seeds", "3")
    assert "(seed 2)" in said and "(seed 1)" not in said
    assert once["Linear"] == twice["Linear"] or once["Linear"].value == twice["Linear"].value
    assert twice["Linear"].values == [] and len(twice["DARE"].values) == 2 and len(thrice["DARE"].values) == 3
    assert (
        thrice["DARE"].values[:2] == twice["DARE"].values and thrice["DARE"].values[0] == once["DARE"].value
    )
    assert thrice["DARE"].test is not None
    told = json.loads(
        CliRunner().invoke(main, ["explain", "--all", "--json", "--results", str(tmp_path)]).output
    )
    assert all(one["agrees"] for one in told)
