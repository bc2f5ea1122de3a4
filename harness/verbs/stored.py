"""What the store holds of a comparison: `harness status`, `harness clean`."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import resource
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from harness import asked, spool
from harness.board import read_board
from harness.board.imported import IMPORTED, imported_folders, writing
from harness.board.places import absolute
from harness.errors import HarnessError, nearest
from harness.family import Family, load_family
from harness.plan import Plan, ScoreStep
from harness.planner import make_plan
from harness.steps import KEPT
from harness.store import Folder, Store, reachable
from harness.train import experts
from harness.verbs.locked import locked_family

TRIES = 5  # to delete a folder in which others delete or write


def status(
    family: str,
    methods: Sequence[str] | None,
    tasks: Sequence[str] | None,
    limit: int | None,
    results: Path,
    as_json: bool,
    engine: str = "auto",
) -> None:
    """Print the state of every step: done, failed, to do, or waiting for an expert's training."""
    loaded, store = locked_family(family, results)
    wanted = asked.everything(loaded, methods, tasks)
    made = experts.steps(loaded, store)
    waits = {step.role for step in made if not step.ready}
    known = experts.stand_in(loaded) if waits else experts.trained(loaded, made)
    plan = make_plan(known, store, limit=limit, engine=engine, known=wanted)
    listed = [_entry("train", step.label, step.folder) for step in made]
    listed += [_entry("scores", s.label, s.folder, _reads(s, waits)) for s in plan.scores]
    listed += [_entry("merge", r.label, r.folder, bool(waits)) for r in plan.rows if r.is_merge]
    for e in plan.evals:
        waiting = bool(waits) if e.row.is_merge else e.row.role in waits
        listed.append(_entry("eval", f"{e.row.label} / {e.task.name}", e.folder, waiting))
    listed += [_entry("judge", step.label, step.folder) for step in plan.judges if not waits]
    if as_json:
        click.echo(json.dumps(listed, indent=1, ensure_ascii=False))
        return
    console = Console(highlight=False, soft_wrap=True)
    marks = {"done": "✓", "failed": "✗", "to do": "·", **({"waiting": "…"} if waits else {})}
    for entry in listed:
        line = Text(f" {marks[entry['state']]} {entry['step']:<7} {entry['what']:<40} {entry['state']}")
        console.print(line.append(f"  {entry['error']}") if entry["error"] else line)
    counts = {state: sum(e["state"] == state for e in listed) for state in marks}
    console.print(" · ".join(f"{n} {state}" for state, n in counts.items()))
    _tell(sum(row.is_merge and not row.has_weights and _not_kept(row.folder) for row in plan.rows))


def _entry(kind: str, what: str, folder: Folder, waiting: bool = False) -> dict[str, Any]:
    if waiting:  # its key, and so its folder, follow from the expert's weights
        return {"step": kind, "what": what, "state": "waiting", "error": None, "folder": None}
    state, path = _state(folder), str(folder.path)
    return {"step": kind, "what": what, "state": state, "error": folder.failed, "folder": path}


def _reads(step: ScoreStep, roles: set[str]) -> bool:
    """Whether a statistic reads the weights of one of the experts `roles`."""
    need = step.need
    return (need.model == "expert" and need.role in roles) or need.against in roles


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
    """Delete what the options name, but for folders in which another process is at work; say what was
    freed."""
    if not (weights or failed or rows or everything):
        raise HarnessError("nothing was named to delete", "give --weights, --failed, --rows LABELS or --all")
    loaded = load_family(family)
    store = Store(results, loaded.name)
    for place in (spool.MEMORY, store.root / "spool"):
        spool.sweep(place)
    targets: dict[Path, Path] = {}  # what is deleted: the folder in which nobody may be at work
    if everything and store.root.is_dir():
        targets[store.root] = store.root
    if weights:
        targets |= {f.path / "model": f.path for f in store.folders() if (f.path / "model").is_dir()}
    if failed:
        targets |= {f.path: f.path for f in store.folders() if not f.complete}
    if rows:
        found = _row_folders(make_plan(_settled(loaded, store), store), rows)
        targets |= {path: path for path in found}
    targets = {t: of for t, of in targets.items() if not any(parent in targets for parent in t.parents)}
    _delete(store, targets, dry_run)
    if weights:
        merges = {f.path for f in store.folders()} - {path.parent for path in targets}
        _tell(sum(_not_kept(Folder(path)) and not (path / "model").is_dir() for path in merges))


