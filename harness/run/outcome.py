"""What became of the steps: counted, written into their folders, and told on the screen as it happens."""

from __future__ import annotations

import contextlib
import threading
import traceback
from collections.abc import Sequence
from typing import Any

from harness.errors import HarnessError
from harness.plan import RowStep
from harness.screen import Screen
from harness.store import Folder, refusal, write_text


class Outcome:
    """Steps by what became of them; exit code 1 when some failed. Threads may share one."""

    def __init__(self, screen: Screen) -> None:
        self.screen = screen
        self.stored = self.made = 0
        self.failed: list[str] = []
        self._said: set[str] = set()
        self._guard = threading.Lock()

    @property
    def exit_code(self) -> int:
        return 1 if self.failed else 0

    def count(self, made: int) -> None:
        with self._guard:
            self.made += made

    def fail(self, folder: Folder, kind: str, what: str, error: BaseException | str) -> None:
        """Write a failure down, if the disk takes it, and go on."""
        trace = ""
        if isinstance(error, OSError):
            error = refusal(error) or error
        if isinstance(error, BaseException) and not isinstance(error, HarnessError):
            trace = "".join(traceback.format_exception(error))
            error = f"{type(error).__name__}: {error}"
        with contextlib.suppress(OSError):
            folder.path.mkdir(parents=True, exist_ok=True)
            write_text(folder.path / "error.txt", f"{error}\n")
            if trace:
                write_text(folder.path / "traceback.txt", trace)
        self.screen.failed(kind, what, str(error))
        with self._guard:
            self.failed.append(f"{kind} {what}: {error}")

    def warn(self, warnings: Sequence[str]) -> None:
        """Say each warning once."""
        for warning in warnings:
            with self._guard:
                known = warning in self._said
                self._said.add(warning)
            if not known:
                self.screen.note(warning)

    def waits(self, kind: str, what: str) -> None:
        """Say once that another process has the folder of a step."""
        self.warn([f"{kind} {what}: another process is at it, and is waited for"])

    def warn_of(self, row: RowStep, record: dict[str, Any]) -> None:
        """Say a merge's warnings; those about its masks are about this row alone."""
        own = record.get("mask_warnings", ())
        self.warn([f"{row.label}: {w}" if w in own else w for w in record.get("warnings", ())])
