"""Boards of the other families in the same results, as their reports left them."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from harness.board import read_board
from harness.page.view import view


def views(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """(tables of the families beside the one whose report is in `folder`, each with a link to its own page
    where it has one; families whose board cannot be read)."""
    found, unread = [], []
    for path in sorted(folder.parent.parent.glob("*/report/board.json")):
        if path.parent.resolve() == folder.resolve():
            continue
        name = path.parent.parent.name
        try:
            other = view(read_board(path))
        except (OSError, ValueError, TypeError, KeyError, AttributeError):  # another version's, or damaged
            unread.append(name)
            continue
        page = path.with_name("index.html")
        found.append({**other, "page": f"../../{quote(name)}/report/index.html" if page.is_file() else None})
    return found, unread
