"""Blocks computed in one go: what methods do to them is written down, and carried out by a compiled machine
while the bytes are in the cache. To the same bits as one operation after the other, and for large models two
to four times as fast. Importing the package imports neither numba nor torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from harness.checkpoint.read import FLOATS, Checkpoint

CODES = ("BF16", "F32")  # dtypes that are read and stored here
LARGE = 50_000_000  # elements; below, the machine's own start costs more than it saves


def serves(models: Iterable[Checkpoint], jobs: Sequence[Any]) -> bool:
    """Whether these jobs on these models are better off with the machine."""
    models = list(models)
    held = [info for model in models for info in model.tensors.values() if info.dtype in FLOATS]
    held += [info for job in jobs for model in job.scores.values() for info in model.tensors.values()]
    codes = {info.dtype for info in held}
    codes |= {code for job in jobs for code, name in FLOATS.items() if name == job.dtype}
    streaming = [job.method for job in jobs if hasattr(job.method, "merge")]
    return (
        codes <= set(CODES)
        and all(getattr(method, "plain", False) for method in streaming)
        and sum(info.numel for info in models[0].tensors.values()) >= LARGE
    )


def compiled() -> Callable[[int], Any]:
    """How a thread's buffers are made. Compiles the machine, where that was not done before."""
    from harness.merge.fused.buffers import LazyBuffers

    LazyBuffers(65_536).warm()
    return LazyBuffers
