"""The table model: values, marks and footnotes, computed once and rendered many times."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from harness import inputs
from harness.evaluate.task_file import Column
from harness.plan import EvalStep, Plan, RowStep
from harness.recipe import code_hash, file_of

NOT_RUN = "–"
SAFETY = "Safety"


@dataclass(frozen=True)
class Heading:
    """A column: one metric of one task."""

    task: str
    metric: str
    title: str
    group: str
    higher_is_better: bool
    kind: str

    @property
    def arrow(self) -> str:
        return "↑" if self.higher_is_better else "↓"

    def scaled(self, value: float) -> float:
        """Shares are shown in percent."""
        return value * 100 if self.kind == "accuracy" else value

    @property
    def digits(self) -> int:
        return 1 if self.kind == "accuracy" else 2

    def rounded(self, value: float) -> float:
        return round(self.scaled(value), self.digits)


@dataclass
class Cell:
    """One value with its standard error and n; `rates` are shares of responses (unparsed and so on)."""

    value: float
    stderr: float | None
    n: int
    rates: dict[str, float] = field(default_factory=dict)
    folder: str = ""
    best: bool = False


@dataclass
class BoardRow:
    """One row. `collapsed` holds the reasons, and is empty for a row that works."""

    label: str
    role: str
    method: str | None
    parameters: dict[str, Any]
    folder: str
    cells: dict[tuple[str, str], Cell]
    collapsed: list[str] = field(default_factory=list)
    stale: bool = False
    notes: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def is_merge(self) -> bool:
        return self.role == "merge"


@dataclass
class Board:
    """The table of one family."""

    family: str
    title: str
    headings: list[Heading]
    rows: list[BoardRow]
    footnotes: list[str]
    limit: int | None = None
    split: str = "test"

    def text(self, row: BoardRow, heading: Heading, *, error: bool = True) -> str:
        """The cell as text: value ± standard error, `*` for a collapsed row, – when not run."""
        cell = row.cells.get((heading.task, heading.metric))
        if cell is None:
            return NOT_RUN
        text = number(heading.scaled(cell.value), heading.digits)
        if error and cell.stderr is not None and math.isfinite(cell.stderr):
            text += f" ±{number(heading.scaled(cell.stderr), heading.digits)}"
        return text + ("*" if row.collapsed else "")

    def label(self, row: BoardRow) -> str:
        return row.label + (" †" if row.stale else "")

    def n(self, heading: Heading) -> str:
        """Items behind a column; a range when rows differ."""
        counts = {c.n for r in self.rows if (c := r.cells.get((heading.task, heading.metric)))}
        return NOT_RUN if not counts else "–".join(str(n) for n in sorted({min(counts), max(counts)}))


def number(value: float, digits: int) -> str:
    """Fixed digits; very large values (a broken model's perplexity) in scientific form."""
    return f"{value:.{digits}f}" if abs(value) < 1e5 else f"{value:.2e}"


def make_board(plan: Plan) -> Board:
    """The board of a plan from what the store holds."""
    headings = [_heading(task.name, column) for task in plan.tasks for column in task.columns]
    rows = [_row(plan, step) for step in plan.rows]
    _mark_collapse(plan, headings, rows)
    _mark_best(headings, rows)
    return Board(
        plan.family.name,
        plan.family.title,
        headings,
        rows,
        _footnotes(plan, rows),
        plan.limit,
        plan.family.split,
    )


def _heading(task: str, column: Column) -> Heading:
    return Heading(task, column.key, column.title, column.group, column.higher_is_better, column.kind)


def _row(plan: Plan, step: RowStep) -> BoardRow:
    cells: dict[tuple[str, str], Cell] = {}
    made, stale = step.folder.done(), False
    for evaluation in plan.evals_of(step):
        done = evaluation.folder.done()
        cells.update(_cells(evaluation, done))
        # weights rebuilt by newer code than the ones this evaluation saw
        stale |= bool(done) and done.get("fingerprint") != made.get("fingerprint")
    if step.is_merge and made:
        stale |= made.get("code") != code_hash(file_of(type(step.method)))
    return BoardRow(
        step.label,
        step.role,
        type(step.method).method_name if step.is_merge else None,
        getattr(step.recipe, "parameters", {}),
        str(step.folder.path),
        cells,
        stale=stale,
        notes=(*step.notes, *made.get("mask_warnings", ())),
        seconds=made.get("seconds", {}),
    )


def _cells(step: EvalStep, done: dict[str, Any]) -> dict[tuple[str, str], Cell]:
    known = {column.key for column in step.task.columns}
    return {
        (step.task.name, key): Cell(
            found["value"], found["stderr"], found["n"], done.get("rates", {}), str(step.folder.path)
        )
        for key, found in done.get("metrics", {}).items()
        if key in known
    }


def _mark_collapse(plan: Plan, headings: list[Heading], rows: list[BoardRow]) -> None:
    rule, base = plan.family.collapse, next((r for r in rows if r.role == "base"), None)
    generative = {task.name for task in plan.tasks if task.uses_generation}
    for row in rows:
        if not row.is_merge:
            continue
        for h in headings:
            cell, reference = row.cells.get((h.task, h.metric)), base and base.cells.get((h.task, h.metric))
            if (
                h.kind == "perplexity"
                and cell
                and reference
                and not cell.value <= rule.ppl_ratio * reference.value
            ):
                row.collapsed.append(
                    f"{h.title} {cell.value:.4g} > {rule.ppl_ratio:g} × base's {reference.value:.4g}"
                )
        for rate, limit in (("unfinished", rule.unfinished), ("repetition", rule.repetition)):
            by_task = {
                task: c.rates[rate]
                for (task, _), c in row.cells.items()
                if task in generative and rate in c.rates
            }
            if by_task and (mean := sum(by_task.values()) / len(by_task)) > limit:
                row.collapsed.append(f"{rate} {mean:.0%} > {limit:.0%} of responses")


def _mark_best(headings: list[Heading], rows: list[BoardRow]) -> None:
    """Best merge after rounding, ties all marked; reference rows and collapsed merges never."""
    for h in headings:
        cells = [
            c
            for r in rows
            if r.is_merge
            and not r.collapsed
            and (c := r.cells.get((h.task, h.metric)))
            and math.isfinite(c.value)
        ]
        if cells:
            best = (max if h.higher_is_better else min)(h.rounded(c.value) for c in cells)
            for cell in cells:
                cell.best = h.rounded(cell.value) == best


def _footnotes(plan: Plan, rows: list[BoardRow]) -> list[str]:
    rule, notes = plan.family.collapse, []
    if plan.family.note:
        notes.append(" ".join(plan.family.note.split()))
    notes.append(
        f"bold: best merge · * collapsed: word perplexity > {rule.ppl_ratio:g} × base, or mean unfinished > "
        f"{rule.unfinished:.0%} or repetitive > {rule.repetition:.0%} over generative tasks · "
        f"{NOT_RUN} not run · ± standard error"
    )
    if plan.limit is not None:
        notes.append(f"--limit {plan.limit}: only the first {plan.limit} items of each task were used")
    if plan.family.split != "test":
        notes.append(f"measured on the {plan.family.split} split")
    notes += [f"* {row.label}: {'; '.join(row.collapsed)}" for row in rows if row.collapsed]
    notes += [f"{row.label}: {note}" for row in rows for note in row.notes]
    if any(row.stale for row in rows):
        notes.append(
            "† merged by an older version of the method's code; `harness clean --rows LABEL` makes it anew"
        )
    notes += inputs.footnotes(plan)
    profiles = sorted({task.header.get("profile", "standard") for task in plan.tasks})
    notes.append(f"task profile: {', '.join(profiles)} · decoding by role: " + _decoding(plan))
    return notes


def _decoding(plan: Plan) -> str:
    groups: dict[str, list[str]] = {}
    for row in plan.rows:
        kind = row.decodes_as
        spelled = (
            ", ".join(f"{k} {v}" for k, v in plan.family.generation_for(kind).items()) or "as the task says"
        )
        if kind not in groups.setdefault(spelled, []):
            groups[spelled].append(kind)
    return "; ".join(f"{'/'.join(kinds)}: {spelled}" for spelled, kinds in groups.items())
