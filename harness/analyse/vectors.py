"""Task vectors tensor by tensor: norms, cosines, sign conflicts. Imports torch."""

from __future__ import annotations

import itertools
import math
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from harness.checkpoint import fit
from harness.checkpoint.blocks import Buffers, Reader
from harness.checkpoint.read import FLOATS, Checkpoint, TensorInfo
from harness.merge.block import place_of

CHUNK = 65_536
BLOCK = 16 * CHUNK  # elements read at a time


def vectors(
    base: Checkpoint, experts: Mapping[str, Checkpoint], progress: Callable[[int, int], None] | None = None
) -> list[dict[str, Any]]:
    """One row for each tensor of floats: `tensor`, `layer` (None outside the layers), `module`, `elements`,
    squared norms `base` and one per role, and of each pair of roles their product `dot:a,b`, the elements
    `both:a,b` in which both task vectors are other than zero, and those of opposite signs, `conflicts:a,b`.

    One pass over the inputs; sums in float64 over chunks of 65 536 elements in order, so the number of
    threads changes nothing."""
    places = [fit.matched(base, expert, role) for role, expert in experts.items()]
    wanted = [info for info in fit.outputs(base).values() if info.dtype in FLOATS]
    reader, own, done, lock = Reader(), threading.local(), itertools.count(1), threading.Lock()

    def work(info: TensorInfo) -> dict[str, Any]:
        if not hasattr(own, "buffers"):
            own.buffers = Buffers(BLOCK)
        found = _of_tensor(
            [info, *(place[info.name] for place in places)], tuple(experts), reader, own.buffers
        )
        if progress:
            with lock:
                progress(next(done), len(wanted))
        return found

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(min(8, len(os.sched_getaffinity(0)))) as pool:
            return list(pool.map(work, wanted))
    finally:
        torch.set_num_threads(before)
        reader.close()


def _of_tensor(
    infos: list[TensorInfo], roles: tuple[str, ...], reader: Reader, buffers: Buffers
) -> dict[str, Any]:
    layer, module = place_of(infos[0].name)
    pairs = list(itertools.combinations(range(1, len(infos)), 2))
    gram = torch.zeros(len(infos), len(infos), dtype=torch.float64)
    counts = {pair: [0, 0] for pair in pairs}
    for offset in range(0, infos[0].numel, BLOCK):
        n = min(BLOCK, infos[0].numel - offset)
        values = [buffers.load(reader, info, offset, n, i) for i, info in enumerate(infos)]
        for delta in values[1:]:
            delta.sub_(values[0])
        for start in range(0, n, CHUNK):
            chunk = torch.stack([value[start : start + CHUNK] for value in values])
            gram += chunk.double() @ chunk.double().T
            for pair in pairs:
                _count(chunk[pair[0]], chunk[pair[1]], counts[pair])
    told: dict[str, Any] = {"tensor": infos[0].name, "layer": layer, "module": module.rpartition(".")[2],
                            "elements": infos[0].numel, "base": gram[0, 0].item()}  # fmt: skip
    told |= {role: gram[i, i].item() for i, role in enumerate(roles, 1)}
    for i, j in pairs:
        name = f"{roles[i - 1]},{roles[j - 1]}"
        told |= {f"dot:{name}": gram[i, j].item(), f"both:{name}": counts[i, j][0],
                 f"conflicts:{name}": counts[i, j][1]}  # fmt: skip
    return told


def _count(a: Tensor, b: Tensor, into: list[int]) -> None:
    into[0] += int(((a != 0) & (b != 0)).sum())
    into[1] += int(((a > 0) & (b < 0)).sum()) + int(((a < 0) & (b > 0)).sum())


def summed(rows: Sequence[Mapping[str, Any]], roles: Sequence[str]) -> dict[str, Any]:
    """Rows of tensors as one: relative norm |tau|/|theta0| per role, and per pair of roles the cosine and the
    share of sign conflicts among elements that both change. None where there is nothing to divide by."""

    def total(key: str) -> float:
        return math.fsum(row[key] for row in rows)

    told: dict[str, Any] = {"elements": sum(row["elements"] for row in rows)}
    told |= {f"relative:{role}": _ratio(math.sqrt(total(role)), math.sqrt(total("base"))) for role in roles}
    for a, b in itertools.combinations(roles, 2):
        told[f"cosine:{a},{b}"] = _ratio(total(f"dot:{a},{b}"), math.sqrt(total(a) * total(b)))
        told[f"conflicts:{a},{b}"] = _ratio(total(f"conflicts:{a},{b}"), total(f"both:{a},{b}"))
    return told


def _ratio(above: float, below: float) -> float | None:
    return above / below if below and math.isfinite(above / below) else None
