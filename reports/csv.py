"""`table.csv`: tidy, one line per row and column, with everything behind the cell."""

import csv

from harness.store import whole
from harness.typeset import FIELDS, records


def render(board, folder):
    """Write `folder/table.csv`. Values are unscaled; a cell that was not run has an empty value."""
    path = folder / "table.csv"
    with whole(path) as part, part.open("w", newline="", encoding="utf-8", errors="replace") as file:
        out = csv.DictWriter(file, list(FIELDS))
        out.writeheader()
        out.writerows(records(board))
    return [path]
