"""What every printed table has in common: columns by group, lines of entries, the notes under it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from string import ascii_lowercase

from harness.board import NOT_RUN, Average, Board, BoardRow, Cell, Heading, number
from harness.board.model import IMPORTED, SIGNIFICANT

STALE, DOUBTED, LEAST = "†", "§", "Δ"


@dataclass(frozen=True)
class Column:
    """A column as printed: a heading's, or an average of a group in one direction over columns of one kind
    (`heading` is None). `detectable` is text as `n` is."""

    group: str
    title: str
    higher_is_better: bool
    heading: Heading | None = None
    n: str = ""
    detectable: str = ""
    digits: int = 1
    kind: str = ""

    @property
    def arrow(self) -> str:
        return "↑" if self.higher_is_better else "↓"


@dataclass(frozen=True)
class Entry:
    """What stands in one place of a table: a value, its standard error (over seeds: standard deviation), its
    95 % interval, all as text ("" where unknown), and its marks. `signs` stand behind it."""

    text: str = ""
    spread: str = ""
    interval: str = ""
    best: bool = False
    second: bool = False
    collapsed: bool = False
    signs: tuple[str, ...] = ()

    @property
    def tail(self) -> str:
        """The signs as text: `*⁺†[a]`."""
        letters = [sign for sign in self.signs if sign.isascii()]
        marks = "*" * self.collapsed + "".join(sign for sign in self.signs if sign not in letters)
        return marks + (f"[{','.join(letters)}]" if letters else "")


@dataclass(frozen=True)
class Line:
    """A row as printed. `reference`: no merge; `aside`: the paper's numbers of the row above."""

    label: str
    entries: tuple[Entry, ...]
    signs: str = ""
    reference: bool = False
    aside: bool = False


@dataclass(frozen=True)
class Grid:
    """A table as printed, whole."""

    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    title: str = ""

    def counts(self, block: Sequence[int] | None = None) -> list[tuple[str, list[str]]]:
        """The lines on the columns (those of `block`) themselves that say something: n, and the Δ that n
        would show."""
        columns = self.columns if block is None else [self.columns[i] for i in block]
        lines = [("n", [c.n for c in columns]), (LEAST, [c.detectable for c in columns])]
        return [line for line in lines if any(line[1])]


def grid(board: Board) -> Grid:
    """The table: reference rows, then the others, each with the paper's numbers below it if asked for."""
    columns, lines = _columns(board), []
    for row in sorted(board.rows, key=lambda row: row.is_merge):
        signs = STALE * row.stale + IMPORTED * row.imported
        entries = tuple(_entry(board, row, column) for column in columns)
        lines.append(Line(row.label, entries, signs, not row.is_merge))
        said = tuple(_paper(row, column) for column in columns)
        if board.with_paper and any(entry.text for entry in said):
            lines.append(Line("paper", said, "", not row.is_merge, aside=True))
    return Grid(columns, tuple(lines))


def kept(board: Board) -> Grid | None:
    """What each merge keeps of the best expert, in percent; None where no cell says."""
    merges = [row for row in board.rows if row.is_merge]
    shown = [h for h in board.headings if any((c := r.cell(h)) and c.kept is not None for r in merges)]
    if not shown:
        return None
    lines = []
    for row in merges:
        cells = [row.cell(heading) for heading in shown]
        if any(cell is not None and cell.kept is not None for cell in cells):
            lines.append(Line(row.label, tuple(_kept(row, cell) for cell in cells)))
    columns = tuple(Column(h.group, h.title, h.higher_is_better, h) for h in shown)
    return Grid(columns, tuple(lines), "Kept of the expert's value, %")


def pack(grid: Grid, room: int, width: Callable[[int], int] = lambda index: 1) -> list[list[int]]:
    """Columns (by index) that fit side by side: whole groups where they fit, in order; a block has one column
    at least. `width` is that of a column, `room` what a block has."""
    groups: dict[str, list[int]] = {}
    for index, column in enumerate(grid.columns):
        groups.setdefault(column.group, []).append(index)
    blocks: list[list[int]] = []
    for group in groups.values():
        if blocks and sum(map(width, blocks[-1] + group)) <= room:
            blocks[-1] += group
            continue
        blocks.append([])
        for index in group:
            if blocks[-1] and sum(map(width, [*blocks[-1], index])) > room:
                blocks.append([])
            blocks[-1].append(index)
    return blocks or [[]]


def spans(columns: Sequence[Column]) -> list[tuple[str, int]]:
    """Neighbouring columns of one group: (group, how many)."""
    found: list[tuple[str, int]] = []
    for column in columns:
        if found and found[-1][0] == column.group:
            found[-1] = (column.group, found[-1][1] + 1)
        else:
            found.append((column.group, 1))
    return found


