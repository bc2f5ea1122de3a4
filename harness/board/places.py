"""Where the folders of a board lie, when it is read from elsewhere than it was written."""

from __future__ import annotations

from pathlib import Path

from harness.board.model import Board


def within(folder: str, root: Path) -> str | None:
    """The part of a board's folder from the results of its family, `root`, on; None for one that is not
    there. It may have been written relative to a working folder, or before the results were moved."""
    parts = Path(folder).parts
    ends = (Path(*parts[i:]) for i in range(len(parts)))
    return next((str(end) for end in ends if not end.is_absolute() and (root / end).is_dir()), None)


def relative(board: Board, root: Path) -> Board:
    """The board with its folders told from `root` on; others stay as they are. Changes `board`."""
    return _moved(board, root, Path())


def absolute(board: Board, root: Path) -> Board:
    """The board with its folders where they lie now; those that are not in `root` stay as they are. Changes
    `board`."""
    return _moved(board, root, root)


def _moved(board: Board, root: Path, to: Path) -> Board:
    def there(folder: str) -> str:
        found = within(folder, root) if folder else None
        return str(to / found) if found else folder

    for row in board.rows:
        row.folder = there(row.folder)
        for cell in row.cells.values():
            cell.folder, cell.folders = there(cell.folder), [there(f) for f in cell.folders]
    return board
