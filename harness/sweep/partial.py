"""What is known while a sweep or study runs: written after every row, so that a killed one leaves it."""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.board import BoardRow, Heading
from harness.board.cells import cells_of
from harness.collapse import collapse_of
from harness.plan import Plan, RowStep
from harness.screen import Screen
from harness.store import write_text


class Telling(Screen):
    """A screen that also calls `told` whenever a row is evaluated."""

    def __init__(self) -> None:
        super().__init__()
        self.told: Callable[[], None] = lambda: None

    def done(self, kind: str, what: str, result: str) -> None:
        super().done(kind, what, result)
        if kind == "eval":
            with contextlib.suppress(OSError):  # the same is written at the end, where it must not fail
                self.told()


def measured(plan: Plan, step: RowStep) -> BoardRow:
    """A row with what is stored of it, without what takes a whole table (tests, marks, other seeds)."""
    cells = {}
    for evaluation in plan.evals_of(step):
        cells |= cells_of(plan, evaluation)
    broken = [*collapse_of(plan, step, plan.evals_of), *collapse_of(plan, step, plan.probes_of)]
    return BoardRow(step.label, step.role, None, {}, str(step.folder.path), cells, collapsed=broken)


def write_rows(
    path: Path, rows: Sequence[tuple[Mapping[str, Any], BoardRow]], headings: Sequence[Heading]
) -> None:
    """A CSV with a line for each row: what is said of it, unscaled values of the main columns (empty: not
    measured), and whether it collapsed."""
    shown = [heading for heading in headings if heading.main]
    lines = []
    for said, row in rows:
        cells = {h.key: cell.value for h in shown if (cell := row.cell(h)) is not None}
        lines.append(
            {**said, **{h.key: cells.get(h.key, "") for h in shown}, "collapsed": int(bool(row.collapsed))}
        )
    write_csv(path, lines)


def write_csv(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Whole or not at all; None is an empty field. The columns are those of the first line."""
    text = io.StringIO()
    if lines:
        out = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
        out.writeheader()
        out.writerows(lines)
    write_text(path, text.getvalue())
