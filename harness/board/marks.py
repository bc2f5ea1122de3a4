"""Marks of a board: best and second merge, averages of groups, what of the experts is kept."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.board.model import Average, BoardRow, Cell, Heading

EXPERTS_OF = {
    "Reasoning": "reasoning",
    "Knowledge": "reasoning",
}  # whose ability a group is; others: the rest


def mark_best(headings: Sequence[Heading], rows: Sequence[BoardRow]) -> None:
    """Best and second best merge after rounding, ties all marked; reference rows, collapsed merges and
    imported rows of unknown origin never."""
    for heading in headings:
        cells = [cell for row in rows if ranked(row) and _finite(cell := row.cell(heading))]
        shown = sorted({heading.rounded(c.value) for c in cells}, reverse=heading.higher_is_better)
        for cell in cells:
            place = shown.index(heading.rounded(cell.value))
            cell.best, cell.second = place == 0, place == 1


def ranked(row: BoardRow) -> bool:
    """Whether a row takes part in best and second."""
    return row.is_merge and not row.collapsed


def _finite(cell: Cell | None) -> bool:
    return cell is not None and math.isfinite(cell.value)


def average(headings: Sequence[Heading], rows: Sequence[BoardRow]) -> None:
    """Means over the main columns of a group that share direction and kind, for every row; the best merges'
    are marked as cells are. A group of one such column has none."""
    parts: dict[tuple[str, bool, str], list[Heading]] = {}
    for heading in headings:
        if heading.main and heading.kind != "perplexity":
            parts.setdefault((heading.group, heading.higher_is_better, heading.kind), []).append(heading)
    for part, own in parts.items():
        if len(own) < 2:
            continue
        made = []
        for row in rows:
            cells = [row.cell(h) for h in own]
            complete = all(_finite(cell) for cell in cells)
            mean = own[0].scaled(math.fsum(c.value for c in cells) / len(own)) if complete else None
            row.averages.append(Average(*part, mean, complete))
            if complete and ranked(row):
                made.append(row.averages[-1])
        top = sorted({round(a.value, own[0].digits) for a in made}, reverse=part[1])
        for one in made:
            one.best = round(one.value, own[0].digits) == top[0]


def keep(headings: Sequence[Heading], rows: Sequence[BoardRow]) -> None:
    """`kept` = merge / expert per column: of Reasoning and Knowledge next to the reasoning expert, elsewhere
    next to the best of the other experts. Only where high is good and the expert is above zero: a ratio of
    harms, or to nothing, says nothing."""
    known = ("base", "checkpoint", "imported")
    experts = [row for row in rows if not row.is_merge and row.role not in known]
    for heading in headings:
        if not heading.higher_is_better:
            continue
        of_reasoning = EXPERTS_OF.get(heading.group) == "reasoning"
        own = [r for r in experts if (r.role == "reasoning") == of_reasoning] or experts
        values = [cell.value for r in own if _finite(cell := r.cell(heading))]
        if not values or max(values) <= 0:
            continue
        for row in rows:
            if row.is_merge and _finite(cell := row.cell(heading)):
                cell.kept = cell.value / max(values)
