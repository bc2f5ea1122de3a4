"""Figures of rows that differ in settings: a surface over two numbers, bars otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.board import BoardRow, Heading
from harness.figures import Row, bars, surface, write


def draw(
    name: str,
    rows: Sequence[tuple[str, BoardRow]],
    headings: Sequence[Heading],
    folder: Path,
    points: Sequence[Mapping[str, Any]] | None = None,
) -> list[Path]:
    """The main columns of (label, row) as figure `name`; the files written. Where all rows' `points` (their
    settings, in order) are two numbers each, and both vary, they are a surface."""
    shown = [heading for heading in headings if heading.main]
    if points is not None and is_surface(points):
        return write(surface, name, _surface(rows, shown, points), folder)
    return write(bars, name, _bars(rows, shown), folder)


def is_surface(points: Sequence[Mapping[str, Any]]) -> bool:
    """Whether all points are two numbers of the same two names, and each name has several values."""
    names = list(points[0]) if points else []
    same = len(names) == 2 and all(list(point) == names for point in points)
    return same and all(
        all(_is_number(point[name]) for point in points) and len({point[name] for point in points}) > 1
        for name in names
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _surface(
    rows: Sequence[tuple[str, BoardRow]], headings: Sequence[Heading], points: Sequence[Mapping[str, Any]]
) -> list[Row]:
    cells = []
    for heading in headings:
        for (_, row), point in zip(rows, points, strict=True):
            (x_name, x), (y_name, y) = point.items()
            if (cell := row.cell(heading)) is not None:
                cells.append({"panel": f"{heading.title} {heading.arrow}", "x_name": x_name, "x": x,
                              "y_name": y_name, "y": y, "value": heading.scaled(cell.value)})  # fmt: skip
    return cells


def _bars(rows: Sequence[tuple[str, BoardRow]], headings: Sequence[Heading]) -> list[Row]:
    cells = []
    for label, row in rows:
        for heading in headings:
            if (cell := row.cell(heading)) is not None:
                low, high = [heading.scaled(v) for v in cell.interval] if cell.interval else (None, None)
                cells.append({"setting": label, "method": row.method,
                              "metric": f"{heading.title} {heading.arrow}",
                              "value": heading.scaled(cell.value), "low": low, "high": high})  # fmt: skip
    return cells
