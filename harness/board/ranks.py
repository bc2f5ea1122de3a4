"""Ranks of merges over the columns, and how sure they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.board.marks import ranked
from harness.board.model import Board, BoardRow, Heading
from harness.board.significance import items
from harness.stats.items import Items, matched
from harness.stats.paired import by_cluster, resampled

DRAWS = 1000


@dataclass(frozen=True)
class Rank:
    """Mean rank over the columns (1 is best) with the 95 % interval of a bootstrap over items; None where the
    items are not there. Collapsed merges share the last ranks."""

    mean: float
    low: float | None
    high: float | None


def ranks(board: Board) -> dict[str, Rank]:
    """Ranks of the merges that have every main column, by label."""
    import numpy as np

    columns = [h for h in board.headings if h.main]
    rows = [row for row in board.rows if row.is_merge and not lacking(board, row)]
    if not rows or not columns:
        return {}
    broken = np.array([not ranked(row) for row in rows])
    point = np.mean([_ranked(_values(rows, h), h, broken) for h in columns], axis=0)
    drawn = [_drawn(rows, h, broken, seed) for seed, h in enumerate(columns)]
    if any(d is None for d in drawn):
        return {row.label: Rank(float(mean), None, None) for row, mean in zip(rows, point, strict=True)}
    low, high = np.quantile(np.mean(drawn, axis=0), [0.025, 0.975], axis=0)
    return {
        row.label: Rank(float(mean), float(a), float(b))
        for row, mean, a, b in zip(rows, point, low, high, strict=True)
    }


def lacking(board: Board, row: BoardRow) -> list[str]:
    """The main columns that a row lacks, by title."""
    return [h.title for h in board.headings if h.main and not _finite(row, h)]


def _finite(row: BoardRow, heading: Heading) -> bool:
    cell = row.cell(heading)
    return cell is not None and not math.isnan(cell.value)


def _values(rows: Sequence[BoardRow], heading: Heading):
    import numpy as np

    values = [row.cell(heading).value for row in rows]
    return np.array([float(f"{value:.12g}") for value in values])  # equal but for the last digits of a sum


def _ranked(values, heading: Heading, broken):
    """Ranks along the last axis, ties at their mean; collapsed rows behind all others."""
    import numpy as np
    from scipy.stats import rankdata

    order = -values if heading.higher_is_better else values
    return rankdata(np.where(broken, np.inf, order), axis=-1)


def _drawn(rows: Sequence[BoardRow], heading: Heading, broken, seed: int):
    """Ranks [draws, rows] in bootstrap samples of the items that all rows have; None without items."""
    import numpy as np

    found: list[Items] = []
    for row in rows:
        own = items(row.cell(heading), heading.metric)
        if own is None:
            return None
        found.append(own)
    first = found[0]
    for other in found[1:]:
        first, _ = matched(first, other)
    found = [matched(own, first)[0] for own in found]
    if not first.ids:
        return None
    matrix = np.concatenate(
        [i.values.reshape(len(i.ids), -1) for i in found] + [np.ones((len(first.ids), 1))], axis=1
    )
    if first.clusters is not None:
        matrix = by_cluster(first.clusters, matrix)
    sums = resampled(matrix, DRAWS, seed)
    with np.errstate(over="ignore"):
        if first.ratio:
            values = np.exp(-sums[:, 0:-1:2] / sums[:, 1:-1:2])
        else:
            values = sums[:, :-1] / sums[:, -1:]
    return _ranked(np.round(values, 12), heading, broken)
