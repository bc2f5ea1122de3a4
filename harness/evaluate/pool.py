"""Engines for a run: as many child processes as there is use for, starting while merges are made."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from harness.evaluate import Evaluator


@contextlib.contextmanager
def engines_for(rows: int, count: int | None, log: Path) -> Iterator[list[Evaluator]]:
    """Evaluators for `rows` models, starting: `count`, or one per core up to two. Their output goes to
    files in `log`."""
    cores = os.cpu_count() or 1
    count = min(rows, count or min(2, cores))
    with contextlib.ExitStack() as stack:
        if count:
            log.mkdir(parents=True, exist_ok=True)
        threads = max(1, cores // max(1, count))
        started = []
        for index in range(count):
            made = Evaluator("hf", threads=threads, log=log / f"engine-{index}.txt")
            started.append(stack.enter_context(made))
            made.start()
        yield started
