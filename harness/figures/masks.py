"""Of which modules a method's masks consist, by role (from `masks.json`)."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.board import Board
from harness.figures import Row, palette, style

KINDS = {
    "embeddings": ("embed_tokens", "lm_head", "wte"),
    "attention": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "MLP": ("gate_proj", "up_proj", "down_proj"),
}
OTHER = "norms and other"


def rows(board: Board) -> list[Row]:
    """One row for each merge with masks, role and kind of module: the share of the role's selected elements
    that lie there, beside the share of all elements that do."""
    found: list[Row] = []
    for row in board.rows:
        path = Path(row.folder) / "masks.json"
        if row.is_merge and path.is_file():
            told = json.loads(path.read_text(encoding="utf-8"))
            found += shares(row.label, row.method, told) if told.get("masks") else []
    return found


def kind_of(module: str) -> str:
    """The kind that a module's last name belongs to."""
    return next((kind for kind, names in KINDS.items() if module in names), OTHER)


def shares(label: str, method: str | None, told: dict[str, Any]) -> list[Row]:
    """The rows of one merge, from its `masks.json`."""
    found = []
    for role in told["total"]["roles"]:
        selected: dict[str, int] = dict.fromkeys((*KINDS, OTHER), 0)
        elements = dict(selected)
        for module, figures in told["modules"].items():
            kind = kind_of(module)
            elements[kind] += figures["elements"]
            selected[kind] += figures["roles"][role]["selected"] if role in figures["roles"] else 0
        whole, all_ = sum(selected.values()), sum(elements.values())
        found += [
            {"row": label, "method": method, "role": role, "modules": kind,
             "share": selected[kind] / whole if whole else 0.0, "elements_share": elements[kind] / all_}
            for kind in elements
        ]  # fmt: skip
    return found


def _bars(rows: Sequence[Row]) -> dict[str, dict[str, list[float]]]:
    """role -> kind of module -> shares, over the labels in order; all elements last."""
    labels = list(dict.fromkeys(r["row"] for r in rows))
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        series = found.setdefault(row["role"], {}).setdefault(row["modules"], [0.0] * (len(labels) + 1))
        series[labels.index(row["row"])] = row["share"]
        series[-1] = row["elements_share"]
    return found


def _labels(rows: Sequence[Row]) -> list[str]:
    return [*dict.fromkeys(r["row"] for r in rows), "all elements"]


def draw(rows: Sequence[Row]) -> Any:
    """Stacked bars, one panel per role; the last bar is the model itself."""
    found, labels = _bars(rows), _labels(rows)
    down = math.ceil(len(found) / 2)
    figure, axes = style.axes(down, min(2, len(found)), height=down * (0.9 + 0.2 * len(labels)))
    for index, (axis, (role, series)) in enumerate(zip(axes, found.items(), strict=False)):
        left = [0.0] * len(labels)
        for shade, (kind, shares) in zip(palette.SERIES, series.items(), strict=False):
            axis.barh(labels, shares, left=left, color=shade, label=kind)
            left = [a + b for a, b in zip(left, shares, strict=True)]
        axis.set(title=f"selected of {role}", xlim=(0, 1), xlabel="share of selected elements")
        axis.grid(axis="y", visible=False)
        axis.invert_yaxis()
        if index % 2:
            axis.set_yticklabels([])
    for axis in axes[len(found) :]:
        axis.remove()
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4)
    return figure


def interactive(rows: Sequence[Row]) -> dict[str, Any]:
    """Stacked bars; a menu chooses the role."""
    found, labels = _bars(rows), _labels(rows)
    data, owners = [], []
    for role, series in found.items():
        for shade, (kind, shares) in zip(palette.SERIES, series.items(), strict=False):
            data.append({"type": "bar", "orientation": "h", "name": kind, "y": labels, "x": shares,
                         "visible": role == next(iter(found)), "marker": {"color": shade}})  # fmt: skip
            owners.append(role)
    buttons = [{"label": role, "method": "update", "args": [{"visible": [o == role for o in owners]}]}
               for role in found]  # fmt: skip
    return style.plotly(
        data,
        "Composition of the masks",
        barmode="stack",
        xaxis={"title": {"text": "share of selected elements"}, "range": [0, 1]},
        yaxis={"autorange": "reversed", "automargin": True},
        updatemenus=[{"buttons": buttons, "x": 1, "xanchor": "right", "y": 1.15}],
    )
