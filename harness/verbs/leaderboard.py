"""`harness leaderboard`: every family in a results folder, its rows by rank, and methods over families."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.board import Board, read_board
from harness.board.ranks import Rank, ranks
from harness.errors import HarnessError, nearest


@dataclass(frozen=True)
class Line:
    """One row of one family: its mean rank over the columns with a 95 % interval, and group averages."""

    family: str
    row: str
    method: str | None
    rank: Rank
    averages: dict[str, float]
    collapsed: bool


def leaderboard(
    results: Path, methods: Sequence[str] | None, families: Sequence[str] | None, as_json: bool
) -> int:
    """Print the ranks; the exit code."""
    boards = read(results, families)
    lines = [line for board in boards for line in _lines(board)]
    if methods:
        known = {name for line in lines for name in (line.row, line.method) if name}
        for name in methods:
            if name not in known:
                raise HarnessError(f"no row or method is called `{name}` in {results}", nearest(name, known))
        lines = [line for line in lines if {line.row, line.method} & set(methods)]
    overall = _overall(lines) if len({line.family for line in lines}) > 1 else []
    if as_json:
        told = {"rows": [asdict(line) for line in lines], "methods": overall}
        click.echo(json.dumps(told, indent=1, ensure_ascii=False))
        return 0
    console = Console(highlight=False)
    for board in boards:
        own = [line for line in lines if line.family == board.family]
        if own:
            _print(console, board, own)
    if overall:
        _print_overall(console, overall)
    return 0


def read(results: Path, families: Sequence[str] | None = None) -> list[Board]:
    """The boards of a results folder, by family. HarnessError where there are none, or one cannot be read."""
    paths = sorted(results.expanduser().glob("*/report/board.json"))
    names = [path.parent.parent.name for path in paths]
    for name in families or ():
        if name not in names:
            raise HarnessError(f"no report of family `{name}` in {results}", nearest(name, names))
    if not paths:
        raise HarnessError(
            f"no report in {results}", "run `harness compare` or `harness report`, or name its --results"
        )
    boards = []
    for path, name in zip(paths, names, strict=True):
        if families and name not in families:
            continue
        try:
            boards.append(read_board(path))
        except (ValueError, TypeError, KeyError) as error:
            raise HarnessError(
                f"{path} cannot be read: {error}", f"`harness report --family {name}` writes it anew"
            ) from error
    return boards


def _lines(board: Board) -> list[Line]:
    placed = ranks(board)
    rows = [row for row in board.rows if row.label in placed]
    lines = [
        Line(
            board.family,
            row.label,
            row.method,
            placed[row.label],
            {a.group: a.value for a in row.averages if a.complete and a.value is not None},
            bool(row.collapsed),
        )
        for row in rows
    ]
    return sorted(lines, key=lambda line: (line.collapsed, line.rank.mean))


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


def _print(console: Console, board: Board, lines: Sequence[Line]) -> None:
    groups = list(dict.fromkeys(group for line in lines for group in line.averages))
    table = Table(box=None, pad_edge=False, title=f"{board.family}  {board.title}", title_justify="left")
    for heading in ("", "rank", "95 %", *groups):
        table.add_column(heading, justify="left" if not heading else "right")
    for line in lines:
        rank = line.rank
        spread = f"{rank.low:.1f}–{rank.high:.1f}" if rank.low is not None else "–"
        cells = [f"{line.averages[g]:.1f}" if g in line.averages else "–" for g in groups]
        style = "italic" if line.collapsed else ""
        label = Text(line.row + ("*" if line.collapsed else ""), style=style)
        table.add_row(label, f"{rank.mean:.1f}", spread, *cells)
    console.print(table)
    columns = ", ".join(h.title for h in board.headings if h.main)
    console.print(Text(f"rank: mean over {columns}, among the merges; collapsed (*) last", style="dim"))
    console.print()


def _print_overall(console: Console, overall: Sequence[dict[str, Any]]) -> None:
    table = Table(
        box=None, pad_edge=False, title="methods over families (best row of each)", title_justify="left"
    )
    for heading in ("", "mean rank", "families", "collapsed in"):
        table.add_column(heading, justify="left" if not heading else "right")
    for entry in overall:
        table.add_row(
            entry["method"], f"{entry['mean_rank']:.1f}", str(entry["families"]), str(entry["collapsed"])
        )
    console.print(table)
