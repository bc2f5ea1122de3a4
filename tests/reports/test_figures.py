"""Figures: their rows against an oracle, files that repeat to the byte, colours told apart."""

import csv
import itertools
import json

import pytest

from harness import registry
from harness.board import Board, BoardRow, Cell, Heading
from harness.figures import bars, cost, layers, masks, palette, scatter, surface, write

GSM = Heading("gsm8k", "accuracy", "GSM8K", "Reasoning", True, "accuracy")
MATH = Heading("math500", "accuracy", "MATH", "Reasoning", True, "accuracy")
PASS = Heading("gsm8k", "pass@4", "GSM8K pass@4", "Reasoning", True, "accuracy", main=False)
HARM = Heading("safety_tuned", "harmfulness", "Safety-Tuned", "Safety", False, "score")
ASR = Heading("harmbench", "asr", "HarmBench", "Safety", False, "accuracy")
PPL = Heading("prose", "word_perplexity", "PPL", "Perplexity", False, "perplexity")
HEADINGS = [GSM, MATH, PASS, HARM, ASR, PPL]
GRID = [
    {"panel": panel, "x_name": "λ", "x": x, "y_name": "p", "y": y, "value": 50 + 10 * x + 100 * y}
    for panel in ("GSM8K", "ARC")
    for x in (0.1, 0.5, 1.0)
    for y in (0.01, 0.05, 0.1)
    if (panel, x, y) != ("ARC", 1.0, 0.1)
]
ABLATION = [
    {"setting": s, "metric": m, "value": v, "low": v - 2, "high": v + 2}
    for m in ("GSM8K", "Safety")
    for s, v in (("full", 80.0), ("without task selection", 30.0))
]
NORMS = [
    {"module": m, "series": s, "layer": n, "value": n + len(s), "name": "nuclear norm"}
    for m in "qkvo"
    for s in ("long CoT", "short CoT")
    for n in range(6)
]


def row(label, folder, gsm, math_, harm, asr, role="merge", collapsed=(), method="ties"):
    cells = {("gsm8k", "accuracy"): Cell(gsm, 0.01, 100), ("math500", "accuracy"): Cell(math_, 0.02, 100),
             ("gsm8k", "pass@4"): Cell(0.99, 0.01, 100),
             ("safety_tuned", "harmfulness"): Cell(harm, 0.1, 50, interval=[harm - 0.3, harm + 0.2]),
             ("harmbench", "asr"): Cell(asr, 0.05, 50)}  # fmt: skip
    return BoardRow(label, role, method if role == "merge" else None, {}, str(folder), cells, list(collapsed))


@pytest.fixture
def board(tmp_path):
    told = {"seconds": {"merge": 2.0, "prepare": 1.0}, "method_seconds": 0.5, "merged_together": 2,
            "peak_mib": {"merge": 2048.0}}  # fmt: skip
    shares = {"elements": 100, "roles": {"reasoning": {"selected": 30}, "task": {"selected": 0}}}
    mask = {"masks": True, "total": shares,
            "modules": {"embed_tokens": {"elements": 40, "roles": {"reasoning": {"selected": 24}}},
                        "q_proj": {"elements": 60, "roles": {"reasoning": {"selected": 6}}}}}  # fmt: skip
    folder = tmp_path / "models" / "ties"
    folder.mkdir(parents=True)
    (folder / "done.json").write_text(json.dumps(told))
    (folder / "masks.json").write_text(json.dumps(mask))
    rows = [
        row("base", tmp_path, 0.2, 0.2, 3.0, 0.9, role="base"),
        row("TIES", folder, 0.8, 0.6, 1.0, 0.2),
        row("TIES (paper)", tmp_path, 0.5, 0.5, 1.5, 0.1),
        row("broken", tmp_path, 0.0, 0.0, 0.0, 0.0, collapsed=["perplexity"]),
        row("beaten", tmp_path, 0.5, 0.5, 2.0, 0.3),
    ]
    return Board("fam", "a family", HEADINGS, rows, [])


def test_the_safety_score_is_four_less_harmfulness_and_reasoning_a_mean_of_main_columns(board):
    ties = next(r for r in scatter.rows(board) if r["row"] == "TIES" and r["domain"] == "Safety-Tuned")
    assert ties["x"] == pytest.approx(70.0) and ties["y"] == pytest.approx(3.0)
    assert (ties["y_low"], ties["y_high"]) == pytest.approx((2.8, 3.3))
    half = 1.96 * (0.01**2 + 0.02**2) ** 0.5 / 2 * 100
    assert ties["x_high"] - ties["x"] == pytest.approx(half)


