"""Tables on the terminal in which no number is cut."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

NARROWEST = 120  # columns of text, also on a narrower terminal


def console() -> Console:
    """Standard output, wide enough for numbers: a cut one is none."""
    found = Console(highlight=False)
    found.width = max(found.width, NARROWEST)
    return found


def table(columns: Sequence[str], title: str = "") -> Table:
    """An empty table: its first column to the left, the others to the right."""
    made = Table(box=None, pad_edge=False, title=title or None, title_justify="left")
    for index, name in enumerate(columns):
        made.add_column(name, justify="right" if index else "left", no_wrap=True)
    return made


def show(names: Sequence[str], rows: Sequence[tuple[Sequence[Any], str]], keep: int = 1) -> None:
    """Print a table, rows as (cells, style). Where it is wider than the terminal its columns are split over
    several tables, each beginning with the first `keep` columns."""
    out = console()
    widths = [
        max(cell_len(str(cell)) for cell in column)
        for column in zip(names, *(cells for cells, _ in rows), strict=True)
    ]
    for part in _split(widths, keep, out.width):
        shown = table([names[i] for i in part])
        for cells, style in rows:
            shown.add_row(*(as_text(cells[i]) for i in part), style=style)
        out.print(shown)


def _split(widths: Sequence[int], keep: int, room: int) -> list[list[int]]:
    """Columns by table; two blanks lie between columns."""
    first, parts = list(range(keep)), []
    for index in range(keep, len(widths)):
        fits = parts and sum(widths[i] + 2 for i in [*parts[-1], index]) - 2 <= room
        parts = [*parts[:-1], [*parts[-1], index]] if fits else [*parts, [*first, index]]
    return parts or [first]


def as_text(cell: Any) -> Text:
    """A cell as it is, without markup."""
    return cell if isinstance(cell, Text) else Text(str(cell))


def verdicts(how: str, found: Sequence[Any]) -> None:
    """Print sentences (`sentence`, `verdict`, `evidence`), each with its evidence below it."""
    out = console()
    out.print(f"\nWhat follows here ({how}):", markup=False)
    wide = max(len(one.verdict) for one in found) + 2
    for one in found:
        shade = {"supported here": "green", "cannot be told here": "dim"}.get(one.verdict, "yellow")
        for index, line in enumerate(textwrap.wrap(one.sentence, out.width - wide)):
            out.print(Text.assemble((("" if index else one.verdict).ljust(wide), shade), line))
        for line in textwrap.wrap(one.evidence, out.width - wide):
            out.print(Text(f"{'':{wide}}{line}", style="dim"))


def table_of(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Plain rows as they are; `a:b` and `a_b` are headings of two lines."""
    made = Table(box=None, pad_edge=False, title=title, title_justify="left")
    for name, first in rows[0].items():
        shown = name.replace(":", "\n").replace("_", "\n")
        made.add_column(shown, justify="left" if isinstance(first, str) else "right", no_wrap=True)
    for row in rows:
        made.add_row(*(spelled(value) for value in row.values()))
    return made


def spelled(value: Any) -> str:
    """Three digits of a number; – for None."""
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
