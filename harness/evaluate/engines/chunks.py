"""Answers on their way to the parent, a few at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

Emit = Callable[[list[tuple[int, Any]]], None]
COUNT, SECONDS = 32, 0.5  # answers are handed on when so many are there, or after so long


class Chunks:
    """Collects (index, answer) pairs for `emit`. As a context manager it hands on what is left, also when an
    exception ends the work: what was answered is not lost."""

    def __init__(self, emit: Emit) -> None:
        self._emit, self._held, self._since = emit, [], time.monotonic()

    def add(self, index: int, answer: dict[str, Any]) -> None:
        self._held.append((index, answer))
        if len(self._held) >= COUNT or time.monotonic() - self._since > SECONDS:
            self.flush()

    def flush(self) -> None:
        if self._held:
            self._emit(self._held)
        self._held, self._since = [], time.monotonic()

    def __enter__(self) -> Chunks:
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()
