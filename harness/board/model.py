"""The table model: what a report renders. Pure data, and its JSON form; nothing here reads a store."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NOT_RUN = "–"
SIGNIFICANT = "°"  # differs from the baseline
IMPORTED = "‡"
SCHEMA = 2  # of `report/board.json`
FLOAT = "$float"


@dataclass(frozen=True)
class Heading:
    """A column: one metric of one task. `main` is False for a second metric of the same task, which is shown
    and counts in no average. `detectable`: smallest true difference from the baseline that this column's n
    would find significant at 5 %, before correction, four times in five (unscaled); None where it cannot be
    said."""

    task: str
    metric: str
    title: str
    group: str
    higher_is_better: bool
    kind: str
    main: bool = True
    detectable: float | None = None

    @property
    def key(self) -> str:
        return f"{self.task}/{self.metric}"

    @property
    def arrow(self) -> str:
        return "↑" if self.higher_is_better else "↓"

    def scaled(self, value: float) -> float:
        """Shares are shown in percent."""
        return value * 100 if self.kind == "accuracy" else value

    @property
    def digits(self) -> int:
        return 1 if self.kind == "accuracy" else 2

    def rounded(self, value: float) -> float:
        return round(self.scaled(value), self.digits)

    def text(self, value: float) -> str:
        """A value of this column as it is printed."""
        return number(self.scaled(value), self.digits)


@dataclass
class Test:
    """A cell against the baseline row's on the same items. `difference` is cell - baseline (unscaled) with
    its paired 95 % `interval`; `p` of one test named `test`; `p_holm` corrected over the whole table."""

    difference: float
    interval: list[float] | None
    p: float | None
    p_holm: float | None
    test: str
    n: int

    @property
    def significant(self) -> bool:
        return self.p_holm is not None and self.p_holm < 0.05


@dataclass
class Cell:
    """One value. `interval` is its 95 %; `rates` are shares of responses (unparsed and so on); `tokens` a
    response's mean length; `folder` where it was measured. `values` holds the single runs of a cell that is a
    mean over seeds, `folders` where each was measured, `sd` their standard deviation, and `sd_items` that
    which the draw of items alone gives a run; its `interval` then covers both. `kept` is this value over the
    best expert's of the column. `paper` is the number that the paper prints there (our scale), `paper_note`
    what contradicts it.
    `footnotes` are indices (from 0) into `Board.mixed`: in what this cell differs from its column."""

    value: float
    stderr: float | None
    n: int
    rates: dict[str, float] = field(default_factory=dict)
    folder: str = ""
    folders: list[str] = field(default_factory=list)
    interval: list[float] | None = None
    tokens: float | None = None
    best: bool = False
    second: bool = False
    test: Test | None = None
    values: list[float] = field(default_factory=list)
    sd: float | None = None
    sd_items: float | None = None
    kept: float | None = None
    paper: float | None = None
    paper_note: str = ""
    stale: bool = False
    imported: bool = False
    footnotes: list[int] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass
class Average:
    """A row's mean over the main columns of one group, direction and kind; `complete` is False (and the
    average not shown) where a cell is missing."""

    group: str
    higher_is_better: bool
    kind: str
    value: float | None
    complete: bool
    best: bool = False

    def over(self, h: Heading) -> bool:
        """Whether it is a mean over this column, and others."""
        own = (self.group, self.higher_is_better, self.kind)
        return h.main and (h.group, h.higher_is_better, h.kind) == own


@dataclass
class BoardRow:
    """One row. `collapsed` holds the reasons, and is empty for a row that works. `seconds` and `peak_mib` are
    of the making; `recipe` is what identifies the row; `command` makes it again."""

    label: str
    role: str
    method: str | None
    parameters: dict[str, Any]
    folder: str
    cells: dict[tuple[str, str], Cell]
    collapsed: list[str] = field(default_factory=list)
    stale: bool = False
    notes: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    peak_mib: float | None = None
    recipe: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    imported: bool = False
    averages: list[Average] = field(default_factory=list)

    @property
    def is_merge(self) -> bool:
        return self.role == "merge"

    def cell(self, heading: Heading) -> Cell | None:
        return self.cells.get((heading.task, heading.metric))


@dataclass
class Board:
    """The table of one family. `mixed` are the sentences that `Cell.footnotes` point to; `settings` what was
    declared (decoding by role, profile, chat template, engine, limits); `provenance` versions and revisions;
    `details` what the implementation-details paragraph needs."""

    family: str
    title: str
    headings: list[Heading]
    rows: list[BoardRow]
    footnotes: list[str]
    limit: int | None = None
    split: str = "test"
    baseline: str | None = None
    mixed: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    with_paper: bool = False

    @property
    def groups(self) -> list[str]:
        """Groups of columns, in order."""
        return list(dict.fromkeys(h.group for h in self.headings))

    def text(self, row: BoardRow, heading: Heading, *, error: bool = True) -> str:
        """The cell as text: value ± standard error (or sd over seeds), `*` for a collapsed row, – when not
        run."""
        cell = row.cell(heading)
        if cell is None:
            return NOT_RUN
        text, spread = heading.text(cell.value), cell.stderr if cell.sd is None else cell.sd
        if error and spread is not None and math.isfinite(spread):
            text += f" ±{heading.text(spread)}"
        return text + ("*" if row.collapsed else "")

    def label(self, row: BoardRow) -> str:
        return row.label + (" †" if row.stale else "")

    def n(self, heading: Heading) -> str:
        """Items behind a column; a range when rows differ."""
        counts = {c.n for r in self.rows if (c := r.cell(heading))}
        return NOT_RUN if not counts else "–".join(str(n) for n in sorted({min(counts), max(counts)}))

    def to_json(self) -> str:
        """The whole board; `from_json` reads it back."""
        plain = dataclasses.asdict(self)
        for row in plain["rows"]:
            row["cells"] = {f"{task}/{metric}": cell for (task, metric), cell in row["cells"].items()}
        told = _plain({"schema": SCHEMA, **plain})
        return json.dumps(told, indent=1, ensure_ascii=False, default=str, allow_nan=False) + "\n"


def number(value: float, digits: int) -> str:
    """Fixed digits; very large values (a broken model's perplexity) in scientific form."""
    return f"{value:.{digits}f}" if abs(value) < 1e5 else f"{value:.2e}"


def _plain(value: Any) -> Any:
    """JSON has no word for what is not finite: it becomes {"$float": "nan"}."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return {FLOAT: str(value)} if isinstance(value, float) and not math.isfinite(value) else value


def _restored(found: dict[str, Any]) -> Any:
    return float(found[FLOAT]) if set(found) == {FLOAT} else found


def read_board(path: Path) -> Board:
    """The board that a JSON report wrote; ValueError where it is none of ours."""
    found = json.loads(path.read_text(encoding="utf-8"), object_hook=_restored)
    if not isinstance(found, Mapping) or found.pop("schema", None) != SCHEMA:
        raise ValueError(f"{path} is no board of schema {SCHEMA}")
    headings = [Heading(**h) for h in found.pop("headings")]
    rows = [_row(row) for row in found.pop("rows")]
    return Board(headings=headings, rows=rows, **found)


def _row(found: dict[str, Any]) -> BoardRow:
    cells = {tuple(key.rsplit("/", 1)): _cell(cell) for key, cell in found.pop("cells").items()}
    averages = [Average(**a) for a in found.pop("averages")]
    return BoardRow(cells=cells, averages=averages, notes=tuple(found.pop("notes")), **found)


def _cell(found: dict[str, Any]) -> Cell:
    test = found.pop("test")
    return Cell(test=test and Test(**test), **found)
