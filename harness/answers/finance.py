"""Amounts in financial answers: signs, brackets, currencies, thousands, percent, scale words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from harness.answers import statements

WRAPPED = re.compile(r"\\(?:text|mbox|mathrm|textrm|textbf|mathbf)\s*\{([^{}]*)\}")
NOISE = re.compile(r"[*`~]|\\[!,;: ]|\\(?:left|right|approx)(?![a-zA-Z])|\\(?=[%$])")
CURRENCY = r"(?:(?:US|HK|CA?|A|AU)?[$€£¥]|(?:USD|EUR|GBP|RMB|CNY)\s)"
AMOUNT = re.compile(
    r"(?<![\w.])(?P<open>\(\s*)?"
    rf"(?:(?<![\w)])(?P<minus>[-−–]|\b(?:negative|minus)\b)\s?)?{CURRENCY}?\s?(?P<inner>[-−])?\s?"
    r"(?P<digits>\d{1,3}(?:,\d{3})+(?![\d])(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?![A-Za-z]?\d)"
    r"(?:\s*(?:\\times|×)\s*10\^\{?(?P<power>-?\d+)\}?)?"
    r"\s?(?P<inside>%|percent\b|per\s+cent\b)?(?P<close>\s*\))?\s?(?P<outside>%|percent\b|per\s+cent\b)?"
    r"(?:[\s-]?(?P<word>thousand|million|billion|trillion)(?![A-Za-z])|\s?(?P<short>bn|mn|[kmb])(?![A-Za-z]))?",
    re.IGNORECASE,
)
SCALES = {"thousand": 3, "k": 3, "million": 6, "mn": 6, "m": 6, "billion": 9, "bn": 9, "b": 9, "trillion": 12}
EXECUTED = Fraction(1, 200_000)  # half a unit of the fifth decimal: gold answers are rounded to five


@dataclass(frozen=True)
class Amount:
    """A number as written: `value` without its percent sign and scale word, `decimals` and `digits` as shown.

    `scale` is a power of ten ("million": 6); `digits` counts the significant digits.
    """

    value: Fraction
    percent: bool = False
    scale: int = 0
    decimals: int = 0
    digits: int = 1


def amounts(text: str) -> list[Amount]:
    """Every amount in `text`, in order."""
    return [_amount(found) for found in AMOUNT.finditer(_clean(text))]


def first_amount(text: str) -> Amount | None:
    """The first number of `text`: the rule of the paper's released script."""
    found = AMOUNT.search(_clean(text))
    return _amount(found) if found else None


def amount(text: str) -> Amount | None:
    """The amount that `text` gives as its final answer, None when it gives none.

    The last `\\boxed{}`, the last "the answer is ...", the last bold amount, or the only amount of the last
    line; where an equation stands there, what follows its last `=`.
    """
    for said in (statements.boxes(text)[-1:], statements.stated(text)[-1:]):
        found = first_amount(_result(statements.first_sentence(said[0]))) if said else None
        if found:
            return found
    strong = [found for found in map(_only, statements.bold(text)) if found]
    closing = statements.lines(text)
    return strong[-1] if strong else _only(closing[-1]) if closing else None


def same_amount(found: Amount | None, gold: Amount | float | str, tolerance: float = 0.0) -> bool:
    """Whether `found` is `gold`, or `gold` rounded to the decimals that `found` shows (from two digits on).

    `3.2%` is 0.032, or 3.2 where the gold answer is in percent; `1.2 million` is 1.2 or 1 200 000, or 1 200
    where the gold answer is in thousands. `tolerance` is relative and comes on top. `gold` as text is read by
    `first_amount`.
    """
    if isinstance(gold, str):
        gold = first_amount(gold)
    if found is None or gold is None:
        return False
    targets = _readings(gold)[:1] if isinstance(gold, Amount) else [(Fraction(str(gold)), Fraction(0))]
    target = targets[0][0]
    for value, half_unit in _readings(found):
        rounding = half_unit if found.digits > 1 else Fraction(0)
        if abs(value - target) <= max(rounding, EXECUTED, Fraction(tolerance) * abs(target)):
            return True
    return False


def _readings(found: Amount) -> list[tuple[Fraction, Fraction]]:
    """What an amount can stand for, with half a unit of its last digit; the likeliest first."""
    powers = [0]
    if found.percent:
        powers = [-2, 0]
    elif found.scale:
        powers = [found.scale - unit for unit in (0, 3, 6, 9, 12) if unit <= found.scale]
    half = Fraction(1, 2) / 10**found.decimals
    return [(found.value * Fraction(10) ** power, half * Fraction(10) ** power) for power in powers]


def _amount(found: re.Match) -> Amount:
    digits = found["digits"].replace(",", "")
    scale = (found["word"] or found["short"] or "").lower()
    power = int(found["power"] or 0) if len(found["power"] or "") < 4 else 0
    bracketed = bool(found["open"] and found["close"])
    negative = bracketed or bool(found["minus"]) or bool(found["inner"])
    return Amount(
        value=Fraction(digits) * Fraction(10) ** power * (-1 if negative else 1),
        percent=bool(found["inside"] or found["outside"]),
        scale=SCALES.get(scale, 0),
        decimals=len(digits.partition(".")[2]) - power,
        digits=len(digits.replace(".", "").lstrip("0")) or 1,
    )


def _only(line: str) -> Amount | None:
    found = amounts(_result(line))
    return found[0] if len({(item.value, item.percent, item.scale) for item in found}) == 1 else None


def _result(equation: str) -> str:
    return re.split(r"[=≈]|\\approx", equation)[-1]


def _clean(text: str) -> str:
    return NOISE.sub("", WRAPPED.sub(r" \1", text.replace("{,}", ",")))
