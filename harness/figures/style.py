"""How figures look, and files that are equal for equal contents. Imports matplotlib when used."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.store import whole

WIDTH = 5.5  # inches: the text of most conference templates
RC = {
    "figure.constrained_layout.use": True,
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "pdf.fonttype": 42,  # TrueType: what publishers accept
    "svg.fonttype": "path",
    "svg.hashsalt": "harness",
    "savefig.dpi": 200,
}


@contextlib.contextmanager
def used() -> Iterator[None]:
    """Draw in this style, with no screen."""
    import matplotlib

    matplotlib.use("Agg")
    with matplotlib.rc_context(RC):
        yield


def axes(rows: int = 1, columns: int = 1, *, height: float = 2.6, width: float = WIDTH) -> tuple[Any, list]:
    """A figure and its axes, row by row; sizes in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def save(figure: Any, path: Path) -> None:
    """Write without dates, so that the same figure is the same file."""
    kind = path.suffix[1:]
    dateless = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}[kind]
    with whole(path) as part:
        figure.savefig(part, format=kind, metadata=dateless)


def plotly(data: list[dict[str, Any]], title: str, **layout: Any) -> dict[str, Any]:
    """A plotly figure as plain data."""
    shape = {"title": {"text": title}, "margin": {"l": 60, "r": 20, "t": 50, "b": 50}}
    return {"data": data, "layout": {**shape, "legend": {"orientation": "h", "y": -0.25}, **layout}}
