"""What each verb of the command line does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from harness import registry
from harness.board import make_board
from harness.checkpoint.devices import check_device
from harness.errors import HarnessError, nearest
from harness.family import load_family, model_path
from harness.plan import Plan, RowStep, checkpoint_plan, make_plan
from harness.screen import Screen
from harness.store import Folder, Store, reachable

REPORTS = ("markdown", "csv", "terminal")


def compare(
    family: str,
    methods: Sequence[str] | None,
    tasks: Sequence[str] | None,
    limit: int | None,
    results: Path,
    engine: dict[str, Any],
) -> int:
    """Merge, evaluate, report; the exit code. `engine` are keywords of `harness.merge.merge`."""
    check_device(engine["device"])
    plan = _plan(family, methods, tasks, limit, results, prepare=True)
    with Screen() as screen:
        merges = sum(row.is_merge for row in plan.rows)
        screen.title(
            f"{plan.family.name}  {plan.family.title} · {merges} merges × {len(plan.tasks)} tasks · "
            f"seed {plan.family.seed}"
        )
        for row in plan.rows:
            for note in row.notes:
                screen.note(f"{row.label}: {note}")
        return _run_and_report(plan, screen, plan.store.report, **engine)


def evaluate(
    checkpoint: str, family: str, tasks: Sequence[str] | None, limit: int | None, results: Path
) -> int:
    """Evaluate one checkpoint as the family's merges are; the exit code."""
    loaded = load_family(family)
    path = model_path(checkpoint, Path.cwd())
    plan = checkpoint_plan(loaded, Store(results, loaded.name), path, tasks=tasks, limit=limit)
    with Screen() as screen:
        screen.title(f"{path}  on {len(plan.tasks)} tasks of {loaded.name}")
        return _run_and_report(plan, screen, plan.store.report / plan.rows[0].folder.path.name)


def _plan(
    family: str,
    methods: Sequence[str] | None,
    tasks: Sequence[str] | None,
    limit: int | None,
    results: Path,
    prepare: bool = False,
) -> Plan:
    loaded = load_family(family)
    store = Store(results, loaded.name)
    return make_plan(loaded, store, methods=methods, tasks=tasks, limit=limit, prepare=prepare)


def _run_and_report(plan: Plan, screen: Screen, folder: Path, **engine: Any) -> int:
    from harness.run import carry_out

    outcome = carry_out(plan, screen, **engine)
    if outcome.stored:
        screen.done("store", f"{outcome.stored} steps", "from store")
    board = make_board(plan)
    with reachable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        screen.close()
        for name in REPORTS:
            registry.report(name)(board, folder)
    if outcome.failed:
        screen.note(f"{len(outcome.failed)} steps failed; the same command tries them again, and only them")
    screen.info(f"report: {folder}/table.md, table.csv")
    return outcome.exit_code


def merge(
    method: str, family: str, settings: dict[str, Any], results: Path, to: Path, engine: dict[str, Any]
) -> int:
    """Merge with one method into `to`; the exit code. The family's row of that name gives the settings that
    `--set` does not; `engine` are keywords of `harness.merge.merge`."""
    from harness.run import merge_to

    check_device(engine["device"])
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise HarnessError(f"{to} exists and is not empty", "choose a new folder, or remove this one")
    loaded = load_family(family)
    row = next((r for r in loaded.rows() if method == r.label), None)
    given = {**(row.settings if row else {}), **settings}
    only = loaded.model_copy(update={"methods": {method: {"method": row.method if row else method, **given}}})
    plan = make_plan(only, Store(results, loaded.name), tasks=[], references=False, lone=True)
    with Screen() as screen:
        spelled = ", ".join(f"{k}={v}" for k, v in given.items()) or "default parameters"
        screen.title(f"{loaded.name}  {plan.rows[0].label} · {spelled}")
        for note in plan.rows[0].notes:
            screen.note(note)
        merge_to(plan, to, screen, **engine)
        screen.info(f"checkpoint: {to}")
    return 0


def status(
    family: str,
    methods: Sequence[str] | None,
    tasks: Sequence[str] | None,
    limit: int | None,
    results: Path,
    as_json: bool,
) -> None:
    """Print the state of every step: done, failed or to do."""
    plan = _plan(family, methods, tasks, limit, results)
    steps = [("scores", s.label, s.folder) for s in plan.scores]
    steps += [("merge", r.label, r.folder) for r in plan.rows if r.is_merge]
    steps += [("eval", f"{e.row.label} / {e.task.name}", e.folder) for e in plan.evals]
    listed = [
        {
            "step": kind,
            "what": what,
            "state": _state(folder),
            "error": folder.failed,
            "folder": str(folder.path),
        }
        for kind, what, folder in steps
    ]
    if as_json:
        click.echo(json.dumps(listed, indent=1, ensure_ascii=False))
        return
    console = Console(highlight=False, soft_wrap=True)
    marks = {"done": "✓", "failed": "✗", "to do": "·"}
    for entry in listed:
        line = Text(f" {marks[entry['state']]} {entry['step']:<7} {entry['what']:<40} {entry['state']}")
        console.print(line.append(f"  {entry['error']}") if entry["error"] else line)
    counts = {state: sum(e["state"] == state for e in listed) for state in marks}
    console.print(" · ".join(f"{n} {state}" for state, n in counts.items()))


def _state(folder: Folder) -> str:
    return "done" if folder.complete else "failed" if folder.failed else "to do"


def clean(
    family: str,
    results: Path,
    *,
    weights: bool,
    failed: bool,
    rows: Sequence[str] | None,
    everything: bool,
    dry_run: bool,
) -> None:
    """Delete what the options name; say what was freed."""
    if not (weights or failed or rows or everything):
        raise HarnessError("nothing was named to delete", "give --weights, --failed, --rows LABELS or --all")
    loaded = load_family(family)
    store = Store(results, loaded.name)
    targets: set[Path] = set()
    if everything and store.root.is_dir():
        targets.add(store.root)
    if weights:
        targets |= {f.path / "model" for f in store.folders() if (f.path / "model").is_dir()}
    if failed:
        targets |= {f.path for f in store.folders() if not f.complete}
    if rows:
        targets |= _row_folders(make_plan(loaded, store), rows)
    targets = {t for t in targets if not any(parent in targets for parent in t.parents)}
    freed = 0
    for path in sorted(targets):
        size = store.size(path) if dry_run else store.remove(path)
        freed += size
        click.echo(f"{'would delete' if dry_run else 'deleted'} {path}  {size / 2**20:.1f} MiB")
    click.echo(f"{len(targets)} folders, {freed / 2**20:.1f} MiB")


def _row_folders(plan: Plan, labels: Sequence[str]) -> set[Path]:
    merges: list[RowStep] = [row for row in plan.rows if row.is_merge]
    known = {name for row in merges for name in (row.label, row.recipe.label)}
    for label in labels:
        if label not in known:
            raise HarnessError(f"no row is called `{label}`", nearest(label, known))
    return {
        row.folder.path
        for row in merges
        if {row.label, row.recipe.label} & set(labels) and row.folder.path.is_dir()
    }
