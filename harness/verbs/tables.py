"""Tables on the terminal in which no number is cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

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
