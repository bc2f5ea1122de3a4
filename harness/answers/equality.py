"""Whether two mathematical answers are equal: numbers and words here, everything else by Math-Verify.

Math-Verify 0.9.0 (github.com/huggingface/Math-Verify) parses LaTeX with sympy, which hostile or unlucky input
can keep busy for ever or blow up in memory: it runs in a worker process with a limit per comparison.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from harness.answers import worker

LONGEST = 1000  # characters; no answer of these benchmarks is near it, and parsers are slow beyond it
DROPPED = re.compile(r"\\[!,;: ]|\\(?:left|right|displaystyle|limits)(?![a-zA-Z])|[$~\s]|\\(?=\$)")
UNITS = re.compile(
    r"(?:\\(?:text|mbox|mathrm|textrm|textbf)\s*\{[^{}]*\}|\^\{?\\circ\}?|°"
    r"|(?<=\d)\s+[A-Za-z]{2}[A-Za-z. /]*)+[.]?$"
)
WRAPPED = re.compile(r"\\(?:text|mbox|mathrm|textrm|textbf|textit|mathbf)\s*\{([^{}]*)\}")
DIGITS = re.compile(r"[+-]?(?:\d+|\d{1,3}(?:,\d{3})+)?(?:\.\d*)?")
BASED = re.compile(r"([0-9A-Za-z]+)_\{?(\d+)\}?")
SHORT_FRACTION = re.compile(r"\\[dt]?frac(?:(\d)(\d)|\{([^{}]*)\}(\d)|(\d)\{([^{}]*)\})")


@dataclass(frozen=True)
class PlainNumber:
    """An integer or decimal, and whether a percent sign followed it (`value` is what was written)."""

    value: Fraction
    percent: bool = False


def same_math(found: str | None, gold: str) -> bool:
    """Whether `found` equals `gold`; a comparison that hits its limit counts as different."""
    return same_math_or_timeout(found, gold) is True


def same_math_or_timeout(found: str | None, gold: str) -> bool | None:
    """As `same_math`, but None for a comparison that was stopped at its limit."""
    if found is None or not found.strip() or len(found) > LONGEST:
        return False
    decided = _decided(found, gold)
    return worker.compare(gold, found) if decided is None else decided


def comparison_timeouts() -> int:
    """How many comparisons of this process were stopped at their limit."""
    return worker.timeouts()


def plain_number(text: str) -> PlainNumber | None:
    """`25`, `025`, `$1,200.00`, `1{,}200`, `12\\%`, `5\\text{ cm}`, `90^\\circ`; None for anything else."""
    text = text.replace("−", "-").replace("{,}", ",").replace("\\!", "").strip().rstrip(".")
    text = UNITS.sub("", text)
    text = re.sub(r"[€£¥]|\\?\$", "", DROPPED.sub("", text))
    percent = text.endswith("%")
    text = text.rstrip("%").rstrip("\\")
    if not DIGITS.fullmatch(text) or not re.search(r"\d", text):
        return None
    return PlainNumber(Fraction(text.replace(",", "").removesuffix(".")), percent)


def _decided(found: str, gold: str) -> bool | None:
    """The verdict where it needs no algebra, else None."""
    one, other = plain_number(found), plain_number(gold)
    if one and other:
        if one.percent != other.percent:
            share = (one if one.percent else other).value / 100
            return one.value == other.value or share == (other if one.percent else one).value
        return one.value == other.value
    if _compact(found) == _compact(gold):
        return True
    words = _words(gold)
    if words is not None:
        return _plain(found) == words
    base = BASED.fullmatch(_compact(gold))
    if base:
        given = BASED.fullmatch(_compact(found))
        return bool(given) and given.groups() == base.groups() or _compact(found) == base[1]
    return None


def _compact(text: str) -> str:
    """LaTeX without what does not change its meaning."""
    text = text.strip().rstrip(".").replace("−", "-").replace("\\!", "").replace("{,}", ",")
    text = SHORT_FRACTION.sub(_long_fraction, text)
    text = re.sub(r"\\[dt]frac(?![a-zA-Z])", r"\\frac", DROPPED.sub("", text))
    text = re.sub(r"\^\{?\\circ\}?", "", text)
    return re.sub(r"([_^])\{(\w)\}", r"\1\2", text)


def _long_fraction(found: re.Match) -> str:
    over, under = (group for group in found.groups() if group is not None)
    return rf"\frac{{{over}}}{{{under}}}"


def _words(gold: str) -> str | None:
    """The words of a gold answer that is a word and no expression, as `_plain` gives them; else None."""
    bare = gold.strip().strip("$")
    wrapped = WRAPPED.fullmatch(bare)
    if wrapped and not re.search(r"\d", wrapped[1]):
        return _plain(bare)
    return _plain(bare) if re.fullmatch(r"[A-Za-z]{4,}", bare) else None


def _plain(text: str) -> str:
    text = WRAPPED.sub(r"\1", text.replace("$", "").replace("\\ ", " "))
    return " ".join(re.sub(r"[^\w\s]", " ", text).casefold().split())
