"""A table as LaTeX's tabular, with booktabs: groups over their columns, reference rows first."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from harness.typeset.escape import latex
from harness.typeset.grid import Column, Entry, Grid, Line, spans

LONG, TITLE = 34, 16  # letters from which a label, a title is set in several lines
SIGNS = {"°": r"$\circ$", "†": r"\dag{}", "‡": r"\ddag{}", "§": r"\S{}", "*": "{*}"}


def _number(text: str) -> str:
    """A value with a minus sign and powers of ten as they are printed."""
    text = re.sub(r"^inf$", "∞", text)
    whole = re.fullmatch(r"(-?)([\d.]+)(?:e\+?(-?)0*(\d+))?", text)
    if whole is None:
        return latex(text)
    minus, digits, sign, power = whole.groups()
    return (r"$-$" if minus else "") + digits + (rf"$\cdot10^{{{sign or ''}{power}}}$" if power else "")


def tabular(table: Grid) -> Iterator[str]:
    r"""The lines of a `tabular`. Signs behind a value are in `\signs`, error and interval in `\spread`."""
    columns, tails = table.columns, []
    for index in range(len(columns)):
        tails.append(max((len(line.entries[index].tail) for line in table.lines), default=0))
    yield r"\begin{tabular}{@{}l" + "".join(map(_alignment, tails)) + "@{}}"
    yield r"\toprule"
    found, rules, at = spans(columns), [], 2
    for _, count in found:
        rules.append(rf"\cmidrule(lr){{{at}-{at + count - 1}}}")
        at += count
    yield _row("", [rf"\multicolumn{{{count}}}{{c}}{{{latex(group)}}}" for group, count in found])
    yield "".join(rules)
    yield _row("", [_title(column) for column in columns])
    yield r"\midrule"
    reference = True
    for line in table.lines:
        if reference and not line.reference and line is not table.lines[0]:
            yield r"\midrule"
        reference = line.reference
        yield _row(_label(line), map(_cell, line.entries))
    for index, (name, texts) in enumerate(table.counts()):
        if index == 0:
            yield r"\midrule"
        yield _row(rf"\textit{{{latex(name)}}}", map(latex, texts))
    yield r"\bottomrule" + "\n" + r"\end{tabular}"


def _alignment(tail: int) -> str:
    """A column of numbers; marks behind them take no room of their own, so it is kept free here."""
    return "r" if tail < 2 else rf"r@{{\hspace{{{1.2 + 0.35 * tail:.2f}em}}}}"


def _row(label: str, cells: Iterable[str]) -> str:
    return " & ".join([label, *cells]) + r" \\"


def _boxed(text: str, long: int, width: str, place: str, side: str) -> str:
    if len(text) <= long:
        return latex(text)
    return rf"\parbox[{place}]{{{width}}}{{{side}\strut {latex(text, breaks=True)}\strut}}"


def _title(column: Column) -> str:
    arrow = r"$\uparrow$" if column.higher_is_better else r"$\downarrow$"
    return _boxed(column.title, TITLE, "6em", "b", r"\raggedleft") + "~" + arrow


def _label(line: Line) -> str:
    if line.aside:
        return r"\quad{\footnotesize paper}"
    return _boxed(line.label, LONG, "15em", "t", r"\raggedright") + _signs(line.signs)


def _signs(text: str) -> str:
    made = signs(text.replace("[", "").replace("]", ""))
    return rf"\signs{{{made}}}" if made else ""


def signs(text: str) -> str:
    """Marks as LaTeX, in text."""
    return "".join(SIGNS.get(sign) or latex(sign) for sign in text)


def _cell(entry: Entry) -> str:
    text = _number(entry.text)
    if entry.best or entry.second or entry.collapsed:
        command = "textbf" if entry.best else "underline" if entry.second else "textit"
        text = rf"\{command}{{{text}}}"
    if entry.spread or entry.interval:
        interval = ", ".join(map(_number, entry.interval.split(", ")))
        text += rf"\spread{{{_number(entry.spread)}}}{{{interval}}}"
    return text + _signs(entry.tail)
