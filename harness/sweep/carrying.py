"""Carries a study's rows out on one family: one plan where possible, one board, a line for each row."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.board import Board, BoardRow, Heading
from harness.board.significance import items
from harness.errors import HarnessError
from harness.method import configure
from harness.plan import Plan
from harness.planner import make_plan
from harness.registry import method as method_of
from harness.run import carry_out
from harness.screen import Screen
from harness.store import Store
from harness.sweep.claims import Verdict, judge
from harness.sweep.grid import family_of, label
from harness.sweep.running import board_of
from harness.sweep.study import ROW, Study, Variant


@dataclass(frozen=True)
class Asked:
    """What all rows of a study have in common."""

    split: str = "test"
    tasks: Sequence[str] | None = None
    limit: int | None = None
    seeds: int | None = None
    engine: str = "auto"


def check(found: Sequence[Variant]) -> None:
    """Raise HarnessError for rows that need calibration data which their family does not have."""
    for variant in found:
        method = configure(method_of(variant.method), dict(variant.settings))
        roles = variant.family.roles
        read = [need.role for need in method.needs(roles)] if hasattr(method, "needs") else []
        read += method.reads_rows(roles) if hasattr(method, "reads_rows") else ()
        for role in read:
            if role not in variant.family.calibration:
                raise HarnessError(
                    f"row `{variant.label}` needs calibration data of `{role}`, "
                    f"and family `{variant.family.name}` has none",
                    f"add `calibration: {{{role}: {{data: ..., text: ...}}}}` to the family file",
                )


def plans_of(found: Sequence[Variant], store: Store, asked: Asked) -> list[Plan]:
    """A plan for each family among the rows (other calibration makes another one); only the first has the
    references."""
    groups: list[tuple[Any, list[Variant]]] = []
    for variant in found:
        own = next((group for family, group in groups if family == variant.family), None)
        if own is None:
            groups.append((variant.family, own := []))
        own.append(variant)
    plans = []
    for family, group in groups:
        rows = {v.label: {"method": v.method, **v.settings} for v in group}
        plans.append(
            make_plan(
                family_of(family, rows, asked.split),
                store,
                tasks=asked.tasks,
                limit=asked.limit,
                seeds=asked.seeds,
                engine=asked.engine,
                references=not plans,
                prepare=True,
            )  # fmt: skip
        )
    return plans


def joined(plans: Sequence[Plan]) -> Plan:
    """One plan with all rows, whose merges share the passes."""
    first = plans[0]
    scores = {step.folder.path: step for plan in plans for step in plan.scores}
    parts = {
        name: tuple(step for plan in plans for step in getattr(plan, name))
        for name in ("rows", "evals", "probes", "judges")
    }
    sources = {name: source for plan in reversed(plans) for name, source in plan.sources.items()}
    return dataclasses.replace(first, scores=tuple(scores.values()), sources=sources, **parts)


def carry(plans: Sequence[Plan], screen: Screen, **options: Any) -> int:
    """Do what the store lacks; how many steps failed. A method that trains reads the calibration data of its
    plan's family, so that plans with one are carried out one by one."""
    one = joined(plans)
    trains = any(row.recipe.rows for row in one.rows if row.is_merge)
    return sum(len(carry_out(plan, screen, **options).failed) for plan in (plans if trains else [one]))


@dataclass(frozen=True)
class Carried:
    """A study on one family: its board, and the board's rows by the study's labels."""

    study: Study
    variants: Sequence[Variant]
    board: Board
    rows: Mapping[str, BoardRow]

    @property
    def merges(self) -> list[tuple[Variant, BoardRow]]:
        return [(variant, self.rows[variant.label]) for variant in self.variants]

    def verdicts(self) -> list[Verdict]:
        """What each claim comes to here."""
        given = lambda row, h: (cell := row.cell(h)) and items(cell, h.metric)  # noqa: E731
        return [
            judge(claim, self.variants, dict(self.rows), self.board.headings, given)
            for claim in self.study.claims
        ]

    def spread(self) -> list[dict[str, Any]]:
        """Of each main column the mean and the standard deviation over the points of the axis `spread`, for
        each setting of all else, or of each row over its seeds (unscaled; None where a cell is missing)."""
        lines = []
        for name, values in self._spreads():
            for heading in (h for h in self.board.headings if h.main):
                given = values(heading)
                whole = None not in given and len(given) > 1
                lines.append({
                    "row": name, "column": heading.key, "title": f"{heading.title} {heading.arrow}",
                    "mean": math.fsum(given) / len(given) if whole else None,
                    "sd": deviation(given) if whole else None, "n": len(given),
                })  # fmt: skip
        return lines

    def _spreads(self) -> Iterator[tuple[str, Callable[[Heading], list[float | None]]]]:
        """(name, values of a column) that belong together."""
        axis = self.study.spread
        groups: dict[str, list[BoardRow]] = {}
        for variant, row in self.merges if axis else ():
            rest = {key: value for key, value in variant.point.items() if key != axis}
            groups.setdefault(label(rest.pop(ROW, ""), rest), []).append(row)
        for name, rows in groups.items():
            yield name, lambda h, rows=rows: [c and c.value for c in (row.cell(h) for row in rows)]
        for _, row in self.merges if self.study.seeds > 1 else ():
            yield row.label, lambda h, row=row: _seeds(row.cell(h))


def _seeds(cell: Any) -> list[float | None]:
    """The values of a cell by seed; one value where nothing was drawn."""
    return [None] if cell is None else cell.values or [cell.value]


def deviation(values: Sequence[float]) -> float:
    """The sample's standard deviation."""
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def carried(study: Study, found: Sequence[Variant], plan: Plan) -> Carried:
    """What the store has of a study's joined plan."""
    board = board_of(plan)
    steps = [step for step in plan.rows if step.seed_of is None]
    rows = {}
    for step, row in zip(steps, board.rows, strict=True):
        rows["base" if step.role == "base" else step.recipe.label if step.is_merge else step.label] = row
    return Carried(study, found, board, rows)
