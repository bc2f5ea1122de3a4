"""Blocks computed in one go: what methods do to them is written down, and carried out by a compiled machine
while the bytes are in the cache. To the same bits as one operation after the other, and for large models two
to four times as fast. Importing the package imports neither numba nor torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.checkpoint.read import Checkpoint

LARGE = 50_000_000  # elements; below, the machine's own start costs more than it saves


def serves(base: Checkpoint, method: Any) -> bool:
    """Whether this method on models of this size is better off with the machine."""
    return getattr(method, "plain", False) and sum(info.numel for info in base.tensors.values()) >= LARGE


def compiled() -> Callable[[int], Any]:
    """How a thread's buffers are made. Compiles the machine, where that was not done before."""
    from harness.merge.fused.buffers import LazyBuffers

    LazyBuffers(65_536).warm()
    return LazyBuffers
