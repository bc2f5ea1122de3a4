"""The same comparison with several seeds: what draws is made and asked again, all else is not."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from harness.evaluate.decoding import samples
from harness.plan import EvalStep, JudgeStep, Plan, RowStep
from harness.store import Folder


def joined(first: Plan, others: Sequence[Plan]) -> Plan:
    """`first` with what other seeds change of it. `others` are plans of the same rows and tasks.

    A merge whose method draws becomes a row of its own for each seed (`seed_of` names the row that it
    repeats; it has no probe). Of any other row the evaluations that sample are added to the row itself."""
    rows, evals, judges = list(first.rows), list(first.evals), list(first.judges)
    scores = {step.folder.path: step for step in first.scores}
    for plan in others:
        for own, again in zip(first.rows, plan.rows, strict=True):
            if draws(again):
                seed = again.recipe.seed
                row = dataclasses.replace(again, label=f"{own.label} (seed {seed})", seed_of=own.label)
                rows.append(row)
                scores |= {step.folder.path: step for step in again.scores.values()}
                asked = plan.evals_of(again)
            else:
                row, asked = own, [step for step in plan.evals_of(again) if sampled(step)]
            for step in asked:
                moved = dataclasses.replace(step, row=row, folder=_under(row, step))
                evals.append(moved)
                judge = plan.judge_of(step)
                if judge is not None:
                    judges.append(dataclasses.replace(judge, evaluation=moved, folder=_under(row, judge)))
    return dataclasses.replace(
        first, rows=tuple(rows), evals=tuple(evals), judges=tuple(judges), scores=tuple(scores.values())
    )


def draws(row: RowStep) -> bool:
    """Whether the row's method draws random numbers with these settings."""
    return row.is_merge and bool(row.method.draws)


def sampled(step: EvalStep) -> bool:
    """Whether an evaluation's responses are drawn."""
    own = step.task.config.get("generation_kwargs") or {}
    return step.task.uses_generation and samples(own, step.recipe.generation)


def _under(row: RowStep, step: EvalStep | JudgeStep) -> Folder:
    return Folder(row.folder.path / "evals" / step.folder.path.name)
