"""The table on the terminal, split by groups of columns where it is narrow; Markdown when it is piped."""

import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

from harness import registry
from harness.typeset import Printer, grid, kept, notes, visible


def render(board, folder):
    """Print the board to standard output; writes no file."""
    console = Console(highlight=False)
    if console.is_terminal:
        show(console, board)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            (path,) = registry.report("markdown")(board, Path(temporary))
            sys.stdout.write(path.read_text(encoding="utf-8"))
    return []


def show(console, board):
    """Print the table and what stands under it; where it is not split, also what merges keep."""
    table = Printer(console, grid(board), spread=True)
    if len(table.blocks) > 1:
        table = Printer(console, grid(board), spread=False)
    table.show()
    if (shares := kept(board)) is not None and len(table.blocks) == 1:
        console.print()
        console.print(Text(shares.title, style="bold"))
        Printer(console, shares, spread=False).show()
    console.print()
    for mark, note in notes(board):
        console.print(Text(_mark(mark) + visible(note), style="dim"))


def _mark(mark):
    return f"[{mark}] " if mark.isascii() and mark else f"{mark} " * bool(mark)
