"""Gradient statistics that are computed together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness import steps
from harness.errors import HarnessError
from harness.plan import Plan, RowStep, ScoreStep
from harness.run.outcome import Outcome


def score_groups(plan: Plan, merges: Sequence[RowStep]) -> list[list[ScoreStep]]:
    """What these merges read and the store lacks: in each group one backward pass per row gives all, and a
    group comes after those that it reads (`reads`)."""
    groups: dict[str, list[ScoreStep]] = {}
    for step in plan.scores_to_make(merges):
        groups.setdefault(step.recipe.together, []).append(step)
    return list(groups.values())


def reads(group: Sequence[ScoreStep]) -> set[Path]:
    """The folders of the statistics that a group reads itself."""
    return {read.folder.path for step in group for read in step.after}


def make_scores(plan: Plan, group: Sequence[ScoreStep], outcome: Outcome, device: str = "auto") -> bool:
    """Compute a group; whether that worked. Raises HarnessError for what no merge could do without."""
    what = ", ".join(step.label for step in group)
    missing = [path for path in reads(group) if not (path / "done.json").is_file()]
    if missing:
        _fail(group, outcome, "a statistic that it reads failed")
        return False
    outcome.screen.now("scores", what)
    try:
        show = lambda i, n: outcome.screen.now("scores", what, i, n)  # noqa: E731
        waits = lambda: outcome.waits("scores", what)  # noqa: E731
        record = steps.compute_scores(group, plan, show, device, waits)
    except HarnessError:
        raise
    except Exception as error:
        _fail(group, outcome, error)
        return False
    outcome.count(len(group))
    outcome.screen.done("scores", what, f"{record['seconds']['scores']:.1f} s")
    return True


def _fail(group: Sequence[ScoreStep], outcome: Outcome, error: Exception | str) -> None:
    for step in group:
        outcome.fail(step.folder, "scores", step.label, error)


def with_scores(rows: Sequence[RowStep], outcome: Outcome) -> list[RowStep]:
    """The rows whose statistics are all there; the others have failed."""
    ready = []
    for row in rows:
        if all(step.folder.complete for step in row.scores.values()):
            ready.append(row)
        else:
            outcome.fail(row.folder, "merge", row.label, "a gradient statistic that it reads failed")
    return ready
