"""Carries out the points of a sweep in shared passes, and reads what they gave."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.board import Board, make_board
from harness.family import Family
from harness.plan import Plan
from harness.planner import make_plan
from harness.run import carry_out
from harness.screen import Screen
from harness.store import Store
from harness.sweep import grid, objective


@dataclass
class Sweep:
    """One method's points on one family; `fixed` settings hold for all, `options` are of `carry_out`."""

    family: Family
    store: Store
    method: str
    fixed: Mapping[str, Any]
    split: str
    tasks: Sequence[str] | None
    wanted: str | None
    screen: Screen
    engine: str = "auto"
    options: dict[str, Any] = field(default_factory=dict)
    failed: int = 0

    def plan(self, points: Sequence[grid.Point], limit: int | None) -> Plan:
        """The points' merges, and of the references the base: collapse is told by its perplexity."""
        rows = grid.family_of(self.family, self.method, points, self.fixed, self.split)
        plan = make_plan(rows, self.store, tasks=self.tasks, limit=limit, engine=self.engine, prepare=True)
        return only(plan, lambda row: row.is_merge or row.role == "base")

    def measure(self, points: Sequence[grid.Point], limit: int | None) -> list[float | None]:
        """Merge and evaluate; the objective of each point, None where a step failed."""
        plan = self.plan(points, limit)
        self.failed += len(carry_out(plan, self.screen, **self.options).failed)
        board = make_board(plan)
        return [objective.value(board, row, self.wanted) for row in board.rows if row.is_merge]

    def board(self, points: Sequence[grid.Point], limit: int | None) -> Board:
        """What is stored of the points."""
        return make_board(self.plan(points, limit))


def only(plan: Plan, keep: Any) -> Plan:
    """The plan with the rows for which `keep(row)` holds, and their steps."""
    rows = tuple(row for row in plan.rows if keep(row))
    evals = tuple(step for step in plan.evals if keep(step.row))
    return dataclasses.replace(
        plan,
        rows=rows,
        evals=evals,
        probes=tuple(step for step in plan.probes if keep(step.row)),
        judges=tuple(step for step in plan.judges if keep(step.evaluation.row)),
    )
