"""Figures of a table and of studies: drawn for papers (PDF, SVG), for the page (plotly), and as CSV.

Every figure is a module with `draw(rows) -> matplotlib Figure` and `interactive(rows) -> plotly figure`, both
over plain rows; `scatter`, `cost` and `masks` also have `rows(board)`. Light: matplotlib is imported when
something is drawn, and plotly figures are plain data.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from harness.store import whole, write_text

Row = dict[str, Any]


def write(figure: ModuleType, name: str, rows: Sequence[Row], folder: Path) -> list[Path]:
    """Draw `rows` into `folder` as `name`.{pdf,svg,json,csv}; [] where there are none, and then an earlier
    drawing of that name goes."""
    from harness.figures import style

    paths = [folder / f"{name}.{suffix}" for suffix in ("pdf", "svg", "json", "csv")]
    if not rows:
        for path in paths:
            path.unlink(missing_ok=True)
        return []
    folder.mkdir(parents=True, exist_ok=True)
    with style.used():
        drawn = figure.draw(rows)
        drawn.draw_without_rendering()
        drawn.set_layout_engine("none")  # laid out now, once for both files
        for path in paths[:2]:
            style.save(drawn, path)
    plain = json.dumps(figure.interactive(rows), ensure_ascii=False, allow_nan=False)
    write_text(paths[2], plain + "\n")
    with whole(paths[3]) as part, part.open("w", newline="", encoding="utf-8") as file:
        out = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)), restval="")
        out.writeheader()
        out.writerows(rows)
    return paths
