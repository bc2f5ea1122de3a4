"""`harness study`: the rows of a named study on one family or several, and what its sentences come to."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import asked, ready
from harness.analyse import forensics
from harness.board import Board, Heading
from harness.board.cells import headings_of
from harness.checkpoint.devices import check_device
from harness.errors import HarnessError
from harness.family import Family
from harness.figures import cost as cost_figure
from harness.figures import masks as masks_figure
from harness.figures import write
from harness.store import Store, made
from harness.sweep import costing
from harness.sweep.carrying import Asked, Carried, carried, carry, check, joined, plans_of
from harness.sweep.claims import HOW, check_group
from harness.sweep.drawing import draw, is_surface
from harness.sweep.partial import Telling, measured, write_csv, write_rows
from harness.sweep.study import Study, load_study, pairs, variants
from harness.train import experts
from harness.verbs import reporting, tables
from harness.verbs.locked import locked_family
from harness.verbs.sweep import print_board, print_notes


@dataclass(frozen=True)
class Place:
    """A family that a study runs on; `file` is how it was named."""

    file: str
    family: Family
    store: Store

    def folder(self, study: Study) -> Path:
        return made(self.store.root / "studies" / study.name)


def study(
    name: str,
    families: Sequence[str],
    results: Path,
    *,
    split: str,
    tasks: Sequence[str] | None,
    limit: int | None,
    engine: str = "auto",
    **options: Any,
) -> int:
    """Carry a study out on every family; the exit code. `options` are keywords of `carry_out`."""
    wanted, given = load_study(name), Asked(split, tasks, limit, engine)
    check_device(options.get("device", "auto"))
    places = [_checked(wanted, file, results, given) for file in families]
    if len({place.family.name for place in places}) < len(places):
        raise HarnessError("--families names a family twice", "each has its own results, under its name")
    failed, boards = 0, {}
    with Telling() as screen:
        for place in places:
            screen.title(f"{place.family.name}  study {wanted.name} · {wanted.title}")
            family = experts.make(place.family, place.store, screen)
            place = dataclasses.replace(place, family=family)
            if len(places) > 1:
                tables.console().print(f"\n{family.name}:", markup=False)
            if wanted.measure == "cost":
                lost, board = _cost(wanted, place, screen, options.get("device", "auto"))
            else:
                lost, board = _measured(wanted, place, given, screen, options)
            boards[family.name] = board
            failed += lost
        if len(boards) > 1:
            failed += _together(wanted, boards, results, screen)
    return 1 if failed else 0


def _checked(study: Study, file: str, results: Path, given: Asked) -> Place:
    """The family, once all that the study asks of it is known to fit, before any work."""
    family, store = locked_family(file, results)
    found = variants(study, family)
    if not found:
        raise HarnessError(f"study `{study.name}` has no rows on family `{family.name}`", "add `methods:`")
    check(found)
    if study.measure == "cost":
        return Place(file, family, store)
    headings = headings_of(files := asked.tasks(family, given.tasks))
    for task in files:
        task.split(given.split)
    for claim in study.claims:
        pairs(claim, found)
        if given.tasks is None:  # with fewer tasks, what cannot be told is said
            check_group(claim.group, headings)
    return Place(file, family, store)


def _measured(
    study: Study, place: Place, given: Asked, screen: Telling, options: dict[str, Any]
) -> tuple[int, Board]:
    """Merge, evaluate, report; how many steps failed, a report counting as one, and the board."""
    found, folder = variants(study, place.family), place.folder(study)
    seeds = study.seeds if study.seeds > 1 else None
    plans = plans_of(found, place.store, dataclasses.replace(given, seeds=seeds))
    plan, points = joined(plans), {variant.label: variant.point for variant in found}
    ready.check(plan, lambda what: screen.now("check", what))
    headings = headings_of(plan.tasks)

    def so_far() -> None:
        steps = [step for step in plan.rows if step.is_merge and step.seed_of is None]
        rows = [(_said(step.recipe.label, points), measured(plan, step)) for step in steps]
        write_rows(folder / "rows.csv", rows, headings)

    so_far()
    screen.told = so_far
    failed = carry(plans, screen, **options)
    screen.told = lambda: None
    done = carried(study, found, plan)
    return failed + _report(done, folder, screen), done.board


def _said(label: str, points: dict[str, Any]) -> dict[str, Any]:
    """What a line of `rows.csv` begins with; the axes of a grid are columns of their own."""
    same = len({tuple(point) for point in points.values()}) == 1
    return {"row": label, **(points[label] if same else {})}


def _report(done: Carried, folder: Path, screen: Telling) -> int:
    """Reports, figures and claims of one family, and the short of it on the terminal; 1 where a report
    failed."""
    board, points = done.board, [variant.point for variant, _ in done.merges]
    told = {variant.label: variant.point for variant, _ in done.merges}
    write_rows(folder / "rows.csv", [(_said(v.label, told), row) for v, row in done.merges], board.headings)
    surface = done.study.figure == "surface" and is_surface(points)
    merges = [(variant.label, row) for variant, row in done.merges]
    references = [(row.label, row) for row in board.rows if not row.is_merge]
    rows = merges if surface else [*references, *merges]
    draw(done.study.name, rows, board.headings, folder / "figures", points if surface else None)
    verdicts, spread = done.verdicts(), done.spread()
    _write_masks(done, folder)
    if verdicts:
        write_csv(folder / "claims.csv", [verdict.row() for verdict in verdicts])
    if spread:
        write_csv(folder / "spread.csv", spread)
    board.footnotes += [*filter(None, [done.study.printed()]), *map(str, verdicts)]
    code = reporting.write_reports(board, folder, screen, reporting.tables())
    print_board(board)
    _print_spread(done, spread)
    print_notes(board, leave=len(verdicts))
    if verdicts:
        tables.verdicts(HOW, verdicts)
    return code


def _write_masks(done: Carried, folder: Path) -> None:
    """What the rows' masks consist of, where they have any: `masks.csv` and a figure."""
    told = {row.label: forensics.read(Path(row.folder)) for _, row in done.merges}
    lines = [line for name, own in told.items() if own is not None for line in forensics.totals(name, own)]
    if lines:
        write_csv(folder / "masks.csv", lines)
    write(masks_figure, "masks", masks_figure.rows(done.board), folder / "figures")


