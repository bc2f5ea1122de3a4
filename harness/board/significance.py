"""Every merge against the baseline row, on the same items; corrected over the whole table."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from statistics import median

from harness.board.model import BoardRow, Cell, Heading, Test
from harness.stats.items import Items, items_of, mean_of
from harness.stats.paired import Difference, compare, holm
from harness.stats.power import detectable_mean, detectable_share

TESTED = ("merge", "checkpoint", "imported")  # of the models that were merged it is known what they are for


@lru_cache(maxsize=4096)
def _read(folder: Path, metric: str, stamp: int) -> Items | None:
    return items_of(folder, metric)


def items(cell: Cell, metric: str) -> Items | None:
    """The items behind a cell; None where there are none, or where the value is not their mean (an F1)."""
    runs = [_stamped(Path(folder), metric) for folder in cell.folders or [cell.folder] if folder]
    if not runs or None in runs:
        return None
    found = runs[0] if len(runs) == 1 else mean_of(runs)
    if found is None or not math.isclose(found.aggregate(), cell.value, rel_tol=1e-6, abs_tol=1e-9):
        return None
    return found


def _stamped(folder: Path, metric: str) -> Items | None:
    files = [folder / name for name in ("samples.parquet", "judged.parquet")]
    stamps = [file.stat().st_mtime_ns for file in files if file.is_file()]
    return _read(folder, metric, max(stamps)) if stamps else None


def test_rows(headings: Sequence[Heading], rows: Sequence[BoardRow], baseline: BoardRow) -> list[Heading]:
    """Fill `Cell.test` of every row but the baseline and the models that were merged; the headings with what
    they could have shown."""
    told: list[tuple[Cell, Difference]] = []
    seen: list[Heading] = []
    for heading in headings:
        reference = baseline.cell(heading)
        own = reference and items(reference, heading.metric)
        found = []
        for row in rows:
            cell = row.cell(heading)
            if own is None or cell is None or row is baseline or row.role not in TESTED:
                continue
            given = items(cell, heading.metric)
            if given is not None and (difference := compare(given, own)) is not None:
                found.append((cell, difference))
        seen.append(dataclasses.replace(heading, detectable=_detectable(own, [d for _, d in found])))
        told += found
    corrected = holm([difference.p for _, difference in told])
    for (cell, d), p in zip(told, corrected, strict=True):
        interval = None if d.interval is None else list(d.interval)
        cell.test = Test(d.effect, interval, d.p, p, d.test, d.n)
    return seen


def _detectable(own: Items | None, found: Sequence[Difference]) -> float | None:
    """For the median pair of the column; for the worst case where there is none."""
    if own is None or own.ratio:
        return None
    shares = [d.discordance for d in found if d.discordance is not None]
    spreads = [d.spread for d in found if d.spread]
    binary = len(shares) == len(found) and set(own.values.tolist()) <= {0.0, 1.0}
    if binary and own.clusters is None:
        return detectable_share(len(own.ids), median(shares) if shares else None)
    return detectable_mean(len(own.ids), median(spreads)) if spreads else None
