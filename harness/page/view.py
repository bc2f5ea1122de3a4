"""A board as the page shows it: every number with its text, the same as in other reports."""

from __future__ import annotations

import math
import string
from typing import Any

import yaml

from harness.board import Average, Board, BoardRow, Cell, Heading, number
from harness.board import Test as Comparison
from harness.figures import palette
from harness.page.pack import plain


def view(board: Board) -> dict[str, Any]:
    """Plain data of one family's table."""
    columns = _columns(board)
    return {
        "family": board.family,
        "title": board.title,
        "limit": board.limit,
        "split": board.split,
        "baseline": board.baseline,
        "groups": board.groups,
        "columns": columns,
        "rows": [_row(board, row) for row in board.rows],
        "footnotes": list(board.footnotes),
        "mixed": [[letter(i), text] for i, text in enumerate(board.mixed)],
        "settings": told(board.settings),
        "provenance": told(board.provenance),
        "withPaper": board.with_paper,
    }


def letter(index: int) -> str:
    """The mark of a footnote: a, b, …, z, aa, ab, …"""
    found, letters = "", string.ascii_lowercase
    while index >= 0:
        found, index = letters[index % 26] + found, index // 26 - 1
    return found


def told(values: Any) -> str:
    """Settings as YAML; empty for none."""
    return yaml.safe_dump(plain(values), sort_keys=False, allow_unicode=True, width=100) if values else ""


def _columns(board: Board) -> list[dict[str, Any]]:
    """The headings with, behind each group, its averages."""
    columns: list[dict[str, Any]] = []
    averages = {
        place: (a.group, a.higher_is_better)
        for row in board.rows
        for place, a in enumerate(row.averages)
        if a.complete
    }
    for group in board.groups:
        headings = [h for h in board.headings if h.group == group]
        columns += [_column(board, h) for h in headings]
        columns += [
            {
                "key": f"average/{place}",
                "title": "average",
                "group": group,
                "arrow": "↑" if higher else "↓",
                "higher": higher,
                "average": True,
            }
            for place, (of, higher) in averages.items()
            if of == group
        ]
    return columns


def _column(board: Board, h: Heading) -> dict[str, Any]:
    return {
        "key": h.key,
        "task": h.task,
        "metric": h.metric,
        "title": h.title,
        "group": h.group,
        "arrow": h.arrow,
        "higher": h.higher_is_better,
        "kind": h.kind,
        "n": board.n(h),
        "main": h.main,
        "detectable": None if h.detectable is None else h.text(h.detectable),
    }


def _row(board: Board, row: BoardRow) -> dict[str, Any]:
    cells = {h.key: _cell(board, h, cell) for h in board.headings if (cell := row.cell(h))}
    cells |= {f"average/{i}": _average(board, row, a) for i, a in enumerate(row.averages) if a.complete}
    return {
        "label": row.label,
        "role": row.role,
        "merge": row.is_merge,
        "method": row.method,
        "colour": palette.colour(row.method),
        "parameters": _parameters(row.parameters),
        "collapsed": list(row.collapsed),
        "stale": row.stale,
        "imported": row.imported,
        "notes": list(row.notes),
        "seconds": {phase: f"{seconds:.1f} s" for phase, seconds in row.seconds.items()},
        "peak": None if row.peak_mib is None else f"{row.peak_mib:.0f} MiB",
        "recipe": told(row.recipe),
        "command": row.command,
        "cells": cells,
    }


def _parameters(parameters: dict[str, Any]) -> str:
    return ", ".join(f"{name}={plain(value)}" for name, value in parameters.items())


def _cell(board: Board, h: Heading, cell: Cell) -> dict[str, Any]:
    spread = cell.stderr if cell.sd is None else cell.sd
    found = {
        "value": plain(float(cell.value)),
        "text": h.text(cell.value),
        "spread": None if spread is None or not math.isfinite(spread) else h.text(spread),
        "spreadIs": "standard error" if cell.sd is None else "standard deviation over seeds",
        "interval": _interval(h, cell.interval),
        "n": cell.n,
        "best": cell.best,
        "second": cell.second,
        "stale": cell.stale,
        "imported": cell.imported,
        "notes": [letter(i) for i in cell.footnotes],
        "rates": {name: f"{share:.1%}" for name, share in cell.rates.items() if share is not None},
        "tokens": None if cell.tokens is None else f"{cell.tokens:.0f}",
        "seeds": [h.text(value) for value in cell.values],
        "items": None if cell.sd_items is None else h.text(cell.sd_items),
        "kept": None if cell.kept is None else f"{cell.kept:.1%}",
        "test": cell.test and _test(h, cell.test),
        "settings": told(cell.settings),
    }
    if board.with_paper:
        found |= {"paper": None if cell.paper is None else _paper(h, cell), "paperNote": cell.paper_note}
    return {name: value for name, value in found.items() if value not in (None, "", [], {}, False)}


def _interval(h: Heading, interval: list[float] | None) -> str | None:
    return None if not interval else f"{h.text(interval[0])} – {h.text(interval[1])}"


def _test(h: Heading, test: Comparison) -> dict[str, Any]:
    better = test.difference > 0 if h.higher_is_better else test.difference < 0
    return {
        "difference": signed(h, test.difference),
        "interval": test.interval and " – ".join(signed(h, end) for end in test.interval),
        "p": probability(test.p),
        "holm": probability(test.p_holm),
        "name": test.test,
        "n": test.n,
        "significant": test.significant,
        "better": better,
    }


def _paper(h: Heading, cell: Cell) -> dict[str, str]:
    return {"text": h.text(cell.paper), "difference": signed(h, cell.value - cell.paper)}


def _average(board: Board, row: BoardRow, average: Average) -> dict[str, Any]:
    """With the digits of the columns that it is a mean of."""
    digits = next((h.digits for h in board.headings if average.over(h)), 1)
    text = number(average.value, digits)
    return {"value": plain(float(average.value)), "text": text, "best": average.best}


def signed(h: Heading, difference: float) -> str:
    """A difference in the column's units, with its sign (a true minus)."""
    text = h.text(abs(difference))
    return text if not text.strip("0.") else ("+" if difference > 0 else "−") + text


def probability(p: float | None) -> str | None:
    """A p value in three digits."""
    return None if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"
