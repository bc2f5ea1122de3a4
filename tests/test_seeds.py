"""Several seeds: what draws is made and asked again, all else is not; cells are means with their spread."""

import dataclasses
import json
import math

import numpy as np
import pytest
from click.testing import CliRunner

from harness import registry
from harness.board import Cell, read_board
from harness.board.cells import folded, interval_of
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
        Cell(value, 0.1, 20, {"empty": value}, f"run{i}", interval=[value - 0.15, value + 0.2], tokens=4.0)
        for i, value in enumerate((0.2, 0.4, 0.6))
    ]
    cell = folded(runs, "accuracy")
    assert cell.value == pytest.approx(0.4) and cell.sd == pytest.approx(0.2)
    assert cell.values == [0.2, 0.4, 0.6] and cell.folders == ["run0", "run1", "run2"]
    assert cell.rates == {"empty": pytest.approx(0.4)} and cell.tokens == 4.0
    run = 1.96 * 0.2 / math.sqrt(3)
    wanted = [0.4 - math.hypot(0.15, run), 0.4 + math.hypot(0.2, run)]
    assert cell.interval == pytest.approx(wanted, abs=1e-4)
    assert cell.sd_items == pytest.approx(0.1)
    assert cell.stderr == pytest.approx(math.sqrt(0.1**2 + 0.2**2 / 3))
    assert folded(runs[:1], "accuracy") is runs[0]
    unknown = folded([dataclasses.replace(r, interval=None, stderr=None) for r in runs], "accuracy")
    assert unknown.interval is None and unknown.sd_items is None and unknown.sd == pytest.approx(0.2)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_runs_that_all_agree_are_no_more_certain_than_one(value):
    """At 0 % and 100 % every standard error is zero; the interval is Wilson's of one run."""
    one = interval_of({"value": value, "stderr": 0.0, "n": 20}, "accuracy")
    assert one[1] - one[0] > 0.1
    cell = folded([Cell(value, 0.0, 20, interval=one)] * 3, "accuracy")
    assert cell.interval == pytest.approx(one) and cell.sd == cell.stderr == 0.0


def test_the_interval_of_runs_covers_as_often_as_it_says():
    """Items of differing difficulty are drawn once, runs flip each: 95 % of the intervals hold it."""
    draw, held, times = np.random.default_rng(1), 0, 400
    for _ in range(times):
        chance = draw.beta(0.5, 0.5, size=60)
        runs = []
        for _ in range(3):
            answers = (draw.random(60) < chance).astype(float)
            told = {"value": answers.mean(), "stderr": answers.std(ddof=1) / math.sqrt(60), "n": 60}
            runs.append(Cell(told["value"], told["stderr"], 60, interval=interval_of(told, "accuracy")))
        low, high = folded(runs, "accuracy").interval
        held += low <= 0.5 <= high
    assert 0.94 <= held / times <= 0.995


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
