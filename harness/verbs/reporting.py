"""`harness report`, and the reports at the end of a comparison."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import __version__, asked, registry
from harness.board import Board, check_options, make_board
from harness.errors import HarnessError
from harness.plan import Plan
from harness.planner import make_plan
from harness.screen import Screen
from harness.store import digest, reachable, write_text
from harness.train import experts
from harness.verbs.locked import locked_family

# The page shows the figures, and the terminal prints the Markdown when it is piped.
LAST = ("figures", "html", "terminal")
MADE = "rendered.json"


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
    check_options(loaded, **board)
    known = asked.everything(loaded, methods, tasks)
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


def write_reports(
    board: Board, folder: Path, screen: Screen, names: Sequence[str], *, again: bool = False
) -> int:
    """Render `board` into `folder`; the exit code. A report is not rendered anew where neither the board nor
    the report changed; one that fails does not stop the others."""
    with reachable(folder):
        folder.mkdir(parents=True, exist_ok=True)
    made, content, failed = _made(folder), digest([__version__, board.to_json()]), 0
    screen.close()
    for name in names:
        mark = digest([content, _code(name)])
        before = made.get(name, {})
        if not again and before.get("mark") == mark and all((folder / f).is_file() for f in before["files"]):
            continue
        try:
            with reachable(folder):
                files = registry.report(name)(board, folder)
        except Exception as error:  # a report is a plugin: it fails alone
            told = str(error) if isinstance(error, HarnessError) else f"{type(error).__name__}: {error}"
            screen.failed("report", name, told)
            failed = 1
            continue
        if files:
            made[name] = {"mark": mark, "files": [str(path.relative_to(folder)) for path in files]}
    write_text(folder / MADE, json.dumps(made, indent=1, sort_keys=True) + "\n")
    kept = sorted({file for name in names for file in made.get(name, {"files": []})["files"]})
    screen.info(f"report: {folder}/  {', '.join(file for file in kept if '/' not in file)}")
    return failed


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


def _made(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / MADE).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # absent or damaged: everything is rendered
        return {}


def _code(name: str) -> str:
    """sha256 (hex) of a report's file and of the folder of its name beside it."""
    path, found = registry.get("reports", name).path, hashlib.sha256()
    beside = path.with_suffix("")
    for file in [path, *sorted(f for f in beside.rglob("*") if f.is_file() and f.suffix != ".pyc")]:
        found.update(file.read_bytes())
    return found.hexdigest()
