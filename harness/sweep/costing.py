"""What each row of a family costs alone, as a board: the paper's tables 20 and 21 are beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import paper, registry
from harness.board import Board, BoardRow, Cell, Heading
from harness.family import Family
from harness.figures import Row
from harness.screen import Screen
from harness.sweep.alone import Cost, cost
from harness.sweep.study import Variant

SECONDS, MEMORY, GPU = "seconds", "peak_gib", "gpu_gib"
HEADINGS = [
    Heading("cost", "statistics", "Statistics, s", "Time", False, "seconds"),
    Heading("cost", "merge", "Merge, s", "Time", False, "seconds"),
    Heading("cost", SECONDS, "Both, s", "Time", False, "seconds"),
    Heading("cost", "wall", "Command, s", "Time", False, "seconds"),
    Heading("cost", MEMORY, "Resident, GiB", "Peak memory", False, "GiB"),
    Heading("cost", GPU, "GPU, GiB", "Peak memory", False, "GiB"),
]
NOTE = (
    "each row alone in a process of its own, its gradient statistics computed anew; Command is the whole "
    "process with its start. The paper's: two 7B models in fp16 on one H200, in seconds and GB"
)
STAND_INS = {"sce": "fusellm"}


def measured(
    family: Family, file: str, found: Sequence[Variant], device: str, screen: Screen, scratch: Path
) -> dict[str, Cost]:
    """The cost of each row, by label; one after the other."""
    models = {"base": family.base}
    models |= {role: str(one.model) for role, one in family.experts.items() if one.model is not None}
    told = {}
    for variant in found:
        screen.now("cost", variant.label)
        told[variant.label] = cost(file, variant.label, device, models, scratch)
        own = told[variant.label]
        screen.done("cost", variant.label, f"{own.seconds:.1f} s  {own.peak_gib:.2f} GiB")
    return told


def board_of(family: Family, found: Sequence[Variant], costs: dict[str, Cost]) -> Board:
    """The table. A method of the paper has its figures in the first row that it has here."""
    printed = {row["method"]: row for row in paper.merge_cost()}
    headings = [h for h in HEADINGS if h.metric != GPU or any(c.gpu_gib is not None for c in costs.values())]
    rows = []
    for variant in found:
        own = costs[variant.label]
        method = registry.method(variant.method)
        cells = {h.metric: getattr(own, h.metric) for h in headings}
        row = BoardRow(
            variant.label, "merge", method.method_name, dict(variant.settings), "",
            {("cost", key): Cell(value, None, 1) for key, value in cells.items() if value is not None},
        )  # fmt: skip
        told = printed.pop(STAND_INS.get(method.method_name, method.method_name), None)
        if told is not None:
            row.cells["cost", SECONDS].paper = float(told["seconds"])
            if (gpu := row.cells.get(("cost", GPU))) is not None:
                gpu.paper = float(told["peak_gpu_gb"])
        rows.append(row)
    return Board(family.name, f"{family.title}: cost of the merges", headings, rows, [NOTE], with_paper=True)


def drawn(board: Board) -> list[Row]:
    """Rows of `harness.figures.cost`."""
    told = []
    for row in board.rows:
        value = {key: cell.value for (_, key), cell in row.cells.items()}
        told.append({"row": row.label, "method": row.method, "statistics_seconds": value["statistics"],
                     "merge_seconds": value["merge"], "peak_gib": value[MEMORY]})  # fmt: skip
    return told


def lines(board: Board) -> list[dict[str, Any]]:
    """For a CSV, the paper's figures in columns of their own."""
    printed = {row["method"]: row for row in paper.merge_cost()}
    found = []
    for row in board.rows:
        told = printed.get(row.method or "", {})
        cells = {h.metric: (cell.value if (cell := row.cell(h)) else None) for h in HEADINGS}
        found.append({"row": row.label, "method": row.method, **cells, "paper_seconds": told.get("seconds"),
                      "paper_gpu_gb": told.get("peak_gpu_gb")})  # fmt: skip
    return found
