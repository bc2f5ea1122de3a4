"""Marks are computed once: best merge, collapse, not run; and rendered the same everywhere."""

import csv
import io

import pytest

from harness import registry
from harness.board import Board, BoardRow, Cell, Heading, marks

CHAIN = Heading("chain", "exact", "Chains", "Reasoning", True, "accuracy")
REFUSAL = Heading("refusal", "refused", "Refused", "Safety", True, "accuracy")
PPL = Heading("prose", "word_perplexity", "PPL", "Perplexity", False, "perplexity")


def row(label, chain=None, refusal=None, ppl=None, role="merge", collapsed=()):
    cells = {}
    for h, value in ((CHAIN, chain), (REFUSAL, refusal), (PPL, ppl)):
        if value is not None:
            cells[h.task, h.metric] = Cell(value, 0.01, 100, {"unfinished": 0.25})
    return BoardRow(label, role, label, {"scale": 1.0}, f"models/{label}", cells, list(collapsed))


def table(*rows):
    headings = [CHAIN, REFUSAL, PPL]
    marks.mark_best(headings, list(rows))
    return Board("fam", "a | family", headings, list(rows), ["a note with * and |"])


def best(board, heading):
    return [r.label for r in board.rows if (c := r.cells.get((heading.task, heading.metric))) and c.best]


def test_best_is_the_best_merge_after_rounding_and_never_a_reference():
    board = table(
        row("base", 0.99, 0.1, 1.0, role="base"), row("a", 0.9001, 0.5, 3.0), row("b", 0.9004, 0.4, 2.0)
    )
    assert best(board, CHAIN) == ["a", "b"]
    assert best(board, REFUSAL) == ["a"]
    assert best(board, PPL) == ["b"]


def test_a_collapsed_merge_is_never_best_however_safe_it_looks():
    board = table(row("broken", 0.0, 1.0, 1.0, collapsed=["perplexity"]), row("works", 0.5, 0.2, 9.0))
    assert best(board, REFUSAL) == ["works"] and best(board, PPL) == ["works"]
    assert board.text(board.rows[0], REFUSAL) == "100.0 ±1.0*"


def test_not_run_is_a_dash_and_never_zero():
    board = table(row("a", chain=0.0))
    assert board.text(board.rows[0], PPL) == "–" and board.text(board.rows[0], CHAIN) == "0.0 ±1.0"


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_perplexity_that_is_no_number_is_not_best(value):
    assert best(table(row("a", ppl=value), row("b", ppl=5.0)), PPL) == ["b"]


def test_markdown_has_every_row_and_escapes_what_markdown_reads(tmp_path):
    board = table(row("base", 0.1, role="base"), row("a|b", 0.9, 0.5, 3.0), row("c", 0.2, collapsed=["x"]))
    (path,) = registry.report("markdown")(board, tmp_path)
    text = path.read_text()
    assert "| *base* | 10.0 ±1.0 | – | – |" in text
    assert "| a\\|b | **90.0 ±1.0** | **50.0 ±1.0** | **3.00 ±0.01** |" in text
    assert "| c | *20.0 ±1.0*\\* | – | – |" in text
    assert "a note with \\* and \\|" in text


def test_csv_has_every_cell_with_what_is_behind_it(tmp_path):
    board = table(row("a", 0.9, 0.5), row("b", 0.2, 0.1, 2.5, collapsed=["broken"]))
    (path,) = registry.report("csv")(board, tmp_path)
    lines = list(csv.DictReader(io.StringIO(path.read_text())))
    assert len(lines) == 6
    first = lines[0]
    assert (first["row"], first["metric"], first["value"], first["stderr"], first["n"]) == (
        "a",
        "exact",
        "0.9",
        "0.01",
        "100",
    )
    assert first["unfinished"] == "0.25" and first["parameters"] == '{"scale": 1.0}'
    assert lines[2]["value"] == "" and lines[3]["collapsed"] == "broken"