def _print_spread(done: Carried, spread: Sequence[dict[str, Any]]) -> None:
    if not spread:
        return
    headings = {h.key: h for h in done.board.headings}
    titles = list(dict.fromkeys(line["title"] for line in spread))
    over = f"{max(line['n'] for line in spread)} "
    over += f"values of {done.study.spread}" if done.study.spread else "seeds"
    rows = []
    for name in dict.fromkeys(line["row"] for line in spread):
        own = [line for line in spread if line["row"] == name]
        rows.append(([name, *(_spelled(headings[line["column"]], line) for line in own)], ""))
    tables.console().print(f"\nmean ± standard deviation over {over}:", markup=False)
    tables.show(["", *titles], rows)


def _spelled(heading: Heading, line: dict[str, Any]) -> str:
    if line["mean"] is None:
        return "–" if line["n"] > 1 else "nothing drawn"
    return f"{heading.text(line['mean'])} ± {heading.text(line['sd'])}"


def _cost(study: Study, place: Place, screen: Telling, device: str) -> tuple[int, Board]:
    """Each row alone; tables, CSV and figure. How many failed, and the board."""
    found, folder = variants(study, place.family), place.folder(study)
    costs = costing.measured(place.family, place.file, found, device, screen, place.store)
    board, failed = costing.board_of(place.family, found, costs), len(found) - len(costs)
    if costs:
        write_csv(folder / "cost.csv", costing.lines(board))
        write(cost_figure, "cost", costing.drawn(board), folder / "figures")
        failed += reporting.write_reports(board, folder, screen, reporting.tables())
        _print_cost(board)
    return failed, board


def _print_cost(board: Board) -> None:
    rows = []
    for row, line in zip(board.rows, costing.lines(board), strict=True):
        cells = [board.text(row, heading) for heading in board.headings]
        rows.append(([row.label, *cells, line["paper_seconds"] or "–", line["paper_gpu_gb"] or "–"], ""))
    tables.show(["", *(heading.title for heading in board.headings), "paper: s", "GPU GB"], rows)
    print_notes(board)


def _together(study: Study, boards: dict[str, Board], results: Path, screen: Telling) -> int:
    """One table of several families: reports with rows `family · row`, `rows.csv` with a family column."""
    folder = made(results.expanduser() / "studies" / "--".join([study.name, *boards]))
    headings = list({h.key: h for board in boards.values() for h in board.headings}.values())
    headings = [dataclasses.replace(heading, detectable=None) for heading in headings]
    rows = [({"family": n, "row": row.label}, row) for n, board in boards.items() for row in board.rows]
    write_rows(folder / "rows.csv", rows, headings)
    named = [dataclasses.replace(row, label=f"{said['family']} · {row.label}") for said, row in rows]
    first = next(iter(boards.values()))
    board = Board(
        study.name, study.title, headings, named, _notes(boards), first.limit, first.split,
        with_paper=first.with_paper,
    )  # fmt: skip
    return reporting.write_reports(board, folder, screen, reporting.tables())


def _notes(boards: dict[str, Board]) -> list[str]:
    """What is said of all families once, and of each what is its own."""
    said = {name: board.footnotes for name, board in boards.items()}
    every = [note for note in next(iter(said.values())) if all(note in own for own in said.values())]
    own = [f"{name}: {note}" for name, notes in said.items() for note in notes if note not in every]
    return ["marks and tests are within each family", *every, *own]
