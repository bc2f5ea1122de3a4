"""The paper's numbers beside ours: in every format, with what contradicts them, and its averages."""

import dataclasses

import pytest

from harness import paper, registry, tasks
from harness.board import Board, BoardRow, Cell, papers
from harness.board.cells import headings_of
from harness.family import load_family
from harness.typeset import grid, notes

NAMES = ["gsm8k", "math500", "aime24", "humaneval", "livecodebench", "arc_c", "arc_e", "mmlu", "gpqa_diamond",
         "safety_tuned", "harmbench", "safechain", "lm_eval:wikitext"]  # fmt: skip


def board(columns=NAMES):
    """A row for each of the paper's that we have, all with 0.5 everywhere."""
    headings = headings_of(tasks.named(columns))
    roles = {"safety": ("task", None), "reasoning": ("reasoning", None), "base": ("base", None),
             "TIES": ("merge", "ties"), "TIES (own)": ("merge", "ties"),
             "ReasonAny": ("merge", "reasonany"), "theirs": ("imported", None)}  # fmt: skip
    rows = [
        BoardRow(label, role, method, {}, "", {(h.task, h.metric): Cell(0.5, 0.01, 100) for h in headings},
                 imported=role == "imported")
        for label, (role, method) in roles.items()
    ]  # fmt: skip
    family = load_family("qwen7b-safety")
    said = papers.add(family, headings, rows)
    return Board(family.name, family.title, headings, rows, said, with_paper=True)


def of(made, label, task):
    row = next(row for row in made.rows if row.label == label)
    return next(cell for (name, _), cell in row.cells.items() if name == task)


def test_a_row_has_the_numbers_of_its_method_in_our_scale_once():
    made = board()
    assert of(made, "ReasonAny", "gsm8k").paper == pytest.approx(0.8628)
    assert of(made, "TIES", "gsm8k").paper == pytest.approx(0.0083)
    assert "printed as collapsed" in of(made, "TIES", "gsm8k").paper_note
    assert of(made, "safety", "harmbench").paper == 0.08 and of(made, "safety", "gsm8k").paper == 0.6942
    assert of(made, "TIES", "lm_eval:wikitext").paper > 1
    for label in ("base", "TIES (own)", "theirs"):
        row = next(row for row in made.rows if row.label == label)
        assert all(cell.paper is None for cell in row.cells.values())
    assert "table" in of(made, "ReasonAny", "safety_tuned").paper_note  # tables 1 and 3 disagree


def test_the_papers_averages_stand_under_the_table_with_ours():
    (said,) = board().footnotes
    assert "over its 9 accuracies" in said
    for part in ("safety 50.85 (50.00)", "reasoning 64.89 (50.00)", "TIES 13.46* (50.00)", "ReasonAny 59.33"):
        assert part in said
    (fewer,) = board(["gsm8k", "math500"]).footnotes
    assert "ReasonAny 59.33 (–)" in fewer


@pytest.mark.parametrize("name", paper.FAMILIES)
def test_every_family_of_the_paper_has_averages_where_it_prints_them(name):
    family = load_family(name)
    rows = [BoardRow("ReasonAny", "merge", "reasonany", {}, "", {})]
    assert len(papers.add(family, headings_of(tasks.named(["gsm8k"])), rows)) == 1


def test_every_format_shows_them(tmp_path):
    made = board()
    shown = {}
    for report in ("markdown", "latex", "csv", "json"):
        shown[report] = registry.report(report)(made, tmp_path)[0].read_text()
    assert "86.28 (−36.3)" in shown["markdown"] and r"86.28 (\ensuremath{-}36.3)" in shown["latex"]
    assert "0.8628" in shown["csv"] and "0.8628" in shown["json"]
    aside = [line for line in grid(made).lines if line.aside]
    assert len(aside) == 4 and any(mark == "§" for mark, _ in notes(made))
    without = dataclasses.replace(made, with_paper=False)
    assert not [line for line in grid(without).lines if line.aside]
