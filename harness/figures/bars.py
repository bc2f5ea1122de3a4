"""An ablation: settings side by side, one group of bars per metric, with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from harness.figures import Row, palette, style

# rows: {"setting", "metric", "value", "low", "high"}; low and high None where there is no interval. With
# "method" (None: a reference) a setting has its method's colour.
ACROSS = 3  # panels in a line


def _series(rows: Sequence[Row]) -> tuple[list[str], dict[str, list[Row | None]]]:
    """(metrics, setting -> its row for each metric), in the rows' order."""
    metrics = list(dict.fromkeys(r["metric"] for r in rows))
    found: dict[str, list[Row | None]] = {}
    for row in rows:
        found.setdefault(row["setting"], [None] * len(metrics))[metrics.index(row["metric"])] = row
    return metrics, found


def _spread(row: Row | None, end: str) -> float:
    return 0.0 if row is None or row.get(end) is None else abs(row[end] - row["value"])


def _shades(rows: Sequence[Row]) -> dict[str, str]:
    """setting -> its colour."""
    methods = {row["setting"]: row.get("method", "") for row in rows}
    return {
        setting: palette.SERIES[i % len(palette.SERIES)] if method == "" else palette.colour(method)
        for i, (setting, method) in enumerate(methods.items())
    }


def draw(rows: Sequence[Row]) -> Any:
    """A panel per metric: their scales differ. Error bars are 95 % intervals."""
    metrics, series = _series(rows)
    across = min(ACROSS, len(metrics))
    down = math.ceil(len(metrics) / across)
    figure, axes = style.axes(down, across, height=down * (0.6 + 0.17 * len(series)))
    shades = list(_shades(rows).values())
    for index, (axis, metric) in enumerate(zip(axes, metrics, strict=False)):
        points = [found[index] for found in series.values()]
        values = [0.0 if p is None else p["value"] for p in points]
        errors = [[_spread(p, end) for p in points] for end in ("low", "high")]
        axis.barh(list(series), values, xerr=errors, color=shades, error_kw={"elinewidth": 0.7})
        axis.set(title=metric)
        axis.grid(axis="y", visible=False)
        axis.invert_yaxis()
        if index % across:
            axis.set_yticklabels([])
    for axis in axes[len(metrics) :]:
        axis.remove()
    return figure


def interactive(rows: Sequence[Row]) -> dict[str, Any]:
    """Grouped bars."""
    metrics, series = _series(rows)
    data = []
    for shade, (setting, points) in zip(palette.SERIES * len(series), series.items(), strict=False):
        error = {"type": "data", "symmetric": False, "array": [_spread(p, "high") for p in points],
                 "arrayminus": [_spread(p, "low") for p in points]}  # fmt: skip
        data.append({"type": "bar", "name": setting, "x": metrics, "error_y": error,
                     "y": [None if p is None else p["value"] for p in points],
                     "marker": {"color": shade}})  # fmt: skip
    return style.plotly(data, "Ablation", barmode="group")
