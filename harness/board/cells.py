"""Cells from the folders of evaluations and judgements."""

from __future__ import annotations

import math
from typing import Any

from harness.board.model import Cell, Heading
from harness.evaluate.task_file import Column, TaskFile
from harness.plan import EvalStep, Plan
from harness.store import Folder

ORDER = {"Reasoning": 0, "Knowledge": 1, "Perplexity": 9}  # as the paper groups; domains stand between
DOMAIN = 5
Z = 1.959964


def headings_of(tasks: tuple[TaskFile, ...]) -> list[Heading]:
    """Columns by group in the paper's order; within a group as the tasks were named."""
    found = [_heading(task.name, column) for task in tasks for column in task.columns]
    groups = list(dict.fromkeys(h.group for h in found))
    return sorted(found, key=lambda h: (ORDER.get(h.group, DOMAIN), groups.index(h.group)))


def _heading(task: str, column: Column) -> Heading:
    return Heading(
        task, column.key, column.title, column.group, column.higher_is_better, column.kind, column.main
    )


def cells_of(plan: Plan, evaluation: EvalStep) -> dict[tuple[str, str], Cell]:
    """What an evaluation and its judgement measured, by (task, metric)."""
    settings = settings_of(plan, evaluation)
    found = _cells(evaluation.task, evaluation.folder, settings)
    if judge := plan.judge_of(evaluation):
        judged = {**settings, "judge": judge.judge.model}
        found |= _cells(evaluation.task, judge.folder, judged)
    return found


def settings_of(plan: Plan, evaluation: EvalStep) -> dict[str, Any]:
    """What may not differ within a column unless the family says so; decoding is declared by role, a chat
    template that a model lacks by `chat_template: auto`."""
    recipe = evaluation.recipe
    template = "declared" if plan.family.chat_template == "auto" else bool(recipe.chat_template)
    return {
        "profile": recipe.profile,
        "chat template": template,
        "engine": recipe.engine,
        **{str(key): value for key, value in recipe.numerics.items()},
        "limit": recipe.limit,
        "split": recipe.split,
        "repeats": recipe.repeats,
        "task definition": recipe.prompts,
    }


def _cells(task: TaskFile, folder: Folder, settings: dict[str, Any]) -> dict[tuple[str, str], Cell]:
    done, columns = folder.done(), {column.key: column for column in task.columns}
    return {
        (task.name, key): Cell(
            found["value"],
            found["stderr"],
            found["n"],
            {**(done.get("rates") or {}), **{k: found[k] for k in ("unparsed",) if k in found}},
            str(folder.path),
            interval=found.get("interval") or interval_of(found, columns[key].kind),
            tokens=done.get("tokens_per_response"),
            settings=settings,
        )
        for key, found in done.get("metrics", {}).items()
        if key in columns
    }


def interval_of(found: dict[str, Any], kind: str) -> list[float] | None:
    """95 % from value, stderr and n: Wilson's for a share whose standard error is that of scores of 0 and 1
    (JASA 22, 1927), value ± 1.96 stderr for other means; None without a standard error."""
    value, stderr, n = found["value"], found["stderr"], found["n"]
    if stderr is None or not (math.isfinite(value) and math.isfinite(stderr)) or n < 2:
        return None
    binary = math.sqrt(max(0.0, value * (1 - value)) / (n - 1)) if 0 <= value <= 1 else math.nan
    if kind != "accuracy" or not math.isclose(binary, stderr, rel_tol=1e-6, abs_tol=1e-12):
        return [value - Z * stderr, value + Z * stderr]
    middle = (value + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(value * (1 - value) / n + Z * Z / (4 * n * n))
    return [max(0.0, min(middle - half, value)), min(1.0, max(middle + half, value))]
