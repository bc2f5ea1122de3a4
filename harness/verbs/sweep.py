"""`harness sweep`: one method over many settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from harness import asked
from harness.board import Board, BoardRow
from harness.board.cells import headings_of
from harness.checkpoint.devices import check_device
from harness.errors import HarnessError
from harness.family import Family
from harness.store import Store, digest, made, slug, write_text
from harness.sweep import grid, objective
from harness.sweep.carrying import check
from harness.sweep.contest import Contender, hold, listed
from harness.sweep.drawing import draw
from harness.sweep.partial import Telling
from harness.sweep.running import Runs
from harness.sweep.search import KINDS, asking
from harness.sweep.study import Variant
from harness.train import experts
from harness.verbs import reporting, tables
from harness.verbs.locked import locked_family

ON_TEST = "the settings were compared on the test split: the best of them is no fair estimate"


def sweep(
    method: str,
    family: str,
    texts: Sequence[str],
    fixed: dict[str, Any],
    results: Path,
    *,
    kind: str,
    budget: int | None,
    tune_on: str,
    wanted: str | None,
    tasks: Sequence[str] | None,
    limit: int | None,
    seed: int,
    engine: str = "auto",
    **options: Any,
) -> int:
    """Merge and evaluate every point of a grid, or those that a search asks for; the exit code."""
    axes = grid.axes(texts)
    grid.check(method, axes, fixed)
    chosen = _points(axes, kind, budget)
    loaded, store = locked_family(family, results)
    check_device(options.get("device", "auto"))
    check_tasks(loaded, tasks, tune_on, wanted)
    one = Contender(Path(method).stem, method, fixed, axes)
    check_needs(loaded, one, chosen)
    known = trained(loaded, store)
    folder = _folder(store, method, texts, fixed, kind, budget, tune_on, limit, tasks, seed)
    with Telling() as screen:
        run = Runs(known, store, tune_on, tasks, wanted, screen, engine, options)
        size = f"{len(chosen)} points" if kind == "grid" else f"{kind}, {budget} trials"
        screen.title(f"{loaded.name}  {method} · {size} · {tune_on} split")
        begin = lambda _: listed(chosen, limit)  # noqa: E731
        if kind != "grid":
            begin = lambda _: asking(kind, axes, budget, seed=seed, limit=limit)  # noqa: E731
        hold(run, [one], begin, folder / "trials.csv")
        run.failed += _report(run, one, tune_on, folder)
    return 1 if run.failed else 0


def check_tasks(family: Family, tasks: Sequence[str] | None, split: str, wanted: str | None) -> None:
    """Raise HarnessError for tasks that lack the split, and an objective that is no column of theirs."""
    files = asked.tasks(family, tasks)
    for task in files:
        task.split(split)
    objective.columns(headings_of(files), wanted)


def check_needs(family: Family, one: Contender, points: Sequence[grid.Point] = ()) -> None:
    """Raise HarnessError where the settings need calibration data that the family lacks; of a search, which
    has no points yet, those at the lower ends."""
    lowest = {key: axis.low if isinstance(axis, grid.Span) else axis[0] for key, axis in one.axes.items()}
    settings = {one.name(point): {**one.fixed, **point} for point in points or [lowest]}
    check([Variant(name, one.method, own, family, {}) for name, own in settings.items()])


def trained(family: Family, store: Store) -> Family:
    """The family with the experts that it has trained. HarnessError where one is not trained yet."""
    steps = experts.steps(family, store)
    if not all(step.ready for step in steps):
        raise HarnessError(
            f"an expert of family `{family.name}` is not trained yet", "`harness compare` trains it first"
        )
    return experts.trained(family, steps)


def _points(axes: dict[str, Any], kind: str, budget: int | None) -> list[grid.Point]:
    """The points of a grid; [] for a search, which needs a budget."""
    if kind not in KINDS:
        raise HarnessError(f"--search {kind} is unknown", "one of " + ", ".join(KINDS))
    if kind == "grid":
        if budget is not None:
            raise HarnessError("--budget without a search", "add --search random, tpe or halving")
        return grid.points(axes)
    if budget is None:
        raise HarnessError(f"--search {kind} has no budget", "--budget N: so many trials")
    if not axes:
        raise HarnessError("there is nothing to sweep over", f"--grid {grid.SPELLINGS}")
    return []


def _folder(store: Store, method: str, *identity: Any) -> Path:
    folder = store.root / "sweeps" / slug(Path(method).stem, {}, digest([method, *map(str, identity)]))
    return made(folder)


def _report(run: Runs, one: Contender, tune_on: str, folder: Path) -> int:
    """The best as YAML, the table of the settings measured on the most items, a figure; 1 where a report
    failed."""
    top, trials = one.best, one.trials
    last = trials[-1].limit if top is None else top.limit
    points = list({one.name(t.point): t.point for t in trials if t.limit == last}.values())
    board = run.board({one.name(point): one.settings(point) for point in points}, last)
    if tune_on == "test":
        board.footnotes.append(ON_TEST)
    if top is not None:
        head = f"# {objective.spelled(board.headings, run.wanted)}: {top.value:.4f} on the {tune_on} split\n"
        write_text(folder / "best.yaml", head + yaml.safe_dump(one.settings(top.point), sort_keys=False))
    rows = [row for row in board.rows if row.is_merge]
    named = [(grid.label("", point), row) for point, row in zip(points, rows, strict=True)]
    draw("sweep", named, board.headings, folder / "figures", points)
    code = reporting.write_reports(board, folder, run.screen, reporting.tables())
    chosen = None if top is None else rows[points.index(top.point)]
    print_board(
        board, {id(row): objective.value(board.headings, row, run.wanted) for row in board.rows}, chosen
    )
    if top is not None:
        tables.console().print(
            f"best: {one.name(top.point)} ({objective.spelled(board.headings, run.wanted)})", markup=False
        )
    print_notes(board)
    return code


def print_board(
    board: Board, objectives: Mapping[int, float | None] | None = None, chosen: BoardRow | None = None
) -> None:
    """The main columns on the terminal; `objectives` by the rows' ids are a column of their own."""
    headings = [h for h in board.headings if h.main]
    first = ("", "objective") if objectives is not None else ("",)
    rows = []
    for row in board.rows:
        value = (objectives or {}).get(id(row))
        told = [] if objectives is None else ["–" if value is None else f"{value:.4f}"]
        cells = [board.text(row, h, error=row.is_merge and objectives is None) for h in headings]
        rows.append(([board.label(row), *told, *cells], "bold" if row is chosen else ""))
    tables.show([*first, *(f"{h.title} {h.arrow}" for h in headings)], rows, keep=len(first))


def print_notes(board: Board, leave: int = 0) -> None:
    """What is said under a table, but for the last `leave` sentences."""
    for note in board.footnotes[: len(board.footnotes) - leave]:
        tables.console().print(note, style="dim", markup=False)
