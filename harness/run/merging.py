"""The models of a plan made ready, and merges in shared passes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import inputs, steps
from harness.errors import HarnessError
from harness.plan import Plan, RowStep
from harness.run.outcome import Outcome
from harness.run.scoring import make_scores, score_groups
from harness.screen import Screen
from harness.store import reachable


def make_sources(plan: Plan, outcome: Outcome) -> set[Path]:
    """Convert what is not stored as safetensors. A row that cannot be converted fails alone, and its
    checkpoint is returned; a model that is merged stops the run."""
    lost: set[Path] = set()

    def unconverted(path: Path, error: HarnessError) -> None:
        lost.add(path)
        for row in [row for row in plan.rows if row.checkpoint == path]:
            outcome.fail(row.folder, "convert", row.label, error)

    outcome.warn(inputs.make(plan, lambda what: outcome.screen.now("convert", what), unconverted))
    return lost


def check_inputs(plan: Plan, outcome: Outcome, lineage: bool = True) -> None:
    """Stop on models that do not fit together; warn of what is merely odd."""
    show = lambda i, n: outcome.screen.now("check", "the models", i, n)  # noqa: E731
    outcome.warn(inputs.check(plan, show if lineage else None))


def make_merges(
    plan: Plan, rows: Sequence[RowStep], outcome: Outcome, kept: bool = True, **merging: Any
) -> list[RowStep]:
    """Merge `rows` in shared passes, each into its `checkpoint` folder; those that were made. A method whose
    code fails does not stop the others. `kept` says whether the weights stay there; `merging` are keywords of
    `harness.merge.merge`."""
    if not rows:
        return []
    what = rows[0].label if len(rows) == 1 else f"{len(rows)} merges in shared passes"
    outcome.screen.now("merge", what)
    show = lambda part, i, n: outcome.screen.now("merge", f"{what}, {part}", i, n)  # noqa: E731
    waits = lambda: outcome.waits("merge", what)  # noqa: E731
    records = steps.merge_rows(plan, rows, show, kept, waits, **merging)
    made = []
    for row, record in zip(rows, records, strict=True):
        if record["error"] is None:
            made.append((row, record))
        else:
            outcome.fail(row.folder, "merge", row.label, record["error"])
        outcome.warn_of(row, record)
    outcome.count(len(made))
    if made:
        outcome.screen.done("merge", what, f"{sum(made[0][1]['seconds'].values()):.1f} s")
    return [row for row, _ in made]


def merge_to(plan: Plan, to: Path, screen: Screen, **merging: Any) -> None:
    """Make the plan's one merge into the folder `to`; its gradient statistics stay in the store. `merging`
    are keywords of `harness.merge.merge`."""
    row, outcome = dataclasses.replace(plan.rows[0], checkpoint=to), Outcome(screen)
    groups = score_groups(plan, [row])
    if groups:
        plan.store.prepare()
    make_sources(plan, outcome)
    check_inputs(plan, outcome, lineage=False)  # it costs as much as the merge
    if not all([make_scores(plan, group, outcome, merging.get("device", "auto")) for group in groups]):
        raise HarnessError(outcome.failed[0], "traceback.txt in the step's folder says more")
    with reachable(to):
        (record,) = steps.merge_jobs(plan, [row], lambda *part: screen.now("merge", *part), True, **merging)
    outcome.warn_of(row, record)
    screen.done("merge", row.label, f"{sum(record['seconds'].values()):.1f} s")
