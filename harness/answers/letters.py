"""The letter (or number) of the option that a response chooses, as chat models and base models write it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from harness.answers import statements

WRAPPED = re.compile(r"\\(?:text|mbox|mathrm|textrm|textbf|textit|mathbf)\s*\{([^{}]*)\}")
NOISE = re.compile(r"[*`$]|\\[!,;: ]|\\(?:left|right)(?![a-zA-Z])|\\(?=[%$&#{}()\[\]])")
NAMED = r"(?:(?:the\s+)?(?:correct\s+)?(?:option|choice|answer|letter|选项|选择|选)\s*)?"
CHOICE = re.compile(
    statements.ANSWER.pattern
    + rf"|\b(?:choice|option)\b{statements.VERB}"
    + r"|(?<!not )\b(?:choose|choosing|select|selecting|pick|go\s+with)\b\s*:?"
    + r"|(?<!不)(?<!要)(?:选择|选)(?![项自取用定出中])\s*:?",
    re.IGNORECASE | re.MULTILINE,
)
PRAISED = (
    r"\s+(?:is|would\s+be|seems|must\s+be)\s+(?:therefore\s+|clearly\s+)?(?:the\s+)?(?:only\s+|most\s+|single\s+)?"
    r"(?:correct|right|best|accurate|appropriate|likely)\b"
)
THEREFORE = r"(?:(?:therefore|thus|hence|so|因此|所以|故)[,:]?\s*)?"
AFTER_A = re.compile(
    r"\s+(?![a-z\s])|\s+(?:because|since|as|is|and|or|for|due|which|given|based|would|seems)\b"
)
JOINED = r"\s*[)\]]?\s*(?:,|/|&|、|\band\b|\bor\b|和|或)\s*(?:both\s+)?[(\[]?\s*"
CLOSING = set(")]}>\"'”’」】.,:;!?。，；：、/\n")
CHINESE_AFTER = set("选项因是更最正合对符为较而")


def letter(
    text: str, labels: Sequence[str] = "ABCD", options: Sequence[str] | None = None, *, last: bool = False
) -> str | None:
    """The label of the option that `text` chooses; None when it chooses none, or more than one.

    In order of trust: the last `\\boxed{}`; the last "the answer is B", "Answer: b", "答案：B" or "Option B
    is correct"; a last or first line that is a label ("B", "(B)", "B. text"); the only label in bold; the
    only label in brackets in the last paragraph. Where a label is expected, the text of exactly one of
    `options` (in the order of `labels`) stands for its label. `last=True` adds the last label that stands
    alone anywhere (`last_letter`).
    """
    reader = _Reader(tuple(labels), tuple(map(_normal, options)) if options else ())
    clean, strong = _clean(text), [_clean(part) for part in statements.bold(text)]
    rules = (reader.from_box, reader.from_statement, reader.from_lines)
    for found in (*(rule(clean) for rule in rules), reader.from_bold(strong), reader.from_brackets(clean)):
        if found is not None:
            return found or None
    return last_letter(text, labels) if last else None


def last_letter(text: str, labels: Sequence[str] = "ABCD") -> str | None:
    """The last label that stands alone: no part of a word, no article ("A patient"), no market ("A股")."""
    reader, text = _Reader(tuple(labels), ()), _clean(text)
    for found in reversed(list(_patterns(reader.labels).alone.finditer(text))):
        if reader.ends(found[1], text[found.end() :]):
            return found[1]
    return None


class _Patterns:
    def __init__(self, labels: tuple[str, ...]) -> None:
        one = "(" + "|".join(map(re.escape, labels)) + ")"
        self.start = re.compile(rf"\s*{NAMED}[(\[{{<\"'“「【]*\s*{one}", re.IGNORECASE)
        self.whole = re.compile(
            rf"\s*{THEREFORE}{NAMED}[(\[{{<\"'“「【]*\s*{one}\s*[)\]}}>\"'”」】.:。]*\s*", re.IGNORECASE
        )
        self.joined = re.compile(rf"{JOINED}{one}(?![A-Za-z0-9])")
        self.praised = re.compile(rf"(?<![A-Za-z0-9])[(\[]?{one}[)\]]?{PRAISED}")
        self.listed = re.compile(rf"\s*[(\[]?{one}\s*[)\].:、]\s*(.*)", re.DOTALL)
        self.bracket = re.compile(rf"[(\[]{one}[)\]]")
        self.alone = re.compile(rf"(?<![A-Za-z0-9]){one}(?![A-Za-z0-9])")


@lru_cache(maxsize=64)
def _patterns(labels: tuple[str, ...]) -> _Patterns:
    return _Patterns(labels)


class _Reader:
    """Each rule gives a label, `""` for more than one, or None for "says nothing"."""

    def __init__(self, labels: tuple[str, ...], options: tuple[str, ...]) -> None:
        self.labels, self.re = labels, _patterns(labels)
        self.text_of = dict(zip(labels, options, strict=True)) if options else {}

    def from_box(self, text: str) -> str | None:
        found = statements.boxes(text)
        return self.read(found[-1]) if found else None

    def from_statement(self, text: str) -> str | None:
        said = [(phrase.end(), None) for phrase in CHOICE.finditer(text)]
        said += [(phrase.start(), phrase[1]) for phrase in self.re.praised.finditer(text)]
        for at, label in sorted(said, reverse=True, key=lambda item: item[0]):
            rest = text[statements.AFTER_VERB.match(text, at).end() :].strip()
            if label is None and re.match(r"(?:not|neither)\b", rest):
                continue
            line = self.read(rest.partition("\n")[0].strip())
            found = label or (self.by_text(rest) if line is None else line)
            if found is not None:
                return found
        return None

    def from_lines(self, text: str) -> str | None:
        lines = statements.lines(text)
        if len({item[1] for item in map(self.re.listed.match, lines) if item}) > 1:
            lines = lines[-1:] if self.re.whole.fullmatch(lines[-1]) else []  # the options were repeated
        for line in lines[-1:] + lines[:1]:
            found = self.line(line)
            if found is not None:
                return found
        return None

    def from_bold(self, strong: list[str]) -> str | None:
        found = {label for label in map(self.line, strong) if label}
        return found.pop() if len(found) == 1 else None

    def from_brackets(self, text: str) -> str | None:
        closing = text.strip().rpartition("\n\n")[2]
        found = set(self.re.bracket.findall(closing))
        return found.pop() if len(found) == 1 else None

    def line(self, line: str) -> str | None:
        """A line that is nothing but a label, a label before its option, or an option."""
        whole = self.re.whole.fullmatch(line)
        if whole:
            return self.label(whole[1])
        item = self.re.listed.match(line)
        if item:
            given, option = _normal(item[2]), self.text_of.get(item[1], "")
            if given.startswith(option) or (given and option.startswith(given)):  # an option of several lines
                return item[1]
        return self.by_text(line)

    def read(self, said: str) -> str | None:
        """What follows "the answer is", or stands in a box."""
        whole = self.re.whole.fullmatch(said)
        if whole:
            return self.label(whole[1])
        by_text = self.by_text(said) or self.by_beginning(said)
        if by_text:
            return by_text
        sentence = statements.first_sentence(said)
        whole = self.re.whole.fullmatch(sentence)
        if whole and self.ends(whole[1], said[whole.end(1) :]):
            return self.label(whole[1])
        if by_text := self.by_text(sentence):
            return by_text
        start = self.re.start.match(said)
        if not start or not self.ends(start[1], said[start.end() :]):
            return None
        also = self.re.joined.match(said, start.end())
        return "" if also and also[1] != start[1] else self.label(start[1])

    def by_text(self, said: str) -> str | None:
        said = _normal(said)
        same = [label for label, option in self.text_of.items() if option and option == said]
        return same[0] if len(same) == 1 else None

    def by_beginning(self, said: str) -> str | None:
        """As in "E. coli, because ...", which is the option "E. coli" and not the label E."""
        said = _normal(said)
        same = [
            label for label, option in self.text_of.items() if len(option) > 3 and said.startswith(option)
        ]
        return same[0] if len(same) == 1 else None

    def label(self, written: str) -> str:
        return next(label for label in self.labels if label.casefold() == written.casefold())

    def ends(self, written: str, rest: str) -> bool:
        """Whether a label ends here, given what follows it: "B-cell", "A patient", "A股", "1.5" are none."""
        if not rest or rest[0] in CHINESE_AFTER:
            return True
        if re.match(r"['’]\w|[.,]\d|\.[a-z]", rest):
            return False
        if rest[0] in CLOSING:
            return True
        if not rest[0].isspace() or written not in self.labels:  # a small letter in running text is a word
            return False
        return written not in ("A", "I") or bool(AFTER_A.match(rest))


def _clean(text: str) -> str:
    text = WRAPPED.sub(r"\1", unicodedata.normalize("NFKC", text))
    return NOISE.sub("", text)


def _normal(text: str) -> str:
    text = _clean(text).replace("{,}", ",").replace("\\", "").casefold()
    return " ".join(text.split()).strip(" .,;:!?\"'“”。")
