"""What is shown while a run goes on. Data goes to standard output; all of this goes to standard error."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.status import Status


class Screen:
    """One line per finished step, and one live line for the step that runs (on a terminal only)."""

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(stderr=True, highlight=False, quiet=quiet, soft_wrap=True)
        self._status: Status | None = None
        self._lock = threading.Lock()
        self._paces: dict[tuple[str, str], Pace] = {}

    def title(self, text: str) -> None:
        self.console.print(text, markup=False, style="bold")

    def done(self, kind: str, what: str, result: str) -> None:
        """A finished step: `✓ merge   6 methods in one pass   1.4 s`."""
        self._line("[green]✓[/]", kind, what, result)

    def failed(self, kind: str, what: str, reason: str) -> None:
        with self._lock:
            for row in [row for k, row in self._paces if k == kind and what.startswith(f"{row} / ")]:
                self._paces.pop((kind, row))
        self._line("[red]✗[/]", kind, what, reason.splitlines()[0] if reason else "failed")

    def note(self, text: str) -> None:
        """A warning that does not stop the run."""
        with self._lock:
            self.console.print(f"  [yellow]![/] {escape(text)}")

    def info(self, text: str) -> None:
        with self._lock:
            self.console.print(text, markup=False, style="dim")

    def now(self, kind: str, what: str, done: int = 0, total: int = 0, tokens: int = 0) -> None:
        """The step that runs: `done` of `total` parts. Of rows that are evaluated, requests, and the `tokens`
        that were generated for them; those that run at once are one line."""
        if not self.console.is_terminal or self.console.quiet:
            return
        with self._lock:
            pace = self._paces.setdefault((kind, what), Pace(time.monotonic(), done, tokens))
            pace.done, pace.total, pace.tokens = done, total, tokens
            shown = {what: pace}
            if kind == "eval":
                shown = {w: p for (k, w), p in self._paces.items() if k == kind and p.done < p.total} or shown
            self._live(kind, ", ".join(shown), together(list(shown.values()), time.monotonic()))

    def _live(self, kind: str, what: str, share: str) -> None:
        text = f"[cyan]{kind:<7}[/] {escape(what):<34} {share}"
        if self._status is None:
            self._status = self.console.status(text, spinner="dots")
            self._status.start()
        else:
            self._status.update(text)

    def close(self) -> None:
        with self._lock:
            if self._status is not None:
                self._status.stop()
                self._status = None

    def _line(self, mark: str, kind: str, what: str, result: str) -> None:
        with self._lock:
            self.console.print(f"  {mark} {kind:<7} {escape(what):<34} [dim]{escape(result)}[/]")

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


@dataclass
class Pace:
    """How far a step is: parts done of all, tokens; at `begun`, `found` and `before` were there."""

    begun: float
    found: int
    before: int
    done: int = 0
    total: int = 0
    tokens: int = 0

    def left(self, now: float) -> float | None:
        """Seconds that it still takes; None while nothing says."""
        if now - self.begun <= 1 or not self.found < self.done < self.total:
            return None
        return (now - self.begun) / (self.done - self.found) * (self.total - self.done)


def together(paces: list[Pace], now: float) -> str:
    """`120/200 · 850 tokens/s · 4 s left`: steps that run at once; the slowest says how long it takes."""
    done, total = sum(p.done for p in paces), sum(p.total for p in paces)
    if not total:
        return ""
    share, left = f"{done}/{total}", [seconds for p in paces if (seconds := p.left(now)) is not None]
    speed = sum((p.tokens - p.before) / (now - p.begun) for p in paces if now - p.begun > 1)
    if speed:
        share += f" · {speed:.0f} tokens/s"
    return share + (f" · {spelled(max(left))} left" if left else "")


def spelled(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"
