"""The study `cost`: each row in a process of its own, kept, with the paper's figures where they belong."""

import csv
import json

import pytest
from click.testing import CliRunner

from harness.cli import main
from harness.family import load_family
from harness.sweep import costing
from harness.sweep.alone import Cost
from harness.sweep.study import Study, variants

STUDY = """title: what two cost
rows:
  plain: {method: linear}
  summed: {method: task_arithmetic, scale: 0.5}
measure: cost
"""


def ran(*args):
    return CliRunner().invoke(main, ["study", "./mine.yaml", *args])


def test_rows_are_measured_once(workdir):
    (workdir / "mine.yaml").write_text(STUDY)
    first = ran()
    assert first.exit_code == 0, first.output
    folder = workdir / "results" / "tiny-safety"
    lines = list(csv.DictReader((folder / "studies" / "mine" / "cost.csv").open()))
    assert [line["row"] for line in lines] == ["plain", "summed"]
    for line in lines:
        seconds = [float(line[key]) for key in ("statistics", "merge", "seconds", "wall")]
        assert seconds[0] == 0.0 and seconds[2] == seconds[1] > 0 and seconds[3] > seconds[2]
        assert 0.01 < float(line["peak_gib"]) < 2
    assert [line["paper_seconds"] for line in lines] == ["33", "34"]
    assert not list(folder.rglob("scratch")) and (folder / "studies/mine/figures/cost.pdf").is_file()
    again = ran()
    assert again.stderr.count("from store") == 2 and again.stdout == first.stdout
    done = next((folder / "costs").glob("auto--linear--*/done.json"))
    done.unlink()
    (done.parent / "scratch").mkdir()  # as a killed run leaves it
    assert ran().stderr.count("from store") == 1 and not (done.parent / "scratch").exists()


@pytest.mark.slow
def test_a_row_that_fails_leaves_the_others(workdir):
    wrong = "  wrong: {method: reasonany, exclude_modules: [no_such_module], use_task: false, p: 0.1}\n"
    (workdir / "mine.yaml").write_text(STUDY.replace("  summed", wrong + "  summed"))
    result = ran()
    assert result.exit_code == 1 and "✗ cost" in result.stderr and "`no_such_module`" in result.stderr
    lines = list(csv.DictReader((workdir / "results/tiny-safety/studies/mine/cost.csv").open()))
    assert [line["row"] for line in lines] == ["plain", "summed"]


def test_a_method_has_the_papers_figures_once_and_sce_those_of_fusellm():
    rows = {"ties": {"method": "ties"}, "ties 2": {"method": "ties", "scale": 2.0}, "mine": {"method": "sce"}}
    study, family = Study(name="s", title="t", rows=rows, measure="cost"), load_family("tiny-safety")
    found = variants(study, family)
    board = costing.board_of(family, found, {v.label: Cost(1.0, 2.0, 0.5, 40.0, 4.0) for v in found})
    lines = costing.lines(board)
    assert [(line["paper_seconds"], line["paper_gpu_gb"]) for line in lines] == [
        ("39", "34.7"), (None, None), ("35", "36.8")
    ]  # fmt: skip
    assert [row.cells["cost", "gpu_gib"].paper for row in board.rows] == [34.7, None, 36.8]
    json.dumps(board.to_json())


@pytest.mark.parametrize("more", ["seeds: 2", "claims: [{sentence: s, row: plain, than: summed}]"])
def test_what_costs_cannot_say_is_refused(workdir, more):
    (workdir / "mine.yaml").write_text(STUDY + more + "\n")
    result = ran()
    assert result.exit_code == 2 and "`measure: cost` goes with" in result.stderr
    assert not (workdir / "results").exists()
