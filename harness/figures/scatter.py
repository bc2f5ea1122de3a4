"""Reasoning against the domain, one panel per domain column, with the Pareto front (the paper's Figure 1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from harness.board import Board, BoardRow, Heading
from harness.figures import Row, palette, style

NO_DOMAIN = {"Reasoning", "Knowledge", "Perplexity"}
# "Safety Score = max score - harmfulness score", max score 4.0 (arXiv:2601.05560, appendix E).
FLIPPED = {"harmfulness": ("Safety score (4 − harmfulness)", 4.0)}


def rows(board: Board) -> list[Row]:
    """One row for each board row and domain column: mean of the reasoning columns (percent), the column
    (flipped where a highest value is known, so that up is better), 95 % intervals, whether on the front."""
    reasoning = [h for h in board.headings if h.group == "Reasoning" and h.main and h.kind == "accuracy"]
    found: list[Row] = []
    for heading in (h for h in board.headings if h.group not in NO_DOMAIN and h.main):
        panel = [r for row in board.rows if (r := _row(row, reasoning, heading))]
        found += _fronted(panel, heading)
    return found


def _row(row: BoardRow, reasoning: Sequence[Heading], heading: Heading) -> Row | None:
    cells = [row.cell(h) for h in reasoning]
    cell = row.cell(heading)
    if not cells or any(c is None for c in cells) or cell is None or not math.isfinite(cell.value):
        return None
    label, flip = _axis(heading)
    # independent columns: the variance of their mean is the mean variance over their number
    spread = math.sqrt(math.fsum((c.stderr or 0.0) ** 2 for c in cells)) / len(cells) * 1.96
    x = math.fsum(c.value for c in cells) / len(cells)
    low, high = cell.interval or _normal(cell.value, cell.stderr)
    values = [flip(heading.scaled(v)) for v in (cell.value, low, high)]
    return {
        "row": row.label, "method": row.method, "role": row.role, "collapsed": bool(row.collapsed),
        "domain": heading.title, "axis": label,
        "x": 100 * x, "x_low": 100 * (x - spread), "x_high": 100 * (x + spread),
        "y": values[0], "y_low": min(values[1:]), "y_high": max(values[1:]),
        "up": heading.higher_is_better or _flippable(heading),
    }  # fmt: skip


def _normal(value: float, stderr: float | None) -> tuple[float, float]:
    half = 1.96 * (stderr or 0.0)
    return value - half, value + half


def _flippable(heading: Heading) -> bool:
    return not heading.higher_is_better and (heading.kind == "accuracy" or heading.metric in FLIPPED)


def _axis(heading: Heading) -> tuple[str, Any]:
    if not _flippable(heading):
        unit = " (%)" if heading.kind == "accuracy" else ""
        return f"{heading.title}{unit} {heading.arrow}", lambda value: value
    if heading.metric in FLIPPED:
        label, highest = FLIPPED[heading.metric]
        return label, lambda value: highest - value
    return f"100 − {heading.title} (%)", lambda value: 100 - value


def _fronted(panel: list[Row], heading: Heading) -> list[Row]:
    """Marks the rows that no working row beats in both."""
    sign = 1 if heading.higher_is_better or _flippable(heading) else -1
    working = [(r["x"], sign * r["y"]) for r in panel if not r["collapsed"]]
    for row in panel:
        x, y = row["x"], sign * row["y"]
        beaten = any(a >= x and b >= y and (a > x or b > y) for a, b in working)
        row["front"] = not row["collapsed"] and not beaten
    return panel


def _panels(rows: Sequence[Row]) -> dict[str, list[Row]]:
    panels: dict[str, list[Row]] = {}
    for row in rows:
        panels.setdefault(row["domain"], []).append(row)
    return panels


def draw(rows: Sequence[Row]) -> Any:
    """Error bars are 95 % intervals; hollow: collapsed; the line joins the front."""
    panels = _panels(rows)
    across = min(2, len(panels))
    down = math.ceil(len(panels) / across)
    figure, axes = style.axes(down, across, height=0.6 + 2.5 * down, width=style.WIDTH if across > 1 else 3.6)
    for axis, panel in zip(axes, panels.values(), strict=False):
        for row, marker in zip(panel, palette.markers([r["method"] for r in panel]), strict=True):
            shade = palette.colour(row["method"])
            axis.errorbar(
                row["x"], row["y"], color=shade, marker=marker, markersize=5, linestyle="none",
                elinewidth=0.6,
                xerr=[[row["x"] - row["x_low"]], [row["x_high"] - row["x"]]],
                yerr=[[row["y"] - row["y_low"]], [row["y_high"] - row["y"]]],
                markerfacecolor="none" if row["collapsed"] else shade, label=row["row"],
            )  # fmt: skip
        front = sorted((r["x"], r["y"]) for r in panel if r["front"])
        axis.plot(*zip(*front, strict=True), color="#999999", linewidth=0.8, linestyle="--", zorder=0)
        axis.set(xlabel="Reasoning, mean (%)", ylabel=panel[0]["axis"])
        if not panel[0]["up"]:
            axis.invert_yaxis()
    for axis in axes[len(panels) :]:
        axis.remove()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4 if across > 1 else 2)
    return figure


def interactive(rows: Sequence[Row]) -> dict[str, Any]:
    """The first panel's axes with a menu of panels."""
    panels, data, owners = _panels(rows), [], []
    for name, panel in panels.items():
        for row, marker in zip(panel, palette.markers([r["method"] for r in panel]), strict=True):
            symbol = palette.MARKERS[marker] + ("-open" if row["collapsed"] else "")
            bars = {
                axis: {"type": "data", "symmetric": False, "thickness": 1,
                       "array": [row[f"{axis}_high"] - row[axis]],
                       "arrayminus": [row[axis] - row[f"{axis}_low"]]}
                for axis in "xy"
            }  # fmt: skip
            data.append({
                "type": "scatter", "mode": "markers", "name": row["row"], "x": [row["x"]], "y": [row["y"]],
                "error_x": bars["x"], "error_y": bars["y"], "visible": name == next(iter(panels)),
                "marker": {"color": palette.colour(row["method"]), "symbol": symbol, "size": 9},
            })  # fmt: skip
            owners.append(name)
    buttons = [
        {"label": name, "method": "update",
         "args": [{"visible": [owner == name for owner in owners]}, {"yaxis.title.text": panel[0]["axis"]}]}
        for name, panel in panels.items()
    ]  # fmt: skip
    first = next(iter(panels.values()))
    menus = [{"buttons": buttons, "x": 1, "xanchor": "right", "y": 1.15}] if len(panels) > 1 else []
    return style.plotly(
        data,
        "Reasoning and domain",
        xaxis={"title": {"text": "Reasoning, mean (%)"}},
        yaxis={"title": {"text": first[0]["axis"]}},
        updatemenus=menus,
    )