def test_the_front_is_what_no_working_row_beats(board):
    for name in ("Safety-Tuned", "HarmBench"):
        panel = [r for r in scatter.rows(board) if r["domain"] == name]
        working = [r for r in panel if not r["collapsed"]]
        for r in panel:
            beaten = any((o["x"] > r["x"] and o["y"] >= r["y"]) or (o["x"] >= r["x"] and o["y"] > r["y"])
                         for o in working)  # fmt: skip
            assert r["front"] == (not beaten and not r["collapsed"]), r["row"]
    fronts = {r["row"] for r in scatter.rows(board) if r["front"] and r["domain"] == "HarmBench"}
    assert fronts == {"TIES", "TIES (paper)"}  # a share that is better low is shown as 100 - share
    assert not any(r["front"] for r in scatter.rows(board) if r["row"] in ("broken", "beaten"))


def test_a_row_without_a_reasoning_cell_is_not_placed_and_no_domain_is_no_figure(board, tmp_path):
    del board.rows[1].cells["math500", "accuracy"]
    assert "TIES" not in {r["row"] for r in scatter.rows(board)}
    board.headings = [GSM, MATH, PPL]
    assert write(scatter, "none", scatter.rows(board), tmp_path / "f") == [] and not (tmp_path / "f").exists()


def test_masks_and_cost_add_up(board):
    shares = {(r["role"], r["modules"]): r for r in masks.rows(board)}
    assert (
        shares["reasoning", "embeddings"]["share"] == 0.8 and shares["reasoning", "attention"]["share"] == 0.2
    )
    assert shares["reasoning", "attention"]["elements_share"] == 0.6
    assert all(shares["task", kind]["share"] == 0 for kind in ("embeddings", "attention", "MLP"))
    (ties,) = cost.rows(board)
    assert ties["own_seconds"] + ties["shared_seconds"] == 1.5 and ties["peak_gib"] == 2.0


@pytest.mark.parametrize(
    ("figure", "rows"),
    [(surface, GRID), (bars, ABLATION), (layers, NORMS)],
    ids=["surface", "bars", "layers"],
)
def test_figures_of_studies_are_drawn_from_a_table(figure, rows, tmp_path):
    paths = write(figure, "one", rows, tmp_path / "a")
    assert [p.suffix for p in paths] == [".pdf", ".svg", ".json", ".csv"]
    assert len(list(csv.DictReader(paths[3].open()))) == len(rows)
    again = write(figure, "one", rows, tmp_path / "b")
    assert [p.read_bytes() for p in paths] == [p.read_bytes() for p in again]


def test_plotly_takes_every_interactive_figure(board, tmp_path):
    plotly = pytest.importorskip("plotly.graph_objects")
    drawn = [(scatter, scatter.rows(board)), (cost, cost.rows(board)), (masks, masks.rows(board)),
             (surface, GRID), (bars, ABLATION), (layers, NORMS)]  # fmt: skip
    for figure, rows in drawn:
        found = plotly.Figure(figure.interactive(rows))  # raises on a property that plotly does not have
        assert len(found.data) >= 1


def test_the_report_writes_what_the_board_has(board, tmp_path):
    paths = registry.report("figures")(board, tmp_path)
    assert {p.stem for p in paths} == {"reasoning-domain", "masks", "cost"} and all(
        p.is_file() for p in paths
    )


def test_a_method_has_one_colour_and_no_two_methods_look_alike():
    assert palette.colour("ties") == palette.colour("ties") and palette.colour("mine") in palette.OTHERS
    for a, b in itertools.combinations(palette.METHODS.values(), 2):
        assert _distance(_linear(a), _linear(b)) > 0.1
        assert _distance(_deuteranope(a), _deuteranope(b)) > 0.04, (a, b)
    assert palette.markers(["ties", None, "ties", "led"]) == ["o", "o", "s", "o"]


def _linear(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]


def _deuteranope(colour):
    """Machado, Oliveira, Fernandes 2009, severity 1."""
    matrix = [(0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.01182, 0.04294, 0.968881)]
    parts = _linear(colour)
    return [sum(m * p for m, p in zip(line, parts, strict=True)) for line in matrix]


def _distance(a, b):
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) ** 0.5
