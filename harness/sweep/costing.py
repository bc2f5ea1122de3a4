"""What each row of a family costs alone, as a board: the paper's tables 20 and 21 are beside it."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Iterator, Sequence
from typing import Any

from harness import paper, registry
from harness.board import Board, BoardRow, Cell, Heading
from harness.costs.machine import machine
from harness.errors import HarnessError
from harness.family import Family
from harness.figures import Row
from harness.planner import make_plan
from harness.recipe import written
from harness.screen import Screen
from harness.store import Folder, Store
from harness.sweep.alone import Cost, cost
from harness.sweep.grid import family_of
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
    "each row alone in a process of its own, once, its gradient statistics computed anew; Command is the "
    "whole process with its start. The paper's: two 7B models in fp16 on one H200, in s and GB of GPU memory"
)
STAND_INS = {"sce": "fusellm"}


def measured(
    family: Family, file: str, found: Sequence[Variant], device: str, screen: Screen, store: Store
) -> dict[str, Cost]:
    """The cost of each row, by label; one after the other. What is stored is not measured again; a row that
    fails is said and left out."""
    models = {"base": family.base}
    models |= {role: str(one.model) for role, one in family.experts.items() if one.model is not None}
    rows = {variant.label: {"method": variant.method, **variant.settings} for variant in found}
    plan = make_plan(family_of(family, rows, "test"), store, tasks=[], references=False, prepare=True)
    told = {}
    for step in plan.rows:
        name, row = step.recipe.label, rows[step.recipe.label]
        folder = Folder(store.root / "costs" / f"{device}--{step.folder.path.name}")
        try:
            if fresh := not folder.complete:
                screen.now("cost", name)
                with folder.working({**written(step.recipe), "device": device, "machine": _machine()}):
                    own = cost(file, name, row, device, models, folder.path / "scratch")
                    folder.finish(dataclasses.asdict(own))
            told[name] = own = Cost(**folder.done())
        except HarnessError as error:
            screen.failed("cost", name, error.message)
            continue
        stored = "" if fresh else "  from store"
        screen.done("cost", name, f"{own.seconds:.1f} s  {own.peak_gib:.2f} GiB{stored}")
    return told


def _machine() -> dict[str, Any]:
    """Where it was measured."""
    here = machine()
    return {"host": platform.node(), "cores": here.cores, "gpus": [gpu.name for gpu in here.gpus]}


def board_of(family: Family, found: Sequence[Variant], costs: dict[str, Cost]) -> Board:
    """The table. A method of the paper has its figures in the first row that it has here."""
    headings = [h for h in HEADINGS if h.metric != GPU or any(c.gpu_gib is not None for c in costs.values())]
    rows = []
    for variant in (one for one in found if one.label in costs):
        own = costs[variant.label]
        method = registry.method(variant.method).method_name
        cells = {h.metric: getattr(own, h.metric) for h in headings}
        row = BoardRow(
            variant.label, "merge", method, dict(variant.settings), "",
            {("cost", key): Cell(value, None, 1) for key, value in cells.items() if value is not None},
        )  # fmt: skip
        rows.append(row)
    for row, told in _printed(rows):
        row.cells["cost", SECONDS].paper = float(told["seconds"])
        if (gpu := row.cells.get(("cost", GPU))) is not None:
            gpu.paper = float(told["peak_gpu_gb"])
    return Board(family.name, f"{family.title}: cost of the merges", headings, rows, [NOTE], with_paper=True)


def _printed(rows: Sequence[BoardRow]) -> Iterator[tuple[BoardRow, dict[str, str]]]:
    """The first row of each method that the paper has, with what it prints."""
    left = {row["method"]: row for row in paper.merge_cost()}
    for row in rows:
        told = left.pop(STAND_INS.get(row.method, row.method), None)
        if told is not None:
            yield row, told


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
    printed = {row.label: told for row, told in _printed(board.rows)}
    found = []
    for row in board.rows:
        told = printed.get(row.label, {})
        cells = {h.metric: (cell.value if (cell := row.cell(h)) else None) for h in HEADINGS}
        found.append({"row": row.label, "method": row.method, **cells, "paper_seconds": told.get("seconds"),
                      "paper_gpu_gb": told.get("peak_gpu_gb")})  # fmt: skip
    return found
