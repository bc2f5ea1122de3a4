"""The cells of a column must be measured alike, but for what the family declares."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from harness.board.model import BoardRow, Cell, Heading
from harness.errors import HarnessError

SHOWN = 3  # cells named in the error


def check(headings: Sequence[Heading], rows: Sequence[BoardRow], allow: bool = False) -> list[str]:
    """The sentences of `Board.mixed`, to which the cells' `footnotes` are set; [] where all are alike.

    Raises HarnessError for cells whose profile, chat template, engine, dtype, limit, split, repeats, judge or
    task definition is not that of their column, unless `allow` lets them be. What an imported row's file does
    not tell is a footnote of its own, and no reason to refuse."""
    said: list[str] = []
    refused: list[str] = []
    theirs: dict[str, None] = {}
    for heading in headings:
        cells = [(row, cell) for row in rows if (cell := row.cell(heading)) is not None]
        common = _common([cell for _, cell in cells])
        for _, cell in cells:
            cell.footnotes = []
        for row, cell in cells:
            odd = [
                f"{key} {_spelled(cell.settings[key])} instead of {_spelled(common[key])}"
                for key in common
                if key in cell.settings and cell.settings[key] != common[key]
            ]
            if odd:
                refused.append(f"`{row.label}` in {heading.title} ({', '.join(odd)})")
                if row.imported:
                    theirs[row.label] = None
                _note(cell, ", ".join(odd), said)
            unknown = [key for key in common if key not in cell.settings]
            if cell.imported:
                told = ", ".join([*unknown, "decoding by role"])
                _note(cell, f"imported; its file does not tell: {told}", said)
    if refused and not allow:
        more = f" and {len(refused) - SHOWN} more" * (len(refused) > SHOWN)
        raise HarnessError(
            f"cells were not measured alike: {'; '.join(refused[:SHOWN])}{more}",
            "measure them alike; or --allow-mixed shows them with footnotes"
            + f"; or `harness clean --rows '{','.join(theirs)}'` deletes what was imported" * bool(theirs),
        )
    return said


def _note(cell: Cell, sentence: str, said: list[str]) -> None:
    if sentence not in said:
        said.append(sentence)
    cell.footnotes.append(said.index(sentence))


def _common(cells: Sequence[Cell]) -> dict[str, Any]:
    """What most of the cells that were measured here have; of imported ones alone, what most of them have."""
    own = [cell.settings for cell in cells if not cell.imported] or [cell.settings for cell in cells]
    if not own:
        return {}
    (text, _), *_ = Counter(json.dumps(s, sort_keys=True, default=str) for s in own).most_common(1)
    return next(s for s in own if json.dumps(s, sort_keys=True, default=str) == text)


def _spelled(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    text = str(value)
    return text[:8] if len(text) == 64 else text
