"""`harness report`, and the reports at the end of a comparison."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import asked, registry
from harness.board import check_options, make_board
from harness.errors import HarnessError
from harness.plan import Plan
from harness.planner import make_plan
from harness.screen import Screen
from harness.store import digest
from harness.train import experts
from harness.verbs.locked import locked_family
from harness.verbs.rendering import write_reports

__all__ = ["report", "reports", "tables", "write_reports"]

# The page shows the figures, and the terminal prints the Markdown when it is piped.
LAST = ("figures", "html", "terminal")
TABLES = ("json", "csv", "markdown", "latex")


def report(
    family: str,
    methods: Sequence[str] | None,
    tasks: Sequence[str] | None,
    limit: int | None,
    results: Path,
    *,
    engine: str = "auto",
    seeds: int | None = None,
    names: Sequence[str] | None = None,
    watch: float | None = None,
    again: bool = False,
    **board: Any,
) -> int:
    """Render what the store holds, without running anything; the exit code. `names` are reports (default:
    all), `watch` the seconds between two looks while a run goes on, `board` keywords of `make_board`."""
    chosen = reports(names)
    loaded, store = locked_family(family, results)
    known = asked.everything(loaded, methods, tasks)
    check_options(loaded, store, known, **board)
    made = experts.steps(loaded, store)
    if waiting := [step.role for step in made if not step.ready]:
        raise HarnessError(
            f"the expert `{waiting[0]}` of family `{loaded.name}` is not trained yet, so nothing is measured",
            "run `harness compare` first; `harness status` shows how far it is",
        )
    plan = make_plan(
        experts.trained(loaded, made), store, limit=limit, engine=engine, known=known, seeds=seeds
    )
    if not any(step.folder.complete for step in plan.evals) and watch is None:
        raise HarnessError(
            f"nothing is measured yet for family `{loaded.name}` in {results}",
            "run `harness compare` with the same options, or name its --results",
        )
    with Screen() as screen:
        if watch is not None:
            return _watched(plan, screen, chosen, watch, board)
        return write_reports(make_board(plan, **board), store.report, screen, chosen, again=again)


def _watched(plan: Plan, screen: Screen, names: Sequence[str], every: float, board: dict[str, Any]) -> int:
    """Render whenever the store has more than at the last look, until nothing is left to do."""
    seen, code = "", 0
    while True:
        steps = [step.folder for step in (*plan.evals, *plan.judges)]
        done = sum(folder.complete for folder in steps)
        now = make_board(plan, **board)
        if (mark := digest(now.to_json())) != seen and done:
            seen, code = mark, write_reports(now, plan.store.report, screen, names)
        screen.info(f"{time.strftime('%H:%M:%S')}  {done} of {len(steps)} evaluations")
        if done == len(steps):
            return code
        time.sleep(every)


def reports(names: Sequence[str] | None = None) -> list[str]:
    """The reports to render, in their order: those named, or every one that is found."""
    found = registry.find("reports")
    for name in names or ():
        registry.get("reports", name)
    return sorted(names or found, key=lambda name: (LAST.index(name) if name in LAST else -1, name))


def tables() -> list[str]:
    """The reports that are a table alone, of those that are found: what sweeps and studies write."""
    return [name for name in TABLES if name in registry.find("reports")]
