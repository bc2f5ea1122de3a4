"""What each merge took: seconds, and peak memory of the process that merged (the paper's tables 20, 21)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.board import Board
from harness.figures import Row, palette, style

PARTS = {
    "own_seconds": ("the method's arithmetic", 1.0),
    "shared_seconds": ("its part of the passes", 0.45),
    "merge_seconds": ("the merge alone", 1.0),
    "statistics_seconds": ("its gradient statistics", 0.45),
}
TIME, MEMORY = "Time (s)", "Peak memory (GiB)"


def rows(board: Board) -> list[Row]:
    """One row for each merge that was timed. Merges of one run share the passes over the inputs:
    `shared_seconds` is the time of the passes over the number of merges in them, less the methods' own
    arithmetic (`own_seconds`, summed over threads). Memory is of the whole process."""
    found = []
    for row in board.rows:
        done = _done(Path(row.folder))
        if row.is_merge and done.get("seconds"):
            own, together = done.get("method_seconds") or 0.0, done.get("merged_together", 1)
            peak = max((done.get("peak_mib") or {}).values(), default=None)
            found.append({
                "row": row.label, "method": row.method, "own_seconds": own,
                "shared_seconds": max(0.0, sum(done["seconds"].values()) / together - own),
                "merged_together": together, "peak_gib": None if peak is None else peak / 1024,
            })  # fmt: skip
    return found


def _done(folder: Path) -> dict[str, Any]:
    path = folder / "done.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _parts(rows: Sequence[Row]) -> dict[str, tuple[str, float]]:
    """The seconds that these rows have: of merges that shared passes, or of ones made alone."""
    return {key: part for key, part in PARTS.items() if key in rows[0]}


def draw(rows: Sequence[Row]) -> Any:
    """Two bar charts side by side, rows in the table's order."""
    figure, (time, memory) = style.axes(1, 2, height=1.0 + 0.2 * len(rows))
    places, left = range(len(rows)), [0.0] * len(rows)
    shades = [palette.colour(r["method"]) for r in rows]
    for key, (title, alpha) in _parts(rows).items():
        values = [r[key] for r in rows]
        time.barh(places, values, left=left, color=shades, alpha=alpha, label=title)
        left = [a + b for a, b in zip(left, values, strict=True)]
    memory.barh(places, [r["peak_gib"] or 0 for r in rows], color=shades)
    for axis, title in ((time, TIME), (memory, MEMORY)):
        axis.set(xlabel=title, yticks=places, yticklabels=[r["row"] for r in rows])
        axis.grid(axis="y", visible=False)
        axis.invert_yaxis()
    memory.set_yticklabels([])
    figure.legend(*time.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def interactive(rows: Sequence[Row]) -> dict[str, Any]:
    """Seconds and memory as two groups of axes."""
    shades, names = [palette.colour(r["method"]) for r in rows], [r["row"] for r in rows]
    shared = {"type": "bar", "orientation": "h", "y": names}
    data = [
        {**shared, "name": title, "x": [r[key] for r in rows], "marker": {"color": shades, "opacity": alpha}}
        for key, (title, alpha) in _parts(rows).items()
    ]
    peaks = [r["peak_gib"] for r in rows]
    data.append({**shared, "name": MEMORY, "x": peaks, "xaxis": "x2", "marker": {"color": shades}})
    return style.plotly(
        data,
        "Cost of the merges",
        barmode="stack",
        xaxis={"domain": [0, 0.47], "title": {"text": TIME}},
        xaxis2={"domain": [0.53, 1], "title": {"text": MEMORY}},
        yaxis={"autorange": "reversed", "automargin": True},
    )
