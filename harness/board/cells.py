"""Cells from the folders of evaluations and judgements."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from harness.board import mixing
from harness.board.model import Cell, Heading
from harness.checkpoint.template import template_hash
from harness.evaluate.decoding import decoding
from harness.evaluate.task_file import Column, TaskFile
from harness.plan import EvalStep, Plan, RowStep
from harness.stats.items import items_of
from harness.stats.paired import spread_of
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
        judged = {**settings, "judge": f"{judge.judge.model} {judge.recipe.model} {judge.recipe.code[:8]}"}
        found |= _cells(evaluation.task, judge.folder, judged)
    return found


def settings_of(plan: Plan, evaluation: EvalStep) -> dict[str, Any]:
    """What may not differ within a column unless the family says so (`harness.board.mixing`). The chat
    template is the hash of the one that prompts went through; decoding is there of what is generated."""
    recipe, task = evaluation.recipe, evaluation.task
    own = decoding(task.config.get("generation_kwargs") or {}, recipe.generation)
    return {
        "profile": recipe.profile,
        mixing.TEMPLATE: _template(plan, evaluation.row) if recipe.chat_template else False,
        **({mixing.DECODING: {k: v for k, v in own.items() if k != "until"}} if task.uses_generation else {}),
        "engine": recipe.engine,
        **{str(key): value for key, value in recipe.numerics.items()},
        "limit": recipe.limit,
        "split": recipe.split,
        "repeats": recipe.repeats,
        "task definition": recipe.prompts,
    }


def _template(plan: Plan, row: RowStep) -> str | bool:
    """Merges have their donor's; True where nothing says which."""
    name = plan.donor if row.is_merge else f"row {row.label}" if row.role == "checkpoint" else row.role
    if plan.family.chat_template == "auto":
        return mixing.DECLARED
    return (template_hash(plan.sources[name]) if name in plan.sources else None) or True


def _cells(task: TaskFile, folder: Folder, settings: dict[str, Any]) -> dict[tuple[str, str], Cell]:
    done, columns = folder.done(), {column.key: column for column in task.columns}
    metrics = done.get("metrics", {})
    if task.cluster:
        metrics = {key: {**found, **_clustered(folder, key)} for key, found in metrics.items()}
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
        for key, found in metrics.items()
        if key in columns
    }


def _clustered(folder: Folder, metric: str) -> dict[str, float]:
    """The standard error of a mean whose items share something."""
    items = items_of(folder.path, metric)
    if items is None or items.ratio or items.clusters is None:
        return {}
    spread = spread_of(items.values, items.clusters)
    return {} if spread is None else {"stderr": spread / math.sqrt(len(items.ids))}


def interval_of(found: dict[str, Any], kind: str) -> list[float] | None:
    """95 % from value, stderr and n: Wilson's for a share whose standard error is that of scores of 0 and 1
    (JASA 22, 1927), value ± 1.96 stderr for other means; None without a standard error."""
    value, stderr, n = found["value"], found["stderr"], found["n"]
    if stderr is None or not (math.isfinite(value) and math.isfinite(stderr)) or n < 2:
        return None
    binary = math.sqrt(max(0.0, value * (1 - value)) / (n - 1)) if 0 <= value <= 1 else math.nan
    if kind != "accuracy" or not math.isclose(binary, stderr, rel_tol=1e-6, abs_tol=1e-12):
        return clipped([value - Z * stderr, value + Z * stderr], kind)
    middle = (value + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(value * (1 - value) / n + Z * Z / (4 * n * n))
    return [max(0.0, min(middle - half, value)), min(1.0, max(middle + half, value))]


def clipped(interval: list[float], kind: str) -> list[float]:
    """A share lies between 0 and 1."""
    return [min(1.0, max(0.0, end)) for end in interval] if kind == "accuracy" else interval


def folded(runs: list[Cell], kind: str) -> Cell:
    """Runs of one cell with several seeds as one: mean and standard deviation, all values behind it.

    The interval's half-width, to either side, is sqrt(w² + (1.96 sd / sqrt(k))²): w is the mean of the k
    runs' own half-widths there (Wilson's, of a share), sd the standard deviation between them. The runs ask
    the same items, so that what comes of the draw of items does not shrink with k, as the part of the run
    does; and w is above zero where every run has 0 % or 100 %, though no standard error is. `sd_items` is the
    root mean square of the runs' standard errors: what the draw of items alone does to one run."""
    first, k = runs[0], len(runs)
    if k == 1:
        return first
    values = [cell.value for cell in runs]
    mean = math.fsum(values) / k
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (k - 1))
    spreads = [cell.stderr for cell in runs]
    stderr = sd_items = None
    if None not in spreads and math.isfinite(sd):
        sd_items = math.sqrt(math.fsum(s * s for s in spreads) / k)
        stderr = math.hypot(sd_items, sd / math.sqrt(k))
    told = {name: [cell.rates.get(name) for cell in runs] for name in first.rates}
    rates = {name: sum(given) / k if None not in given else None for name, given in told.items()}
    tokens = None if any(c.tokens is None for c in runs) else math.fsum(c.tokens for c in runs) / k
    return dataclasses.replace(
        first,
        value=mean,
        stderr=stderr,
        sd=sd,
        sd_items=sd_items,
        values=values,
        folders=[cell.folder for cell in runs],
        interval=_around(mean, sd, runs, kind),
        rates=rates,
        tokens=tokens,
        stale=any(cell.stale for cell in runs),
    )


def _around(mean: float, sd: float, runs: list[Cell], kind: str) -> list[float] | None:
    """The interval of a mean over runs; None where a run has none."""
    if any(cell.interval is None for cell in runs) or not math.isfinite(sd):
        return None
    run = Z * sd / math.sqrt(len(runs))
    low = math.fsum(cell.value - cell.interval[0] for cell in runs) / len(runs)
    high = math.fsum(cell.interval[1] - cell.value for cell in runs) / len(runs)
    return clipped([mean - math.hypot(low, run), mean + math.hypot(high, run)], kind)
