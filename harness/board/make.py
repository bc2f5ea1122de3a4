"""A board from a plan: values, marks and footnotes, computed once and rendered many times."""

from __future__ import annotations

import math
from typing import Any

from harness import contamination, inputs, lock
from harness.board.model import NOT_RUN, Board, BoardRow, Cell, Heading
from harness.collapse import collapse_of, spelled
from harness.evaluate.task_file import Column, TaskFile
from harness.plan import Plan, RowStep
from harness.recipe import code_hash, file_of
from harness.store import Folder


def make_board(plan: Plan) -> Board:
    """The board of a plan from what the store holds."""
    headings = [_heading(task.name, column) for task in plan.tasks for column in task.columns]
    rows = [_row(plan, step) for step in plan.rows]
    _mark_collapse(plan, rows)
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
        cells.update(_cells(evaluation.task, evaluation.folder, done))
        if judge := plan.judge_of(evaluation):
            cells.update(_cells(evaluation.task, judge.folder, judge.folder.done()))
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


def _cells(task: TaskFile, folder: Folder, done: dict[str, Any]) -> dict[tuple[str, str], Cell]:
    known = {column.key for column in task.columns}
    return {
        (task.name, key): Cell(
            found["value"],
            found["stderr"],
            found["n"],
            {**(done.get("rates") or {}), **{k: found[k] for k in ("unparsed",) if k in found}},
            str(folder.path),
            interval=found.get("interval"),
            tokens=done.get("tokens_per_response"),
        )
        for key, found in done.get("metrics", {}).items()
        if key in known
    }


def _mark_collapse(plan: Plan, rows: list[BoardRow]) -> None:
    for row, step in zip(rows, plan.rows, strict=True):
        if row.role in ("merge", "checkpoint"):
            row.collapsed = collapse_of(plan, step, plan.evals_of)
            probed = collapse_of(plan, step, plan.probes_of)
            row.collapsed += [f"probe: {why}" for why in probed if why not in row.collapsed]


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
    notes.append(f"bold: best merge · * collapsed: {spelled(rule)}; {NOT_RUN} not run · ± standard error")
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
    notes += contamination.footnotes(plan) + lock.footnotes(plan)
    notes += _unread(plan) + _unsandboxed(plan)
    profiles = sorted({task.profile for task in plan.tasks})
    notes.append(f"task profile: {', '.join(profiles)} · decoding by role: " + _decoding(plan))
    notes += _untemplated(plan)
    own = [task.name for task in plan.tasks if task.own_decoding]
    if own:
        notes.append(f"decoded as the task says, whatever the role: {', '.join(own)}")
    notes += [
        f"{task.name}: mean of {count} responses to each item (avg@{count})"
        for task in plan.tasks
        if (count := max((s.recipe.repeats for s in plan.evals if s.task is task), default=1)) > 1
    ]
    for task in plan.tasks:
        if task.judge:
            own = plan.family.judges.get(task.name.removesuffix("_paper"), {})
            notes.append(f"{task.name}: judged by {own.get('model', task.judge.model)}")
    return notes


def _untemplated(plan: Plan) -> list[str]:
    """Under `chat_template: auto`, who has none."""
    asked = (s for s in plan.evals if plan.family.chat_template == "auto" and s.task.chat_template)
    plain = dict.fromkeys(s.row.label for s in asked if not s.recipe.chat_template)
    return [f"asked in plain text, for want of a chat template: {', '.join(plain)}"] if plain else []


def _unread(plan: Plan) -> list[str]:
    """Judgements that could not be read: they are part of no mean, and not to be lost sight of."""
    counts: dict[str, list[int]] = {}
    for step in plan.judges:
        done = step.folder.done()
        told = counts.setdefault(step.evaluation.task.name, [0, 0])
        told[0] += sum(done.get("unparsed", {}).values())
        told[1] += done.get("judged", 0)
    return [f"{task}: {n} of {all_} judgements could not be read" for task, (n, all_) in counts.items() if n]


def _unsandboxed(plan: Plan) -> list[str]:
    bare = {step.task.name for step in plan.evals if step.folder.done().get("sandbox") == "none"}
    return [f"{', '.join(sorted(bare))}: generated code ran without a sandbox"] if bare else []


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
