"""A table on a terminal: columns under the rules of their groups, split where it is too wide."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from harness.typeset.escape import visible
from harness.typeset.grid import Entry, Grid, Line, pack, spans

GAP, TITLE = 2, 14


class Printer:
    """One table on `console`. `spread`: with standard errors, where the values have them. Marks are bold,
    underlined and italic; on a terminal that has none of these, `**best**` and `_second_`."""

    def __init__(self, console: Console, table: Grid, spread: bool) -> None:
        self.console, self.table, self.spread = console, table, spread
        self.plain = console.color_system is None
        widest = max((cell_len(_label(line)) for line in table.lines), default=0)
        self.label = max(6, min(widest, max(16, console.width * 2 // 5)))
        self.titles = [self._wrapped(c.title, TITLE) for c in table.columns]
        for column, lines in zip(table.columns, self.titles, strict=True):
            lines[-1] += f" {column.arrow}"
        self.cores = [max(self._sizes(i, self._core, c.n, c.detectable)) for i, c in enumerate(table.columns)]
        self.tails = [max(self._sizes(i, lambda entry: entry.tail)) for i in range(len(table.columns))]
        self.blocks = pack(table, console.width - self.label, lambda i: self._width(i) + GAP)

    def _sizes(self, index: int, text: Callable[[Entry], str], *more: str) -> list[int]:
        return [0, *map(cell_len, more), *(cell_len(text(line.entries[index])) for line in self.table.lines)]

    def _wrapped(self, text: str, width: int) -> list[str]:
        return [line.plain.rstrip() for line in Text(visible(text)).wrap(self.console, width)] or [""]

    def _width(self, index: int) -> int:
        group = visible(self.table.columns[index].group)
        alone = sum(column.group == self.table.columns[index].group for column in self.table.columns) == 1
        title = max([*map(cell_len, self.titles[index]), alone * cell_len(group)])
        return max(title, self.cores[index] + self.tails[index])

    def _core(self, entry: Entry) -> str:
        text = entry.text + (f" ±{entry.spread}" if self.spread and entry.spread else "")
        around = ("**" if entry.best else "_" if entry.second else "") if self.plain else ""
        return around + text + around

    def show(self) -> None:
        for number, block in enumerate(self.blocks):
            if number:
                self.console.print()
            self._head(block)
            for line in self.table.lines:
                if not line.aside or any(line.entries[i].text for i in block):
                    self._line(line, block)

    def _head(self, block: Sequence[int]) -> None:
        columns, groups, start = [self.table.columns[i] for i in block], Text(" " * self.label), 0
        for group, count in spans(columns):
            width = sum(self._width(i) + GAP for i in block[start : start + count]) - GAP
            name, start = Text(visible(group)), start + count
            name.truncate(width, overflow="ellipsis")
            free = width - name.cell_len
            rules = ("─" * (free // 2 - 1) + " ", " " + "─" * (free - free // 2 - 1))
            left, right = rules if free >= 4 else (" " * free, "")
            groups.append(" " * GAP + left).append(name).append(right)
        self._print(groups)
        height = max((len(self.titles[i]) for i in block), default=0)
        for at in range(height):
            text = Text(" " * self.label)
            for i in block:
                lines = [""] * (height - len(self.titles[i])) + self.titles[i]
                text.append(" " * GAP + self._right(lines[at], i), style="bold")
            self._print(text)
        for name, texts in self.table.counts(block):
            row = "".join(" " * GAP + self._right(text, i) for text, i in zip(texts, block, strict=True))
            self._print(Text(name.ljust(self.label) + row, style="dim"))

    def _right(self, text: str, index: int) -> str:
        """`text` flush with the values of its column, or as far left as its length asks for."""
        width = self._width(index)
        room = max(cell_len(text), width - self.tails[index])
        return " " * (room - cell_len(text)) + text + " " * (width - room)

    def _line(self, line: Line, block: Sequence[int]) -> None:
        parts = ["  paper"] if line.aside else self._wrapped(_label(line), self.label)
        dim = "dim" if line.reference or line.aside else ""
        text = Text(parts[0] + " " * (self.label - cell_len(parts[0])), style=dim)
        for i in block:
            entry, core = line.entries[i], self._core(line.entries[i])
            before = self._width(i) - self.tails[i] - cell_len(core)
            style = "bold" if entry.best else "underline" if entry.second else "italic" * entry.collapsed
            text.append(" " * (GAP + before)).append(core, style=style)
            text.append(entry.tail + " " * (self.tails[i] - cell_len(entry.tail)))
        self._print(text)
        for part in parts[1:]:
            self._print(Text(part, style=dim))

    def _print(self, text: Text) -> None:
        text.rstrip()
        self.console.print(text, soft_wrap=True)


def _label(line: Line) -> str:
    return visible(line.label) + (f" {line.signs}" if line.signs else "")
