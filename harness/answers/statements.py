"""Where in a response the answer stands: boxes, sentences such as "The answer is ...", bold text, lines."""

from __future__ import annotations

import re

BOX = re.compile(r"\\(?:boxed|fbox|framebox)(?![a-zA-Z])\s*")
BETWEEN_VALUES = re.compile(r"(?:,|;|\band\b|\bor\b|\\quad|和|或)")
VERB = r"(?:\s*[:：=]|\s+(?:is|are|was|would\s+be|should\s+be|must\s+be)\b)"
ANSWER = re.compile(
    rf"\banswers?\b[*_]*(?:\s+(?:to|for)\b[^.\n:]{{0,80}}?)?{VERB}"
    r"|^\W*(?:(?:the|my)\s+)?(?:final\s+)?answer\W*$"
    r"|答案\s*[】\]]?\s*(?:应该|应当|应|就)?\s*(?:选择|选|是|为)?",
    re.IGNORECASE | re.MULTILINE,
)
AFTER_VERB = re.compile(r"[*_\s]*[:：]?[*_\s]*")
BOLD = re.compile(r"\*\*(?!\s)([^*]+?)(?<!\s)\*\*|__(?!\s)([^_]+?)(?<!\s)__")
FORMULA = re.compile(r"\$\$(.+?)\$\$|(?<!\\)\$((?:\\.|[^$\\\n])+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
SENTENCE_END = re.compile(r"\n|[。；]|[.!?;](?=\s|$)")


def boxes(text: str) -> list[str]:
    """The contents of every closed `\\boxed{...}` (or `\\boxed 7`), in order; braces inside it may nest."""
    return [content for _, _, content in _boxes(text)]


def last_boxes(text: str) -> list[str]:
    """The last box and those it is listed with: `$x=\\boxed{1}$ or $x=\\boxed{2}$` states two values."""
    found = _boxes(text)
    listed = found[-1:]
    for start, end, content in reversed(found[:-1]):
        between = text[end : listed[0][0]]
        if len(between) > 40 or SENTENCE_END.search(between) or not BETWEEN_VALUES.search(between):
            break
        listed.insert(0, (start, end, content))
    return list(dict.fromkeys(content for _, _, content in listed))


def _boxes(text: str) -> list[tuple[int, int, str]]:
    found = []
    for opening in BOX.finditer(text):
        content, end = _braced(text, opening.end())
        if content is not None and content.strip():
            found.append((opening.start(), end, content.strip()))
    return found


def _braced(text: str, start: int) -> tuple[str | None, int]:
    """What the brace that opens at `start` encloses, or the bare token there; None when it never closes."""
    if text[start : start + 1] != "{":
        bare = re.match(r"[^\s$\\{}]+", text[start : start + 60])
        return (bare[0].rstrip(".,;:!?"), start + bare.end()) if bare else (None, start)
    depth, at = 0, start
    while at < len(text):
        if text[at] == "\\":
            at += 2
            continue
        depth += (text[at] == "{") - (text[at] == "}")
        at += 1
        if depth == 0:
            return text[start + 1 : at - 1], at
    return None, start


def stated(text: str, pattern: re.Pattern = ANSWER) -> list[str]:
    """What follows each "the answer is", "Answer:", "答案：" up to the end of its line, in order."""
    found = []
    for phrase in pattern.finditer(text):
        rest = text[AFTER_VERB.match(text, phrase.end()).end() :].partition("\n")[0].strip()
        if rest and not re.match(r"(?:not|unclear|unknown)\b", rest, re.IGNORECASE):
            found.append(rest)
    return found


def first_sentence(text: str) -> str:
    """`text` up to the end of its first sentence; a decimal point is no end."""
    end = SENTENCE_END.search(text)
    return text[: end.start()] if end else text


def bold(text: str) -> list[str]:
    """What is set in bold, in order, without the marks."""
    return [(found[1] or found[2]).strip() for found in BOLD.finditer(text)]


def formulas(text: str) -> list[str]:
    """What stands between `$`, `$$`, `\\(` or `\\[`, in order."""
    groups = (found.groups() for found in FORMULA.finditer(text))
    return [next(group for group in found if group is not None).strip() for found in groups]


def lines(text: str) -> list[str]:
    """The lines that say something, without markdown marks around them."""
    stripped = (line.strip().strip("*_`#> \t").strip() for line in text.splitlines())
    return [line for line in stripped if line and not set(line) <= set("-=")]