def _delete(store: Store, targets: Mapping[Path, Path], dry_run: bool) -> None:
    freed = deleted = 0
    for path, of in sorted(targets.items()):
        with _alone(of, dry_run) as alone:
            if alone:
                size = store.size(path) if dry_run else _remove(store, path)
                freed, deleted = freed + size, deleted + 1
                click.echo(f"{'would delete' if dry_run else 'deleted'} {path}  {size / 2**20:.1f} MiB")
    click.echo(f"{deleted} folders, {freed / 2**20:.1f} MiB")
    if left := len(targets) - deleted:
        click.echo(f"{left} folders left out, in which another process is at work")


@contextlib.contextmanager
def _alone(folder: Path, dry_run: bool) -> Iterator[bool]:
    """Keep others out of a folder and of the steps in it; whether none of them was at work there."""
    given = ("r", fcntl.LOCK_SH) if dry_run else ("r+", fcntl.LOCK_EX)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError, OSError):  # a whole store has a lock for every step
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.ExitStack() as stack:
        locks = (Path(place, ".lock") for place, _, names in os.walk(folder) if ".lock" in names)
        yield all(_taken(lock, stack, *given) for lock in locks)


def _taken(lock: Path, stack: contextlib.ExitStack, mode: str, kind: int) -> bool:
    try:
        with reachable(lock):
            fcntl.flock(stack.enter_context(lock.open(mode)), kind | fcntl.LOCK_NB)
    except FileNotFoundError:  # its holder has deleted it
        return True
    except BlockingIOError:
        return False
    return True


def _remove(store: Store, path: Path) -> int:
    """Delete a folder; the bytes freed. What others delete in it at the same time is gone as well."""
    freed = store.size(path)
    with writing(path.parent) if path.parent == store.root / IMPORTED else contextlib.nullcontext():
        for _ in range(TRIES):
            try:
                store.remove(path)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
                    raise
            if not path.exists():
                return freed
    raise HarnessError(f"{path} cannot be deleted: files are being written in it", "try again later")


def _not_kept(folder: Folder) -> bool:
    """Whether a merge was made by a run with `--keep-weights none`."""
    return folder.done().get(KEPT) is False


def _tell(count: int) -> None:
    if count:
        click.echo(f"{count} merges are done and their weights were not kept (`--keep-weights none`)")
        click.echo("hint: `harness merge ROW --to DIR` writes a row's weights")


def _settled(family: Family, store: Store) -> Family:
    """The family with the experts that it has trained; as it is while one is missing."""
    made = experts.steps(family, store)
    return experts.trained(family, made) if all(step.ready for step in made) else family


def _row_folders(plan: Plan, labels: Sequence[str]) -> set[Path]:
    """The folders of rows: of the family's merges, of what was imported, and of what else the last table has
    (methods that were given by path)."""
    found: dict[str, set[Path]] = {}
    for row in plan.rows:
        if row.is_merge:
            for name in (row.label, row.recipe.label):
                found.setdefault(name, set()).add(row.folder.path)
    for label, folders in (*imported_folders(plan.store), *_in_table(plan.store)):
        found.setdefault(label, set()).update(folders)
    for label in labels:
        if label not in found:
            raise HarnessError(f"no row is called `{label}`", nearest(label, found))
    return {path for label in labels for path in found[label] if path.is_dir()}


def _in_table(store: Store) -> Iterator[tuple[str, set[Path]]]:
    """Merges of the last table with their folders, one for each seed."""
    try:
        board = absolute(read_board(store.report / "board.json"), store.root)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):  # none yet, or none of this version
        return
    for row in board.rows:
        if row.is_merge and row.folder:
            evals = {Path(folder) for cell in row.cells.values() for folder in cell.folders}
            folders = {Path(row.folder), *(folder.parent.parent for folder in evals)}
            yield row.label, {path for path in folders if path.parent == store.root / "models"}
