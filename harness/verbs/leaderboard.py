"""`harness leaderboard`: every family in a results folder, its rows by rank, and methods over families."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.board import Board, Heading, read_board
from harness.board.places import absolute
from harness.board.ranks import Rank, lacking, ranks
from harness.errors import HarnessError, nearest
from harness.typeset import visible


@dataclass(frozen=True)
class Line:
    """One row of one family: its mean rank over the columns with a 95 % interval, and the averages of groups
    by group and direction (`Safety ↑`)."""

    family: str
    row: str
    method: str | None
    rank: Rank
    averages: dict[str, float]
    collapsed: bool


@dataclass(frozen=True)
class Unranked:
    """A merge without a rank, and the main columns that it lacks."""

    family: str
    row: str
    method: str | None
    lacks: list[str]


def leaderboard(
    results: Path, methods: Sequence[str] | None, families: Sequence[str] | None, as_json: bool
) -> int:
    """Print the ranks; the exit code: 1 where a report could not be read or nothing could be ranked."""
    boards, unread = read(results, families)
    lines = [line for board in boards for line in _lines(board)]
    rest = [one for board in boards for one in _unranked(board)]
    if methods:
        known = {name for line in (*lines, *rest) for name in (line.row, line.method) if name}
        for name in methods:
            if name not in known:
                raise HarnessError(f"no row or method is called `{name}` in {results}", nearest(name, known))
        lines = [line for line in lines if {line.row, line.method} & set(methods)]
        rest = [line for line in rest if {line.row, line.method} & set(methods)]
    overall = _overall(lines) if len({line.family for line in lines}) > 1 else []
    for warning in unread:
        click.echo(f"warning: {warning}", err=True)
    code = 1 if unread or not lines else 0
    if as_json:
        told = {
            "rows": [asdict(line) for line in lines],
            "methods": overall,
            "unranked": [asdict(one) for one in rest],
            "unread": unread,
        }
        click.echo(json.dumps(told, indent=1, ensure_ascii=False))
        return code
    console = Console(highlight=False)
    for board in boards:
        own = [line for line in lines if line.family == board.family]
        without = [one for one in rest if one.family == board.family]
        if own or without or not methods:
            _print(console, board, own, without)
    if overall:
        _print_overall(console, overall)
    return code


def read(results: Path, families: Sequence[str] | None = None) -> tuple[list[Board], list[str]]:
    """The boards of a results folder, by family, and sentences about those that cannot be read. HarnessError
    where there is none to read."""
    root = results.expanduser()
    paths = {path.parent.parent.name: path for path in sorted(root.glob("*/report/board.json"))}
    for name in families or ():
        if name not in paths:
            raise HarnessError(f"no report of family `{name}` in {results}", nearest(name, paths))
    if not paths:
        raise HarnessError(
            f"no report in {results}", "run `harness compare` or `harness report`, or name its --results"
        )
    boards, unread = [], []
    for name, path in paths.items():
        if families and name not in families:
            continue
        try:
            boards.append(absolute(_checked(read_board(path)), path.parent.parent))
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            why = " ".join(str(error).split()) or type(error).__name__
            unread.append(f"family `{name}` is left out: {path} cannot be read ({why}); "
                          "`harness report` writes it anew")  # fmt: skip
    if not boards:
        raise HarnessError(unread[0].partition(";")[0], "`harness report` writes it anew")
    return boards, unread


def _checked(board: Board) -> Board:
    """A board whose cells hold numbers; ValueError where one does not."""
    for row in board.rows:
        for cell in row.cells.values():
            if isinstance(cell.value, bool) or not isinstance(cell.value, (int, float)):
                raise ValueError(f"a cell of `{row.label}` is {cell.value!r}")
    return board


def _lines(board: Board) -> list[Line]:
    placed, names = ranks(board), _averages(board)
    lines = [
        Line(
            board.family,
            row.label,
            row.method,
            placed[row.label],
            {
                name: average.value
                for name, average in zip(names, row.averages, strict=False)
                if average.complete and average.value is not None
            },
            bool(row.collapsed),
        )
        for row in board.rows
        if row.is_merge and row.label in placed
    ]
    return sorted(lines, key=lambda line: (line.collapsed, line.rank.mean))


def _unranked(board: Board) -> list[Unranked]:
    lacks = [(row, lacking(board, row)) for row in board.rows if row.is_merge]
    return [Unranked(board.family, row.label, row.method, found) for row, found in lacks if found]


def _averages(board: Board) -> dict[str, int]:
    """What the averages of this board's rows are called, in their order, with the digits they are shown with:
    `Safety ↑`, and with the kind of its columns where a group has two of one direction."""
    parts: dict[tuple[str, str, str], list[Heading]] = {}
    for h in board.headings:
        if h.main and h.kind != "perplexity":
            parts.setdefault((h.group, h.arrow, h.kind), []).append(h)
    found = {part: own[0].digits for part, own in parts.items() if len(own) > 1}
    several = Counter((group, arrow) for group, arrow, _ in found)
    return {
        f"{group} {arrow}" + f" ({kind})" * (several[group, arrow] > 1): digits
        for (group, arrow, kind), digits in found.items()
    }


def _overall(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Over families: a method counts with its best row of each family."""
    best: dict[str, dict[str, Line]] = {}
    for line in lines:
        families = best.setdefault(line.method or line.row, {})
        if line.family not in families or line.rank.mean < families[line.family].rank.mean:
            families[line.family] = line
    told = [
        {
            "method": method,
            "families": len(found),
            "mean_rank": sum(line.rank.mean for line in found.values()) / len(found),
            "rows": {family: line.row for family, line in found.items()},
            "collapsed": sum(line.collapsed for line in found.values()),
        }
        for method, found in best.items()
    ]
    return sorted(told, key=lambda entry: (-entry["families"], entry["mean_rank"]))


