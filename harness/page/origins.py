"""Where numbers come from: of every row and cell the recipe and the record that lie in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.board import Board, BoardRow, Cell

FILES = ("recipe.yaml", "done.json", "error.txt")
LONGEST = 32_768  # characters of one file


def of(board: Board, root: Path) -> dict[str, Any]:
    """`rows`: by label the folder (from `root` on) with its files as text; `folders`: those of the cells, by
    folder; `cells`: by label and column the folders of a cell."""
    folders = {folder for row in board.rows for cell in row.cells.values() for folder in _of_cell(cell)}
    return {
        "rows": {row.label: _folder(row.folder, root) for row in board.rows if row.folder},
        "cells": {row.label: _cells(board, row, root) for row in board.rows},
        "folders": {named(folder, root): _folder(folder, root) for folder in sorted(folders)},
    }


def _cells(board: Board, row: BoardRow, root: Path) -> dict[str, list[str]]:
    found = {h.key: row.cell(h) for h in board.headings}
    return {key: [named(f, root) for f in _of_cell(cell)] for key, cell in found.items() if cell}


def _of_cell(cell: Cell) -> list[str]:
    return cell.folders or [folder for folder in [cell.folder] if folder]


def placed(folder: str, root: Path) -> Path:
    """The path of a board's folder. An export tells it from `root` on, a run as its results were named."""
    inside = root / folder
    return inside if inside.is_dir() else Path(folder)


def named(folder: str, root: Path) -> str:
    """A folder as the page calls it: from the family's folder on, not by this machine's paths."""
    path, home = placed(folder, root).resolve(), root.resolve()
    return str(path.relative_to(home)) if path.is_relative_to(home) else folder


def _folder(folder: str, root: Path) -> dict[str, Any]:
    path = placed(folder, root)
    files = {name: read for name in FILES if (read := _text(path / name)) is not None}
    return {"folder": named(folder, root), "files": files}


def _text(path: Path) -> str | None:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:  # weights and folders may be cleaned away; the page then lacks this file
        return None
    return text if len(text) <= LONGEST else text[:LONGEST] + f"\n… {len(text) - LONGEST} more characters"
