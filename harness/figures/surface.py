"""A metric over two parameters, as a surface and as a heat map (the paper's Figure 4: λ and p)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from harness.figures import Row, style

# rows: {"panel": metric's title, "x_name", "x", "y_name", "y", "value"}; a grid need not be complete.
MAP = "cividis"
ACROSS = 3  # panels in a line


def _grids(rows: Sequence[Row]) -> dict[str, tuple[list, list, list[list[float | None]]]]:
    """panel -> (x values, y values, values[y][x]), ascending; None where the grid has no point."""
    found = {}
    for panel in dict.fromkeys(r["panel"] for r in rows):
        own = [r for r in rows if r["panel"] == panel]
        xs, ys = sorted({r["x"] for r in own}), sorted({r["y"] for r in own})
        grid: list[list[float | None]] = [[None] * len(xs) for _ in ys]
        for row in own:
            grid[ys.index(row["y"])][xs.index(row["x"])] = row["value"]
        found[panel] = (xs, ys, grid)
    return found


def draw(rows: Sequence[Row]) -> Any:
    """Of each panel the surface, and under it the map with its values written in. Axes are by rank of the
    parameter's values, so that 0.01, 0.05, 0.1 are equally far apart."""
    import numpy as np
    from matplotlib.figure import Figure

    grids = _grids(rows)
    across = min(ACROSS, len(grids))
    down = 2 * math.ceil(len(grids) / across)
    figure = Figure(figsize=(style.WIDTH, 1.8 * down))
    for index, (panel, (xs, ys, grid)) in enumerate(grids.items()):
        values, place = np.array(grid, dtype=float), 2 * across * (index // across) + index % across + 1
        ticks = {"xticks": range(len(xs)), "yticks": range(len(ys)), "xticklabels": xs, "yticklabels": ys}
        solid = figure.add_subplot(down, across, place, projection="3d")
        if len(xs) > 1 and len(ys) > 1:
            along, up = np.meshgrid(range(len(xs)), range(len(ys)))
            solid.plot_surface(along, up, values, cmap=MAP, edgecolor="white", linewidth=0.3)
        solid.set(**ticks, title=panel)
        solid.tick_params(labelsize=6, pad=-3)
        solid.locator_params(axis="z", nbins=4)
        solid.set_box_aspect(None, zoom=1.15)
        flat = figure.add_subplot(down, across, place + across)
        flat.imshow(values, cmap=MAP, origin="lower", aspect="auto")
        flat.set(**ticks, xlabel=rows[0]["x_name"], ylabel=rows[0]["y_name"])
        flat.grid(visible=False)
        _written(flat, values)
    return figure


def _written(axis: Any, values: Any) -> None:
    import numpy as np

    middle = (np.nanmin(values) + np.nanmax(values)) / 2
    for (y, x), value in np.ndenumerate(values):
        if not np.isnan(value):
            shade = "black" if value > middle else "white"
            axis.text(x, y, f"{value:.4g}", ha="center", va="center", color=shade, fontsize=7)


def interactive(rows: Sequence[Row]) -> dict[str, Any]:
    """A surface that can be turned and a heat map; a menu chooses the panel."""
    grids, data, owners = _grids(rows), [], []
    for panel, (xs, ys, grid) in grids.items():
        shared = {"x": list(map(str, xs)), "y": list(map(str, ys)), "z": grid, "colorscale": "Cividis",
                  "showscale": False, "name": panel, "visible": panel == next(iter(grids))}  # fmt: skip
        data += [{"type": "surface", "scene": "scene", **shared}, {"type": "heatmap", **shared}]
        owners += [panel, panel]
    axes = {"xaxis": {"title": {"text": rows[0]["x_name"]}}, "yaxis": {"title": {"text": rows[0]["y_name"]}}}
    buttons = [{"label": name, "method": "update", "args": [{"visible": [o == name for o in owners]}]}
               for name in grids]  # fmt: skip
    return style.plotly(
        data,
        f"{rows[0]['x_name']} and {rows[0]['y_name']}",
        scene={**axes, "domain": {"x": [0, 0.48]}},
        xaxis={**axes["xaxis"], "domain": [0.56, 1]},
        yaxis=axes["yaxis"],
        updatemenus=[{"buttons": buttons, "x": 1, "xanchor": "right", "y": 1.15}],
    )
