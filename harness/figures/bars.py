"""An ablation: settings side by side, one group of bars per metric, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.figures import Row, palette, style

# rows: {"setting", "metric", "value", "low", "high"}; low and high None where there is no interval.


def _series(rows: Sequence[Row]) -> tuple[list[str], dict[str, list[Row | None]]]:
    """(metrics, setting -> its row for each metric), in the rows' order."""
    metrics = list(dict.fromkeys(r["metric"] for r in rows))
    found: dict[str, list[Row | None]] = {}
    for row in rows:
        found.setdefault(row["setting"], [None] * len(metrics))[metrics.index(row["metric"])] = row
    return metrics, found


def _spread(row: Row | None, end: str) -> float:
    return 0.0 if row is None or row.get(end) is None else abs(row[end] - row["value"])


def draw(rows: Sequence[Row]) -> Any:
    """A panel per metric: their scales differ. Error bars are 95 % intervals."""
    metrics, series = _series(rows)
    figure, axes = style.axes(1, len(metrics), height=0.9 + 0.25 * len(series))
    shades = [palette.SERIES[i % len(palette.SERIES)] for i in range(len(series))]
    for index, (axis, metric) in enumerate(zip(axes, metrics, strict=True)):
        points = [found[index] for found in series.values()]
        values = [0.0 if p is None else p["value"] for p in points]
        errors = [[_spread(p, end) for p in points] for end in ("low", "high")]
        axis.barh(list(series), values, xerr=errors, color=shades, error_kw={"elinewidth": 0.7})
        axis.set(title=metric)
        axis.grid(axis="y", visible=False)
        axis.invert_yaxis()
        if index:
            axis.set_yticklabels([])
    return figure


def interactive(rows: Sequence[Row]) -> dict[str, Any]:
    """Grouped bars."""
    metrics, series = _series(rows)
    data = []
    for index, (setting, points) in enumerate(series.items()):
        error = {"type": "data", "symmetric": False, "array": [_spread(p, "high") for p in points],
                 "arrayminus": [_spread(p, "low") for p in points]}  # fmt: skip
        data.append({"type": "bar", "name": setting, "x": metrics, "error_y": error,
                     "y": [None if p is None else p["value"] for p in points],
                     "marker": {"color": palette.SERIES[index % len(palette.SERIES)]}})  # fmt: skip
    return style.plotly(data, "Ablation", barmode="group")
