"""Whether a merge is broken: the rule of the family, on what was measured. Broken models look safe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from harness.evaluate.task_file import TaskFile
from harness.family import Collapse
from harness.plan import EvalStep, Plan, RowStep

RATES = ("unfinished", "repetition", "empty")
Records = Mapping[str, Mapping[str, Any]]  # task name -> what was recorded of its evaluation


def reasons(rule: Collapse, tasks: Mapping[str, TaskFile], found: Records, base: Records) -> list[str]:
    """Why a model with the records `found` counts as collapsed next to the base's; [] when it works.

    Perplexities are compared task by task, where both were measured; the rates are means over the
    generative tasks.
    """
    said = []
    for name, record in found.items():
        for column in tasks[name].columns:
            metrics = (r.get("metrics", {}).get(column.key) for r in (record, base.get(name, {})))
            value, reference = (m and m["value"] for m in metrics)
            if column.kind != "perplexity" or value is None or reference is None:
                continue
            if not value <= rule.ppl_ratio * reference:
                said.append(f"{column.title} {value:.4g} > {rule.ppl_ratio:g} × base's {reference:.4g}")
    for rate in RATES:
        limit = getattr(rule, rate)
        told = [
            record["rates"][rate]
            for record in found.values()
            if record.get("rates", {}).get(rate) is not None
        ]
        if told and (mean := sum(told) / len(told)) > limit:
            said.append(f"{rate} {mean:.0%} > {limit:.0%} of responses")
    return said


def collapse_of(plan: Plan, row: RowStep, steps_of: Callable[[RowStep], list[EvalStep]]) -> list[str]:
    """Why its steps say that a merge is broken, next to the base's; what is not complete says nothing."""
    base = next((other for other in plan.rows if other.role == "base"), None)
    records = [
        {step.task.name: step.folder.done() for step in steps_of(one) if step.folder.complete}
        for one in (row, base)
        if one is not None
    ]
    tasks = {step.task.name: step.task for step in steps_of(row)}
    return reasons(plan.family.collapse, tasks, *records, *([{}] if base is None else []))


def spelled(rule: Collapse) -> str:
    """The rule in words, for the line under a table."""
    shares = ", ".join(f"{rate} > {getattr(rule, rate):.0%}" for rate in RATES)
    return f"word perplexity > {rule.ppl_ratio:g} × base, or over generative tasks the mean {shares}"
