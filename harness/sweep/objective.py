"""What a search maximises: one number for a row of a board. Light."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.board import BoardRow, Heading
from harness.errors import HarnessError, nearest


def columns(headings: Sequence[Heading], wanted: str | None) -> list[Heading]:
    """The columns of the objective: the one called `task/metric` (or by its task alone), or else every main
    column that is a share. HarnessError for an unknown one, or where there are none."""
    if wanted is not None:
        found = [h for h in headings if wanted in (h.key, h.task)]
        if not found:
            raise HarnessError(f"no column is called `{wanted}`", nearest(wanted, [h.key for h in headings]))
        return found[:1]
    found = [h for h in headings if h.main and h.kind == "accuracy"]
    if not found:
        raise HarnessError(
            "none of the tasks gives a share to maximise", "name a column: --objective TASK/METRIC"
        )
    return found


def value(headings: Sequence[Heading], row: BoardRow, wanted: str | None) -> float | None:
    """Mean over the columns, those where low is good as 1 - value (or negative, where they are no share). A
    collapsed row ranks below every working one. None while a cell is missing or not finite."""
    given = []
    for heading in columns(headings, wanted):
        cell = row.cell(heading)
        if cell is None or not math.isfinite(cell.value):
            return None
        low = 1 - cell.value if heading.kind == "accuracy" else -cell.value
        given.append(cell.value if heading.higher_is_better else low)
    mean = math.fsum(given) / len(given)
    return mean - (1 + abs(mean)) if row.collapsed else mean


def spelled(headings: Sequence[Heading], wanted: str | None) -> str:
    """The objective in words."""
    found = columns(headings, wanted)
    named = [h.title if h.higher_is_better else f"less {h.title}" for h in found]
    return named[0] if len(named) == 1 else "mean of " + ", ".join(named)
