"""The table on the terminal (rich), readable without colour; Markdown when standard output is piped."""

import sys

from rich.console import Console
from rich.table import Table
from rich.text import Text


def render(board, folder):
    """Print the board to standard output; writes no file."""
    console = Console(highlight=False)
    if not console.is_terminal:
        sys.stdout.write((folder / "table.md").read_text(encoding="utf-8"))
        return []
    wide = console.width >= 30 + 13 * len(board.headings)
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold", title_justify="left")
    table.add_column("")
    groups = [h.group for h in board.headings]
    for index, h in enumerate(board.headings):
        group = h.group if index == 0 or groups[index - 1] != h.group else ""
        table.add_column(
            Text(f"{group}\n{h.title} {h.arrow}\nn={board.n(h)}", justify="right"), justify="right"
        )
    for row in board.rows:
        cells = [Text(board.text(row, h, error=wide), style=_style(row, h)) for h in board.headings]
        table.add_row(
            Text(board.label(row), style="dim" if not row.is_merge else ""), *cells, end_section=False
        )
    console.print(table)
    for note in board.footnotes:
        console.print(Text(note, style="dim"))
    return []


def _style(row, heading):
    cell = row.cells.get((heading.task, heading.metric))
    if not row.is_merge or cell is None:
        return "dim"
    return "bold" if cell.best else "italic" if row.collapsed else ""
