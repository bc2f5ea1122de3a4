"""A quantity over the layers, a panel per projection, a line per model (the paper's Figure 2, top)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.figures import Row, palette, style

# rows: {"module": q, k, v or o, "series": which model and data, "layer": from 0, "value", "name": of the
# quantity}


def _lines(rows: Sequence[Row]) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """module -> series -> (layer, value), by layer."""
    found: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for row in sorted(rows, key=lambda r: r["layer"]):
        found.setdefault(row["module"], {}).setdefault(row["series"], []).append((row["layer"], row["value"]))
    order = list(dict.fromkeys(r["module"] for r in rows))
    return {module: found[module] for module in order}


def _shades(rows: Sequence[Row]) -> dict[str, str]:
    names = dict.fromkeys(r["series"] for r in rows)
    return {name: palette.SERIES[i % len(palette.SERIES)] for i, name in enumerate(names)}


def draw(rows: Sequence[Row]) -> Any:
    """Panels of one quantity share the y axis, so that projections can be compared."""
    found, shades = _lines(rows), _shades(rows)
    shared = len({row["name"] for row in rows}) == 1
    figure, axes = style.axes(1, len(found), height=2.2)
    handles: dict[str, Any] = {}
    for index, (axis, (module, series)) in enumerate(zip(axes, found.items(), strict=True)):
        for name, points in series.items():
            (line,) = axis.plot(*zip(*points, strict=True), color=shades[name], linewidth=1.1)
            handles.setdefault(name, line)
        axis.set(title=module, xlabel="layer")
        if shared and index:
            axis.sharey(axes[0])
            axis.tick_params(labelleft=False)
    if shared:
        axes[0].set_ylabel(rows[0]["name"])
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=3)
    return figure


def interactive(rows: Sequence[Row]) -> dict[str, Any]:
    """Panels side by side; the legend's names switch a model everywhere."""
    found, shades = _lines(rows), _shades(rows)
    data, layout = [], {}
    for index, (module, series) in enumerate(found.items()):
        axis = str(index + 1) if index else ""
        for name, points in series.items():
            xs, ys = zip(*points, strict=True)
            shared = {"type": "scatter", "mode": "lines", "name": name, "legendgroup": name}
            data.append({**shared, "x": xs, "y": ys, "xaxis": f"x{axis}", "showlegend": not index,
                         "line": {"color": shades[name]}})  # fmt: skip
        width = 1 / len(found)
        layout[f"xaxis{axis}"] = {"domain": [index * width, (index + 0.9) * width],
                                  "title": {"text": f"{module}, layer"}}  # fmt: skip
    return style.plotly(data, rows[0]["name"], yaxis={"title": {"text": rows[0]["name"]}}, **layout)
