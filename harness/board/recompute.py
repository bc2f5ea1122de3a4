"""A cell's value anew from what was answered, without the record that the table was made from."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

from harness.board.model import Board, BoardRow, Cell, Heading
from harness.stats.items import items_of


def recomputed(board: Board, row: BoardRow, heading: Heading, root: Path | None = None) -> float | None:
    """The value of a cell from its samples (a mean, or a perplexity from its documents' log-likelihoods), or
    by its task's own aggregation where the value is no mean. None where the samples are not there. `root` is
    where folders that are not absolute lie."""
    cell = row.cell(heading)
    if cell is None or not cell.folder:
        return None
    if cell.folders:
        runs = [
            dataclasses.replace(cell, folder=f, folders=[], value=v)
            for f, v in zip(cell.folders, cell.values, strict=True)
        ]
        single = [
            recomputed(
                board, dataclasses.replace(row, cells={(heading.task, heading.metric): one}), heading, root
            )
            for one in runs
        ]
        return None if None in single else math.fsum(single) / len(single)
    folder = (root / cell.folder) if root is not None else Path(cell.folder)
    found = items_of(folder, heading.metric)
    if found is not None and same(found.aggregate(), cell.value):
        return found.aggregate()
    other = _aggregated(cell, heading, folder)
    return other if other is not None else (None if found is None else found.aggregate())


def same(one: float, other: float) -> bool:
    """Equal but for the last digits of a sum."""
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12) or (math.isnan(one) and math.isnan(other))


def _aggregated(cell: Cell, heading: Heading, folder: Path) -> float | None:
    """By the scorer and the aggregation of the task, from responses."""
    from harness.board.rescore import rescored

    return rescored(heading.task, heading.metric, folder)
