"""The code in a response: its fenced blocks."""

from __future__ import annotations

import re

FENCE = re.compile(r"([ \t]*)(`{3,}|~{3,})[ \t]*([\w+-]*)")
PYTHON = ("python", "py", "python3")


def blocks(text: str) -> list[tuple[str, str]]:
    """(language in lower case, code) of each fenced block, in order.

    One that is never closed goes to the end. The indentation of a block's fence (in a list, say) is taken off
    its lines.
    """
    found: list[tuple[str, str]] = []
    fence = None
    lines: list[str] = []
    for line in text.splitlines():
        mark = FENCE.match(line)
        if fence is None:
            fence, lines = mark, []
        elif mark and not mark[3] and mark[2].startswith(fence[2]):
            found.append((fence[3].lower(), _code(lines, fence[1])))
            fence = None
        else:
            lines.append(line)
    if fence is not None:
        found.append((fence[3].lower(), _code(lines, fence[1])))
    return found


def last_block(text: str) -> str | None:
    """The last block marked as Python, else the last of all; None when there is none."""
    found = blocks(text)
    marked = [code for language, code in found if language in PYTHON] or [code for _, code in found]
    return marked[-1] if marked else None


def _code(lines: list[str], indent: str) -> str:
    return "\n".join(line.removeprefix(indent) for line in lines) + "\n"
