"""Seconds and peak memory of the phases of a step, for `done.json`."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Meter:
    """Collects phases: `with meter.phase("merge"): ...`. Peak memory is this process's resident set, MiB."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.peak_mib: dict[str, float] = {}

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        _reset_peak()
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - begun, 4)
            self.peak_mib[name] = max(self.peak_mib.get(name, 0.0), peak_mib())

    def record(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "peak_mib": self.peak_mib}


def peak_mib(pid: int | str = "self") -> float:
    """Highest resident set of a process since its last reset, in MiB; 0.0 when the process is gone."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) / 1024, 1)
    except OSError:
        if pid == "self":  # no /proc: the maximum over the whole life of the process
            return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
    return 0.0


def _reset_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
