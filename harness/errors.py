"""The one error a user sees: what is wrong, and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HarnessError(Exception):
    """Wrong input. The command line prints `message` and `hint` on two lines and exits with 2.

    Anything else that escapes is a bug of ours and keeps its traceback.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = " ".join(message.split())
        self.hint = " ".join(hint.split())

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message

    def __reduce__(self):
        return type(self), (self.message, self.hint)


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that names the closest of `known`, or lists them all when none is close."""
    names = sorted(known)
    if not names:
        return "none is known here"
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean `{close[0]}`?"
    return "known: " + ", ".join(f"`{n}`" for n in names)
