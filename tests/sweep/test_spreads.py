"""Means and standard deviations over an axis and over seeds, against numpy."""

import numpy as np
import pytest

from harness.board import Board, BoardRow, Cell, Heading
from harness.family import load_family
from harness.sweep.carrying import Carried
from harness.sweep.study import Study, variants

GSM = Heading("gsm8k", "accuracy", "GSM8K", "Reasoning", True, "accuracy")
SIDE = Heading("gsm8k", "unparsed", "unparsed", "Reasoning", False, "accuracy", main=False)
PPL = Heading("prose", "ppl", "PPL", "Perplexity", False, "perplexity")


def carried(study, cells):
    """`cells`: for each row the value of GSM8K (None: not measured), or a cell."""
    found = variants(study, load_family("tiny-safety"))
    rows = {}
    for variant, value in zip(found, cells, strict=True):
        cell = value if isinstance(value, Cell) or value is None else Cell(value, None, 100)
        given = {("gsm8k", "accuracy"): cell, ("prose", "ppl"): Cell(2.0, None, 10)}
        given = {key: cell for key, cell in given.items() if cell is not None}
        rows[variant.label] = BoardRow(variant.label, "merge", "reasonany", {}, "", given)
    board = Board("tiny", "tiny", [GSM, SIDE, PPL], list(rows.values()), [])
    return Carried(study, found, board, rows)


def test_over_an_axis_for_each_setting_of_all_else():
    study = Study(name="s", title="t", method="reasonany", spread="p", rows={"a": {}, "b": {"scale": 2.0}},
                  grid={"p": [0.1, 0.2, 0.3], "exclusion": ["none", "drop_both"]})  # fmt: skip
    values = np.random.default_rng(0).random(12)
    lines = [line for line in carried(study, values).spread() if line["column"] == "gsm8k/accuracy"]
    assert [line["row"] for line in lines] == [
        f"{row} exclusion={rule}" for row in "ab" for rule in ("none", "drop_both")
    ]
    table = values.reshape(2, 3, 2)  # row, p, exclusion
    for line, (row, rule) in zip(lines, np.ndindex(2, 2), strict=True):
        own = table[row, :, rule]
        assert (line["mean"], line["sd"], line["n"]) == (
            pytest.approx(own.mean()), pytest.approx(own.std(ddof=1)), 3
        )  # fmt: skip


def test_a_missing_cell_leaves_its_place_empty_and_no_other():
    study = Study(name="s", title="t", method="ties", spread="scale", rows={"a": {}, "b": {"density": 0.4}},
                  grid={"scale": [0.1, 0.2]})  # fmt: skip
    lines = carried(study, [0.5, None, 0.2, 0.4]).spread()
    told = {(line["row"], line["column"]): (line["mean"], line["sd"]) for line in lines}
    assert told["a", "gsm8k/accuracy"] == (None, None) and told["a", "prose/ppl"] == (2.0, 0.0)
    assert told["b", "gsm8k/accuracy"][0] == pytest.approx(0.3) and len(told) == 4


def test_over_seeds_of_what_is_drawn():
    study = Study(name="s", title="t", rows={"dare": {"method": "dare"}, "ties": {"method": "ties"}}, seeds=3)
    drawn = Cell(0.4, None, 100, values=[0.2, 0.3, 0.7], sd=0.26)
    lines = {
        line["row"]: line for line in carried(study, [drawn, 0.5]).spread() if line["column"][:3] == "gsm"
    }
    assert lines["dare"]["mean"] == pytest.approx(0.4) and lines["dare"]["n"] == 3
    assert lines["dare"]["sd"] == pytest.approx(np.std([0.2, 0.3, 0.7], ddof=1))
    assert lines["ties"]["mean"] is None and lines["ties"]["n"] == 1


def test_a_study_that_asks_for_none_has_none():
    study = Study(name="s", title="t", method="ties", rows={"a": {}, "b": {"density": 0.4}})
    assert carried(study, [0.5, 0.6]).spread() == []
