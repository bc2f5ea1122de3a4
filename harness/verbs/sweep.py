"""`harness sweep`: one method over many settings."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from harness import asked, registry
from harness.board import Board
from harness.errors import HarnessError
from harness.figures import Row, bars, surface, write
from harness.screen import Screen
from harness.store import Store, digest, reachable, slug, write_text
from harness.sweep import grid, objective
from harness.sweep.running import Sweep
from harness.sweep.search import KINDS, Trial, best, search
from harness.train import experts
from harness.verbs import reporting, tables
from harness.verbs.locked import locked_family

TOLD = ("json", "csv", "markdown", "latex")
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
    for task in asked.tasks(loaded, tasks):
        task.split(tune_on)
    ready = [step.ready for step in experts.steps(loaded, store)]
    if not all(ready):
        raise HarnessError(
            f"an expert of family `{loaded.name}` is not trained yet", "`harness compare` trains it first"
        )
    known = experts.trained(loaded, experts.steps(loaded, store))
    with Screen() as screen:
        run = Sweep(known, store, method, fixed, tune_on, tasks, wanted, screen, engine, options)
        if kind == "grid":
            screen.title(f"{loaded.name}  {method} · {len(chosen)} points · {tune_on} split")
            values = run.measure(chosen, limit)
            trials = [Trial(p, v, limit) for p, v in zip(chosen, values, strict=True)]
        else:
            screen.title(f"{loaded.name}  {method} · {kind}, {budget} trials · {tune_on} split")
            trials = search(kind, axes, budget, run.measure, seed=seed, limit=limit)
        _report(
            run, trials, texts, tune_on, _folder(store, method, texts, fixed, kind, budget, tune_on, limit)
        )
    return 1 if run.failed else 0


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
    with reachable(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _report(run: Sweep, trials: Sequence[Trial], texts: Sequence[str], tune_on: str, folder: Path) -> None:
    """Trials as CSV, the best as YAML, the table of those on the most items, a figure."""
    top = best(trials)
    last = trials[-1].limit if top is None else top.limit
    unique = list({repr(t.point): t.point for t in trials if t.limit == last}.values())
    board = run.board(unique, last)
    if tune_on == "test":
        board.footnotes.append(ON_TEST)
    _write_trials(trials, folder / "trials.csv")
    if top is not None:
        told = {"method": run.method, **run.fixed, **top.point}
        head = f"# {objective.spelled(board.headings, run.wanted)}: {top.value:.4f} on the {tune_on} split\n"
        write_text(folder / "best.yaml", head + yaml.safe_dump(told, sort_keys=False))
    write_figure(board, unique, folder)
    reporting.write_reports(board, folder, run.screen, [n for n in TOLD if n in registry.find("reports")])
    _print(board, run, unique, top)


def _write_trials(trials: Sequence[Trial], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        keys = list(trials[0].point) if trials else []
        out.writerow([*keys, "value", "limit"])
        for trial in trials:
            given = ["" if v is None else v for v in (trial.value, trial.limit)]
            out.writerow([*(trial.point[key] for key in keys), *given])


def write_figure(board: Board, points: Sequence[grid.Point], folder: Path) -> list[Path]:
    """Two axes of numbers: a surface and a heat map of each column; anything else: bars."""
    rows = [row for row in board.rows if row.is_merge]
    flat = len(points[0]) != 2 or not all(_is_number(value) for p in points for value in p.values())
    cells: list[Row] = []
    for row, point in zip(rows, points, strict=True):
        for heading in board.headings:
            cell = row.cell(heading)
            if cell is None or not heading.main:
                continue
            title, shown = f"{heading.title} {heading.arrow}", heading.scaled(cell.value)
            if flat:
                low, high = [heading.scaled(v) for v in cell.interval] if cell.interval else (None, None)
                cells.append(
                    {
                        "setting": grid.label("", point),
                        "metric": title,
                        "value": shown,
                        "low": low,
                        "high": high,
                    }
                )
            else:
                (x_name, x), (y_name, y) = point.items()
                cells.append(
                    {"panel": title, "x_name": x_name, "x": x, "y_name": y_name, "y": y, "value": shown}
                )
    return write(bars if flat else surface, "sweep", cells, folder / "figures")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _print(board: Board, run: Sweep, points: Sequence[grid.Point], top: Trial | None) -> None:
    console, headings = tables.console(), [h for h in board.headings if h.main]
    shown_as = tables.table(("", "objective", *(f"{h.title} {h.arrow}" for h in headings)))
    of_row = dict(zip((row.label for row in board.rows if row.is_merge), points, strict=True))
    for row in board.rows:
        value = objective.value(board, row, run.wanted)
        shown = "–" if value is None else f"{value:.4f}"
        cells = [board.text(row, h, error=False) for h in headings]
        chosen = top is not None and of_row.get(row.label) == top.point
        shown_as.add_row(board.label(row), shown, *cells, style="bold" if chosen else "")
    console.print(shown_as)
    if top is not None:
        console.print(
            f"best: {grid.label(run.method, top.point)} ({objective.spelled(board.headings, run.wanted)})"
        )
    for note in board.footnotes:
        console.print(note, style="dim", markup=False)
