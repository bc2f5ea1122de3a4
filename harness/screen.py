"""What is shown while a run goes on. Data goes to standard output; all of this goes to standard error."""

from __future__ import annotations

import threading
import time
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
        self._begun: dict[str, tuple[float, int, int]] = {}

    def title(self, text: str) -> None:
        self.console.print(text, markup=False, style="bold")

    def done(self, kind: str, what: str, result: str) -> None:
        """A finished step: `✓ merge   6 methods in one pass   1.4 s`."""
        self._line("[green]✓[/]", kind, what, result)

    def failed(self, kind: str, what: str, reason: str) -> None:
        self._line("[red]✗[/]", kind, what, reason.splitlines()[0] if reason else "failed")

    def note(self, text: str) -> None:
        """A warning that does not stop the run."""
        with self._lock:
            self.console.print(f"  [yellow]![/] {escape(text)}")

    def info(self, text: str) -> None:
        with self._lock:
            self.console.print(text, markup=False, style="dim")

    def now(self, kind: str, what: str, done: int = 0, total: int = 0, tokens: int = 0) -> None:
        """The step that runs: `done` of `total` parts; of an evaluation, requests, and the `tokens` that were
        generated for them."""
        if self._shows():
            self._live(kind, what, self._pace(f"{kind} {what}", done, total, tokens))

    def _shows(self) -> bool:
        return self.console.is_terminal and not self.console.quiet

    def _pace(self, name: str, done: int, total: int, tokens: int = 0) -> str:
        """`120/200 · 850 tokens/s · 4 s left`. What was there at the first call took no time."""
        if not total:
            return ""
        with self._lock:
            begun, found, before = self._begun.setdefault(name, (time.monotonic(), done, tokens))
        spent, share = time.monotonic() - begun, f"{done}/{total}"
        if spent > 1 and found < done < total:
            if tokens > before:
                share += f" · {(tokens - before) / spent:.0f} tokens/s"
            share += f" · {spelled(spent / (done - found) * (total - done))} left"
        return share

    def _live(self, kind: str, what: str, share: str) -> None:
        with self._lock:
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


def spelled(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"
