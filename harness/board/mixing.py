"""The cells of a column must be measured alike, but for what the family declares."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from harness.board.model import BoardRow, Cell, Heading
from harness.errors import HarnessError

SHOWN = 3  # cells named in the error


TEMPLATE, DECODING = "chat template", "decoding"  # keys of `Cell.settings`
DECLARED = "declared"  # who lacks a template is asked in plain text, as `chat_template: auto` says


def check(headings: Sequence[Heading], rows: Sequence[BoardRow], allow: bool = False) -> list[str]:
    """The sentences of `Board.mixed`, to which the cells' `footnotes` are set; [] where all are alike.

    Raises HarnessError for cells whose profile, chat template, engine, dtype, limit, split, repeats, judge or
    task definition is not that of their column, unless `allow` lets them be. The family declares that a model
    is asked through its own chat template and decoded by its role: templates may not differ among the merges,
    and an imported row has the template and the decoding of some row here. What an imported row's file does
    not tell is a footnote of its own, and no reason to refuse."""
    said: list[str] = []
    refused: list[str] = []
    theirs: dict[str, None] = {}
    for heading in headings:
        cells = [(row, cell) for row in rows if (cell := row.cell(heading)) is not None]
        column = _Column(cells)
        for row, cell in cells:
            cell.footnotes = []
            if odd := column.odd(row, cell):
                refused.append(f"`{row.label}` in {heading.title} ({', '.join(odd)})")
                if row.imported:
                    theirs[row.label] = None
                _note(cell, ", ".join(odd), said)
            if cell.imported and (told := column.unknown(cell)):
                _note(cell, f"imported; {told}", said)
    if refused and not allow:
        more = f" and {len(refused) - SHOWN} more" * (len(refused) > SHOWN)
        raise HarnessError(
            f"cells were not measured alike: {'; '.join(refused[:SHOWN])}{more}",
            "measure them alike; or --allow-mixed shows them with footnotes"
            + f"; or `harness clean --rows '{','.join(theirs)}'` deletes what was imported" * bool(theirs),
        )
    return said


class _Column:
    """What the cells of a column have in common, and what of it each does not share."""

    def __init__(self, cells: Sequence[tuple[BoardRow, Cell]]) -> None:
        own = [(row, cell) for row, cell in cells if not cell.imported] or list(cells)
        self.own = [cell.settings for _, cell in own]
        keys = dict.fromkeys(key for settings in self.own for key in settings)
        self.common = {key: _most(settings[key] for settings in self.own if key in settings) for key in keys}
        merges = [cell.settings[TEMPLATE] for row, cell in own if row.is_merge and TEMPLATE in cell.settings]
        if merges:
            self.common[TEMPLATE] = _most(merges)

    def odd(self, row: BoardRow, cell: Cell) -> list[str]:
        return [
            f"{key} {_spelled(cell.settings[key])} instead of {_spelled(wanted)}"
            for key, wanted in self.common.items()
            if key in cell.settings and not self._alike(key, row, cell.settings[key], wanted)
        ]

    def _alike(self, key: str, row: BoardRow, given: Any, wanted: Any) -> bool:
        if given == wanted or (key == DECODING and not row.imported):
            return True
        if row.imported and key in (TEMPLATE, DECODING) and any(own.get(key) == given for own in self.own):
            return True
        if key != TEMPLATE or DECLARED in (given, wanted):
            return key == TEMPLATE
        untold = given is True or wanted is True  # through one, and not told through which
        return bool(given and wanted) and (untold or not (row.is_merge or row.imported))

    def unknown(self, cell: Cell) -> str:
        """What is not known of an imported cell; its decoding, where rows here differ in theirs."""
        told = [key for key in self.common if key not in cell.settings]
        ways = {json.dumps(own.get(DECODING), sort_keys=True, default=str) for own in self.own}
        found = [f"its file does not tell: {', '.join(told)}"] if told else []
        if DECODING in cell.settings and len(ways) > 1:
            found.append(f"decoded with {_spelled(cell.settings[DECODING])}")
        return "; ".join(found)


def _most(values: Iterable[Any]) -> Any:
    """The most frequent value, the first of several."""
    listed = list(values)
    texts = [json.dumps(value, sort_keys=True, default=str) for value in listed]
    return listed[texts.index(Counter(texts).most_common(1)[0][0])]


def _note(cell: Cell, sentence: str, said: list[str]) -> None:
    if sentence not in said:
        said.append(sentence)
    cell.footnotes.append(said.index(sentence))


def _spelled(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_spelled(part)}" for key, part in sorted(value.items())) or "defaults"
    text = str(value)
    return text[:8] if len(text) == 64 else text
