"""How far experts are from the base, and from each other: |tau| / |theta0| and the cosines between task
vectors.

Imports torch."""

from __future__ import annotations

import itertools
import math
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from harness.checkpoint import fit
from harness.checkpoint.blocks import Buffers, Reader
from harness.checkpoint.read import FLOATS, Checkpoint, TensorInfo

CHUNK = 65_536
BLOCK = 16 * CHUNK  # elements read at a time


def lineage(
    base: Checkpoint,
    experts: Mapping[str, Checkpoint],
    progress: Callable[[int, int], None] | None = None,
    threads: int | None = None,
) -> dict[str, Any]:
    """`{"base_norm": |theta0|, "relative_norm": {role: |tau|/|theta0|}, "cosine": {"a, b": cos(tau_a,
    tau_b)}}`.

    One pass over the inputs; every product in float64, summed over chunks of 65 536 elements in order, so
    the number of threads changes nothing. Null where it is not finite (an input with NaN, a zero task
    vector). Tensors of whole numbers do not count."""
    places = [fit.matched(base, expert, role) for role, expert in experts.items()]
    wanted = [info for info in fit.outputs(base).values() if info.dtype in FLOATS]
    reader, own, done, lock = Reader(), threading.local(), itertools.count(1), threading.Lock()

    def work(info: TensorInfo) -> Tensor:
        if not hasattr(own, "buffers"):
            own.buffers = Buffers(BLOCK)
        found = _gram([info, *(place[info.name] for place in places)], reader, own.buffers)
        if progress:
            with lock:
                progress(next(done), len(wanted))
        return found

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads or min(8, len(os.sched_getaffinity(0)))) as pool:
            grams = list(pool.map(work, wanted))
    finally:
        torch.set_num_threads(before)
        reader.close()
    whole = torch.zeros(len(experts) + 1, len(experts) + 1, dtype=torch.float64)
    for gram in grams:
        whole += gram
    return _facts(whole, tuple(experts))


def _gram(infos: list[TensorInfo], reader: Reader, buffers: Buffers) -> Tensor:
    """Inner products of theta0 and the task vectors over one tensor, float64 [n + 1, n + 1]."""
    numel, found = infos[0].numel, torch.zeros(len(infos), len(infos), dtype=torch.float64)
    for offset in range(0, numel, BLOCK):
        n = min(BLOCK, numel - offset)
        values = [buffers.load(reader, info, offset, n, i) for i, info in enumerate(infos)]
        for delta in values[1:]:
            delta.sub_(values[0])
        for start in range(0, n, CHUNK):
            chunk = torch.stack([value[start : start + CHUNK] for value in values]).double()
            found += chunk @ chunk.T
    return found


def _facts(gram: Tensor, roles: tuple[str, ...]) -> dict[str, Any]:
    norms = gram.diagonal().sqrt().tolist()
    return {
        "base_norm": _finite(norms[0]),
        "relative_norm": {role: _ratio(norms[i], norms[0]) for i, role in enumerate(roles, 1)},
        "cosine": {
            f"{roles[i - 1]}, {roles[j - 1]}": _ratio(gram[i, j].item(), norms[i] * norms[j])
            for i, j in itertools.combinations(range(1, len(roles) + 1), 2)
        },
    }


def _ratio(above: float, below: float) -> float | None:
    return _finite(above / below) if below else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