def notes(board: Board) -> list[tuple[str, str]]:
    """What stands under the table: (mark, sentence), the mark "" for one of the whole table. The board's own
    footnotes, what further marks say, in what cells differ, where the paper contradicts itself."""
    said = [*(("", note) for note in board.footnotes), *_legend(board)]
    said += [(letter(i), text) for i, text in enumerate(board.mixed)]
    doubts: dict[str, list[str]] = {}
    for row, heading, cell in _cells(board) if board.with_paper else ():
        if cell.paper_note:
            doubts.setdefault(cell.paper_note, []).append(f"{row.label}, {heading.title}")
    return said + [(DOUBTED, f"{'; '.join(places)}: {note}") for note, places in doubts.items()]


def letter(index: int) -> str:
    """0 -> a, 25 -> z, 26 -> aa."""
    head, last = divmod(index, 26)
    return (letter(head - 1) if head else "") + ascii_lowercase[last]


def _columns(board: Board) -> tuple[Column, ...]:
    found = []
    for group in board.groups:
        own = [h for h in board.headings if h.group == group]
        for h in own:
            least = "" if h.detectable is None else h.text(h.detectable)
            found.append(Column(group, h.title, h.higher_is_better, h, board.n(h), least))
        for up in (True, False):
            kinds = [h.kind for h in own if h.main and h.higher_is_better == up]
            averaged = [kind for kind in dict.fromkeys(kinds) if kinds.count(kind) > 1]
            for kind in averaged:
                digits = next(h.digits for h in own if h.kind == kind)
                column = Column(group, "average", up, digits=digits, kind=kind)
                found += [column] * any(_average(row, column) for row in board.rows)
    return tuple(found)


def _average(row: BoardRow, column: Column) -> Average | None:
    """The row's average if it is one over all columns."""
    own = (column.group, column.higher_is_better, column.kind)
    told = [a for a in row.averages if (a.group, a.higher_is_better, a.kind) == own]
    return next((a for a in told if a.complete and a.value is not None), None)


def _entry(board: Board, row: BoardRow, column: Column) -> Entry:
    heading = column.heading
    if heading is None:
        average = _average(row, column)
        if average is None:
            return Entry(NOT_RUN)
        text = number(average.value or 0.0, column.digits)
        return Entry(text, best=average.best, collapsed=bool(row.collapsed))
    cell = row.cell(heading)
    if cell is None:
        return Entry(NOT_RUN)
    spread = cell.stderr if cell.sd is None else cell.sd
    ends = [heading.text(end) for end in cell.interval or ()]
    return Entry(
        heading.text(cell.value),
        heading.text(spread) if spread is not None and math.isfinite(spread) else "",
        ", ".join(ends),
        cell.best,
        cell.second,
        bool(row.collapsed),
        tuple(_signs(row, cell)),
    )


def _signs(row: BoardRow, cell: Cell) -> Iterable[str]:
    if cell.test is not None and cell.test.significant:
        yield SIGNIFICANT
    if cell.stale and not row.stale:
        yield STALE
    if cell.imported and not row.imported:
        yield IMPORTED
    yield from map(letter, cell.footnotes)


def _paper(row: BoardRow, column: Column) -> Entry:
    cell = row.cell(column.heading) if column.heading else None
    if cell is None or cell.paper is None or column.heading is None:
        return Entry()
    printed = number(column.heading.scaled(cell.paper), 2)
    difference = column.heading.text(cell.value - cell.paper)
    sign = "" if not float(difference) else "−" if difference.startswith("-") else "+"
    return Entry(f"{printed} ({sign}{difference.lstrip('-')})", signs=(DOUBTED,) * bool(cell.paper_note))


def _kept(row: BoardRow, cell: Cell | None) -> Entry:
    if cell is None or cell.kept is None:
        return Entry(NOT_RUN)
    return Entry(number(cell.kept * 100, 1), collapsed=bool(row.collapsed))


def _cells(board: Board) -> Iterable[tuple[BoardRow, Heading, Cell]]:
    for row in board.rows:
        for heading in board.headings:
            if (cell := row.cell(heading)) is not None:
                yield row, heading, cell


def _legend(board: Board) -> Iterable[tuple[str, str]]:
    if any(cell.sd is not None for _, _, cell in _cells(board)):
        yield "", "± is the standard deviation where a cell is a mean over seeds"
    if any(heading.detectable is not None for heading in board.headings):
        yield LEAST, f"smallest true difference from {board.baseline} that n items show four times in five"
    if board.with_paper:
        yield "", "paper: the number printed there (in brackets, ours less it)"