def _print(console: Console, board: Board, lines: Sequence[Line], rest: Sequence[Unranked]) -> None:
    digits = _averages(board)
    table = _table(("", "rank", "95 %", *digits))
    for line in lines:
        rank = line.rank
        spread = f"{rank.low:.1f}–{rank.high:.1f}" if rank.low is not None else "–"
        cells = [f"{line.averages[g]:.{n}f}" if g in line.averages else "–" for g, n in digits.items()]
        style = "italic" if line.collapsed else ""
        label = Text(visible(line.row) + ("*" if line.collapsed else ""), style=style)
        table.add_row(label, f"{rank.mean:.1f}", spread, *cells)
    console.print(Text(f"{visible(board.family)}  {visible(board.title)}", style="italic"))
    if lines:
        console.print(table)
    columns = ", ".join(visible(h.title) for h in board.headings if h.main)
    told = [f"rank: mean over {columns}, among the merges; collapsed (*) last"] if lines else []
    if any(line.rank.low is None for line in lines):
        told.append("95 %: – where the samples behind a column are not here, or are not its mean")
    told += [f"no rank: {visible(one.row)} lacks {visible(', '.join(one.lacks))}" for one in rest]
    if not lines and not rest:
        told.append("no rank: there are no merges")
    for sentence in told:
        console.print(Text(sentence, style="dim"))
    console.print()


def _print_overall(console: Console, overall: Sequence[dict[str, Any]]) -> None:
    table = _table(("", "mean rank", "families", "collapsed in"))
    for entry in overall:
        table.add_row(
            Text(visible(entry["method"])),
            f"{entry['mean_rank']:.1f}",
            str(entry["families"]),
            str(entry["collapsed"]),
        )
    console.print(Text("methods over families (best row of each)", style="italic"))
    console.print(table)


def _table(headings: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(Text(visible(heading)), justify="left" if not heading else "right")
    return table
