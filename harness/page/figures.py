"""The report's figures as the page has them: drawings, and what plotly needs to draw them anew."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

from harness.page.pack import Blocks


def add(folder: Path, blocks: Blocks) -> tuple[list[dict[str, Any]], str | None]:
    """Pack the `*.svg` and `*.json` of `folder` as blocks `figure-N`: (their list, plotly's source when one
    can be drawn). A figure of which there is but one of the two is shown as that one."""
    found: list[dict[str, Any]] = []
    library = _plotly()
    for stem in sorted({path.stem for path in folder.glob("*") if path.suffix in (".svg", ".json")}):
        svg, spec = folder / f"{stem}.svg", _spec(folder / f"{stem}.json") if library else None
        drawing = svg.read_text(encoding="utf-8", errors="replace") if svg.is_file() else None
        if drawing is None and spec is None:
            continue
        name = f"figure-{len(found)}"
        blocks.add(name, {"svg": drawing, "spec": spec})
        found.append({"block": name, "name": stem, "interactive": spec is not None})
    interactive = any(figure["interactive"] for figure in found)
    return found, library.read_text(encoding="utf-8") if interactive else None


def _plotly() -> Path | None:
    """plotly.js as its Python package brings it; None where that is not installed."""
    spec = importlib.util.find_spec("plotly")
    path = Path(spec.origin).parent / "package_data" / "plotly.min.js" if spec and spec.origin else None
    return path if path and path.is_file() else None


def _spec(path: Path) -> Any:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and "data" in found else None
