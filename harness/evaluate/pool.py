"""Engines for a run: as many child processes as there is use for, starting while merges are made."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from harness.errors import HarnessError
from harness.evaluate import Evaluator
from harness.evaluate.child import Nursery
from harness.evaluate.choice import EngineSettings, visible_gpus

GPU = Path("/dev/nvidia0")


@contextlib.contextmanager
def engines_for(
    rows: int, count: int | None, log: Path, engine: str = "hf", settings: EngineSettings | None = None
) -> Iterator[list[Evaluator]]:
    """Evaluators for `rows` models, starting. Where there are GPUs, at most one for each group of
    `tensor_parallel` of them (`hf`: for each), which is all that it sees; else `count`, or one per core up to
    two (`vllm`: one, which uses all cores). Their output goes to files in `log`."""
    settings = settings or EngineSettings()
    cores, groups = os.cpu_count() or 1, _groups(engine, settings)
    usual = len(groups) or (1 if engine == "vllm" else min(2, cores))
    count = min(rows, count or usual, *([len(groups)] if groups else []))
    with contextlib.ExitStack() as stack:
        if count:
            log.mkdir(parents=True, exist_ok=True)
        threads = max(1, cores // max(1, count))
        nursery, started = None, []
        if count and engine == "hf" and not groups and sys.platform == "linux":
            nursery = stack.enter_context(Nursery(log / "engine-0.txt"))
        for index in range(count):
            made = Evaluator(
                engine,
                settings=settings,
                threads=threads,
                gpus=groups[index] if groups else (),
                log=log / f"engine-{index}.txt",
                nursery=nursery,
            )
            started.append(stack.enter_context(made))
            made.start()
        yield started


def _groups(engine: str, settings: EngineSettings) -> list[tuple[str, ...]]:
    size, gpus = settings.tensor_parallel if engine == "vllm" else 1, visible_gpus()
    if gpus and len(gpus) < size:
        raise HarnessError(
            f"`engine.tensor_parallel` is {size}, and {len(gpus)} GPUs are there",
            "lower it in the family, or run where there are more",
        )
    return [tuple(gpus[at : at + size]) for at in range(0, len(gpus) - size + 1, size)]
