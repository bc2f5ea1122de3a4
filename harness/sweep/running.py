"""Carries out rows of settings in shared passes, and reads what they gave."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.board import Board, make_board, mixing
from harness.board.cells import headings_of
from harness.family import Family
from harness.plan import Plan
from harness.planner import make_plan
from harness.run import carry_out
from harness.store import Store
from harness.sweep import grid, objective
from harness.sweep.partial import Telling, measured

Rows = Mapping[str, Mapping[str, Any]]  # label -> `method` and settings
Values = dict[str, float | None]  # label -> objective, None where a step failed or is not done


@dataclass
class Runs:
    """Rows on one family and split, compared by one objective; `options` are of `carry_out`."""

    family: Family
    store: Store
    split: str
    tasks: Sequence[str] | None
    wanted: str | None
    screen: Telling
    engine: str = "auto"
    options: dict[str, Any] = field(default_factory=dict)
    failed: int = 0
    _last: tuple[Any, ...] = field(default=(None, None, None), init=False)  # rows, limit, and their plan

    def plan(self, rows: Rows, limit: int | None) -> Plan:
        """The rows' merges, and of the references the base: collapse is told by its perplexity."""
        if self._last[:2] == (rows, limit):
            return self._last[2]
        family = grid.family_of(self.family, rows, self.split)
        plan = make_plan(family, self.store, tasks=self.tasks, limit=limit, engine=self.engine, prepare=True)
        self._last = rows, limit, only(plan, lambda row: row.is_merge or row.role == "base")
        return self._last[2]

    def measure(self, rows: Rows, limit: int | None, so_far: Callable[[Values], None]) -> Values:
        """Merge and evaluate. `so_far` is told the values whenever a row is done."""
        from harness import ready

        plan = self.plan(rows, limit)
        ready.check(plan, lambda what: self.screen.now("check", what))
        self.screen.told = lambda: so_far(self._values(plan))
        so_far(self._values(plan))
        self.failed += len(carry_out(plan, self.screen, **self.options).failed)
        self.screen.told = lambda: None
        found = self._values(plan)
        so_far(found)
        return found

    def _values(self, plan: Plan) -> Values:
        headings = headings_of(plan.tasks)
        return {
            step.recipe.label: objective.value(headings, measured(plan, step), self.wanted)
            for step in plan.rows
            if step.is_merge
        }

    def board(self, rows: Rows, limit: int | None) -> Board:
        """What is stored of the rows."""
        return board_of(self.plan(rows, limit))


def board_of(plan: Plan) -> Board:
    """The board of a plan's own rows, without imported ones; they are tested against the base."""
    board = make_board(plan, baseline="base", allow_mixed=True)
    board.rows = [row for row in board.rows if not row.imported]
    board.mixed = mixing.check(board.headings, board.rows)
    return board


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
