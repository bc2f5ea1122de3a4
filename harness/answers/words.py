"""Answers that are one of a few words, and answers that must name things."""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.answers import statements

ENDS = r"(?=\s*(?:[.,:;!?)\]}*\"'—–]|-\s|$|\n)|\s+(?:because|since|as|given|based)\b)"


def one_of(text: str, words: Sequence[str] = ("yes", "no", "maybe")) -> str | None:
    """Which of `words` the response gives as its answer; None when it gives none.

    The last `\\boxed{}`, the last "the answer is yes", a word in bold, a last line that is one of the words,
    or a first line that begins with one ("No, ..."; "No evidence ..." is no answer).
    """
    start = re.compile(
        rf"\W*(?:text|textbf|mathrm)?\W*({'|'.join(map(re.escape, words))}){ENDS}", re.IGNORECASE
    )
    closing = statements.lines(text)
    places = [
        *reversed(statements.boxes(text)[-1:]),
        *reversed(statements.stated(text)),
        *reversed([part for part in statements.bold(text) if len(part.split()) == 1]),
        *(line for line in closing[-1:] if len(line.split()) == 1),
        *closing[:1],
    ]
    for place in places:
        found = start.match(place)
        if found:
            return next(word for word in words if word.casefold() == found[1].casefold())
    return None


def yes_no(text: str) -> str | None:
    """`yes` or `no` as the response's answer; None when it gives neither."""
    return one_of(text, ("yes", "no"))


def keyword_recall(text: str, keywords: str | Sequence[str], separator: str = "、") -> float:
    """The share of `keywords` (a sequence, or text split at `separator`) that `text` contains as written.

    opencompass counts an answer as right when all occur, that is at 1.0.
    """
    wanted = keywords.split(separator) if isinstance(keywords, str) else list(keywords)
    wanted = [keyword.strip() for keyword in wanted if keyword.strip()]
    if not wanted:
        raise ValueError("no keyword to look for")
    return sum(keyword in text for keyword in wanted) / len(wanted)
