"""The final answer of a mathematics response, as text; equality is in `equality.py`."""

from __future__ import annotations

import re

from harness.answers import statements

HASHES = re.compile(r"^[ \t]*####[ \t]*(\S.*)$", re.MULTILINE)
NUMBER = re.compile(r"[-−]?\s?\\?[$€£¥]?\s?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:\s?/\s?\d+)?(?:\s?\\?%)?")
PROSE = re.compile(r"(?<!\\)\b(?!(?:sqrt|pi|infty|inf|sin|cos|tan|log|ln)\b)[A-Za-z]{2,}")


def boxed(text: str) -> str | None:
    """The content of the last closed `\\boxed{...}`; None without one."""
    found = statements.boxes(text)
    return found[-1] if found else None


def math_answer(text: str) -> str | None:
    """The final answer that `text` states, as LaTeX or plain text; None when it states none.

    In order of trust: the last `\\boxed{}` (values boxed side by side are joined), the last `#### 7`, the
    last "the answer is ...", the last bold value, the only value of the last line (after its last `=`).
    """
    listed = statements.last_boxes(text)
    if listed:
        return ", ".join(listed)
    hashes = HASHES.findall(text)
    if hashes:
        return hashes[-1].strip().rstrip(".")
    said = statements.stated(text)
    if said:
        return _value(said[-1])
    strong = [value for value in map(_only, statements.bold(text)) if value]
    if strong:
        return strong[-1]
    closing = statements.lines(text)
    return _only(closing[-1]) if closing else None


def _value(said: str) -> str | None:
    """The value at the beginning of what followed "the answer is"."""
    formula = statements.FORMULA.match(said.lstrip("*_ "))
    if formula:
        return next(group for group in formula.groups() if group is not None).strip()
    sentence = _bare(statements.first_sentence(said))
    inside = statements.formulas(sentence)
    if inside:
        return inside[0]
    if "\\" in sentence or not PROSE.search(sentence):
        return sentence or None
    number = NUMBER.search(sentence)
    return _bare(number[0]) if number else sentence


def _only(line: str) -> str | None:
    """The one value of a line, or of what follows its last `=`; None when there are several or none."""
    inside = statements.formulas(line)
    if inside:
        return inside[-1].rpartition("=")[2].strip() or None
    numbers = [_bare(found) for found in NUMBER.findall(line.rpartition("=")[2])]
    return numbers[0] if len(set(numbers)) == 1 else None


def _bare(text: str) -> str:
    return text.strip().strip("*_`").strip().rstrip(",.:;").strip()
