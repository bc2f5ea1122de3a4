"""`harness compare --equal-budget N`: every method gets as many trials on the validation split, and its best
settings are measured on the test split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from harness import asked, ready
from harness.board import Board
from harness.checkpoint.devices import check_device
from harness.family import Row
from harness.planner import make_plan
from harness.run import carry_out
from harness.store import digest, made, slug, write_text
from harness.sweep import equal, objective
from harness.sweep.contest import Contender, hold
from harness.sweep.grid import family_of
from harness.sweep.partial import Telling
from harness.sweep.running import Runs, board_of
from harness.sweep.search import asking
from harness.verbs import reporting
from harness.verbs.locked import locked_family
from harness.verbs.sweep import ON_TEST, check_needs, check_tasks, print_board, print_notes, trained


def compare(
    family: str,
    methods: Sequence[str] | None,
    tasks: Sequence[str] | None,
    limit: int | None,
    results: Path,
    *,
    budget: int,
    kind: str,
    tune_on: str,
    wanted: str | None,
    engine: str = "auto",
    **options: Any,
) -> int:
    """Tune, choose, measure, report; the exit code. `options` are keywords of `carry_out`."""
    loaded, store = locked_family(family, results)
    check_device(options.get("device", "auto"))
    rows = asked.rows(loaded, methods)
    tuned, kept = equal.contenders(loaded, rows)
    for one in tuned:
        check_needs(loaded, one)
    check_tasks(loaded, tasks, tune_on, wanted)
    check_tasks(loaded, tasks, "test", wanted)
    asked.everything(loaded, methods, tasks)
    known = trained(loaded, store)
    identity = [budget, kind, tune_on, wanted, tasks, limit, [row.label for row in rows]]
    name = slug(f"{kind}-{budget}", {}, digest([*map(str, identity)]))
    folder = made(store.root / "equal-budget" / name)
    with Telling() as screen:
        screen.title(f"{loaded.name}  {len(tuned)} methods · {budget} trials each ({kind}) · {tune_on} split")
        run = Runs(known, store, tune_on, tasks, wanted, screen, engine, options)
        begin = lambda one: asking(kind, one.axes, budget, limit=limit)  # noqa: E731
        hold(run, tuned, begin, folder / "trials.csv")
        chosen = {one.label: one.settings(one.best.point) for one in tuned if one.best is not None}
        head = f"# best of {budget} trials each ({kind}) on the {tune_on} split; `methods:` of a family\n"
        write_text(folder / "best.yaml", head + yaml.safe_dump({"methods": chosen}, sort_keys=False))
        board, failed = _measured(run, chosen, kept, rows, limit)
        board.footnotes += notes(tuned, kept, kind, budget, tune_on, board, wanted)
        failed += reporting.write_reports(board, folder, screen, reporting.tables())
        print_board(board)
        print_notes(board)
    return 1 if run.failed or failed else 0


def _measured(
    run: Runs, chosen: dict[str, dict[str, Any]], kept: Sequence[Row], rows: Sequence[Row], limit: int | None
) -> tuple[Board, int]:
    """The chosen settings, and the rows that keep theirs, on the test split; how many steps failed."""
    own = {row.label: {"method": row.method, **row.settings} for row in kept}
    ordered = {row.label: {**chosen, **own}[row.label] for row in rows if row.label in {**chosen, **own}}
    plan = make_plan(
        family_of(run.family, ordered, "test"), run.store, tasks=run.tasks, limit=limit, engine=run.engine,
        prepare=True,
    )  # fmt: skip
    run.screen.title(f"{run.family.name}  the best of each · test split")
    ready.check(plan, lambda what: run.screen.now("check", what))
    failed = carry_out(plan, run.screen, **run.options).failed
    return board_of(plan), len(failed)


def notes(
    tuned: Sequence[Contender],
    kept: Sequence[Row],
    kind: str,
    budget: int,
    tune_on: str,
    board: Board,
    wanted: str | None,
) -> list[str]:
    """How the settings came about, for under the table."""
    best_by = f"{kind} search, highest {objective.spelled(board.headings, wanted)}"
    chosen = "; ".join(_chosen(one) for one in tuned)
    said = [
        f"equal budget: {budget} trials of each method ({best_by}) on the {tune_on} split, its best measured "
        f"here: {chosen}"
    ]
    if kept:
        said.append("settings as they were, without a space to search: " + ", ".join(r.label for r in kept))
    if tune_on == "test":
        said.append(ON_TEST)
    return said


def _chosen(one: Contender) -> str:
    return f"{one.name(one.best.point)} ({one.best.value:.4f})" if one.best else f"{one.label}: all failed"
