"""`table.csv`: tidy, one line per row and column, with everything behind the cell."""

import csv
import json

FIELDS = [
    "family",
    "split",
    "limit",
    "row",
    "role",
    "method",
    "parameters",
    "task",
    "metric",
    "group",
    "higher_is_better",
    "value",
    "stderr",
    "interval_low",
    "interval_high",
    "n",
    "best",
    "collapsed",
    "older_code",
    "unparsed",
    "unfinished",
    "empty",
    "truncated",
    "repetition",
    "tokens_per_response",
    "merge_seconds",
    "model_folder",
    "eval_folder",
]


def render(board, folder):
    """Write `folder/table.csv`. Values are unscaled; a cell that was not run has an empty value."""
    path = folder / "table.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.DictWriter(file, FIELDS, restval="")
        out.writeheader()
        for row in board.rows:
            for h in board.headings:
                out.writerow(_line(board, row, h))
    return [path]


def _line(board, row, h):
    line = {
        "family": board.family,
        "split": board.split,
        "limit": board.limit,
        "row": row.label,
        "role": row.role,
        "method": row.method,
        "parameters": json.dumps(row.parameters, sort_keys=True),
        "task": h.task,
        "metric": h.metric,
        "group": h.group,
        "higher_is_better": h.higher_is_better,
        "collapsed": "; ".join(row.collapsed),
        "older_code": row.stale,
        "model_folder": row.folder,
        "merge_seconds": sum(row.seconds.values()) if row.seconds else "",
    }
    cell = row.cells.get((h.task, h.metric))
    if cell is None:
        return line
    rates = {k: v for k, v in cell.rates.items() if k in FIELDS}
    low, high = cell.interval or ("", "")
    return {
        **line,
        **rates,
        "interval_low": low,
        "interval_high": high,
        "tokens_per_response": "" if cell.tokens is None else cell.tokens,
        "value": cell.value,
        "stderr": cell.stderr,
        "n": cell.n,
        "best": cell.best,
        "eval_folder": cell.folder,
    }
