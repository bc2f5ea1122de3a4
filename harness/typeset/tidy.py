"""The board as one flat record per row and column, with everything behind the cell."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from harness.board import Board, BoardRow, Heading

# What every record has, and of which type; a value that there is not is None.
FIELDS: dict[str, type] = {
    "family": str, "split": str, "limit": int, "row": str, "role": str, "method": str, "parameters": str,
    "task": str, "metric": str, "title": str, "group": str, "kind": str, "main": bool,
    "higher_is_better": bool, "value": float, "stderr": float, "interval_low": float, "interval_high": float,
    "n": int, "values": str, "sd": float, "sd_items": float, "best": bool, "second": bool, "collapsed": str,
    "older_code": bool, "cell_stale": bool, "imported": bool, "footnotes": str, "kept": float,
    "group_average": float, "baseline": str, "difference": float, "difference_low": float,
    "difference_high": float, "p": float, "p_holm": float, "significant": bool, "test": str, "test_n": int,
    "detectable": float, "paper": float, "paper_note": str, "unparsed": float, "unfinished": float,
    "empty": float, "truncated": float, "repetition": float, "rates": str, "tokens_per_response": float,
    "settings": str, "merge_seconds": float, "peak_mib": float, "recipe": str, "command": str, "notes": str,
    "model_folder": str, "eval_folder": str, "eval_folders": str,
}  # fmt: skip
RATES = ("unparsed", "unfinished", "empty", "truncated", "repetition")


def records(board: Board) -> Iterator[dict[str, Any]]:
    """One record per row and column of the table. Values are unscaled; lists and mappings are JSON."""
    for row in board.rows:
        for heading in board.headings:
            found = {**_row(board, row), **_heading(heading), **_cell(board, row, heading)}
            yield {name: found.get(name) for name in FIELDS}


def _row(board: Board, row: BoardRow) -> dict[str, Any]:
    return {
        "family": board.family,
        "split": board.split,
        "limit": board.limit,
        "baseline": board.baseline,
        "row": row.label,
        "role": row.role,
        "method": row.method,
        "parameters": _json(row.parameters),
        "collapsed": "; ".join(row.collapsed),
        "older_code": row.stale,
        "imported": row.imported,
        "merge_seconds": sum(row.seconds.values()) if row.seconds else None,
        "peak_mib": row.peak_mib,
        "recipe": _json(row.recipe),
        "command": row.command,
        "notes": "; ".join(row.notes),
        "model_folder": row.folder,
    }


def _heading(heading: Heading) -> dict[str, Any]:
    names = ("task", "metric", "title", "group", "kind", "main", "higher_is_better", "detectable")
    return {name: getattr(heading, name) for name in names}


def _cell(board: Board, row: BoardRow, heading: Heading) -> dict[str, Any]:
    cell = row.cell(heading)
    if cell is None:
        return {}
    low, high = cell.interval or (None, None)
    names = ("value", "stderr", "n", "sd", "sd_items", "best", "second", "kept", "paper", "paper_note")
    return {
        **{name: getattr(cell, name) for name in names},
        **{name: cell.rates.get(name) for name in RATES},
        **_test(cell.test),
        "rates": _json(cell.rates),
        "interval_low": low,
        "interval_high": high,
        "values": _json(cell.values) if cell.values else None,
        "cell_stale": cell.stale,
        "imported": cell.imported or row.imported,
        "footnotes": "; ".join(board.mixed[i] for i in cell.footnotes),
        "group_average": next((a.value for a in row.averages if a.over(heading) and a.complete), None),
        "tokens_per_response": cell.tokens,
        "settings": _json(cell.settings),
        "eval_folder": cell.folder,
        "eval_folders": _json(cell.folders) if cell.folders else None,
    }


def _test(test: Any) -> dict[str, Any]:
    if test is None:
        return {}
    low, high = test.interval or (None, None)
    return {
        "difference": test.difference,
        "difference_low": low,
        "difference_high": high,
        "p": test.p,
        "p_holm": test.p_holm,
        "significant": test.significant,
        "test": test.test,
        "test_n": test.n,
    }


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
