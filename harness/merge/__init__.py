"""The merge engine: streams the inputs once through many methods, block by block, into finished checkpoints.

All jobs share the passes: one per round of `prepare` requests, and one that writes. Bytes do not depend on
threads, block size, sharding, or on what else is merged in the same passes. Importing this package does not
import torch; `merge` does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from harness.checkpoint.read import Checkpoint


@dataclass(frozen=True)
class Inputs:
    """What is merged: `experts` by role in family order; `donor` is the folder whose tokenizer, chat template
    and generation config the outputs get."""

    base: Checkpoint
    experts: Mapping[str, Checkpoint]
    donor: Path


@dataclass(frozen=True)
class Job:
    """One output: a configured method and the folder it is written to.

    `scores` holds the statistics the method needs, by `Need.key`: one float tensor per parameter, of its
    shape. `dtype` is the stored dtype (`bfloat16`, `float16`, `float32`); None keeps the base's, tensor by
    tensor. `recipe` goes on the model card. With `replace`, a different model in `to` is deleted when this
    one is done. `rows` are the calibration rows that a whole-model method trains on, by role, as
    `harness.scores.load_rows` returns them. `masks` is the file that takes the figures of what the method's
    masks select (`harness.merge.masks`), inside `to` or outside; it is written before `to` is finished."""

    method: Any
    to: Path
    seed: int = 0
    scores: Mapping[str, Checkpoint] = field(default_factory=dict)
    dtype: str | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    replace: bool = False
    rows: Mapping[str, list[dict[str, str]]] = field(default_factory=dict)
    masks: Path | None = None


def merge(
    inputs: Inputs,
    jobs: Sequence[Job],
    *,
    threads: int | None = None,
    block: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    shard_bytes: int = 5_000_000_000,
    allow_nonfinite: bool = False,
    on_error: Literal["raise", "record"] = "raise",
    device: str = "cpu",
) -> list[dict[str, Any]]:
    """Carry out `jobs`; one record per job, in their order.

    `threads` defaults to the cores this process may use; `block` is in elements, a multiple of 65 536;
    `device` is where blocks are merged: `cpu` (also `auto`: there a merge is as fast as the disk), or `cuda`,
    `cuda:1`, whose results are within one ulp of the stored dtype. `progress(phase, done, total)` counts
    blocks in the phases `prepare` and `merge`. A killed merge continues at the first unfinished tensor when
    it is called again; a job that is already finished costs nothing.

    A record holds `seconds` (by phase, of the shared passes), `method_seconds` (of this method, over all
    threads), `peak_mib`, `bytes_read`, `bytes_written`, `passes`, `resumed` (tensors found done), `warnings`,
    `error`; with `Job.masks` also `mask_warnings`, those of the warnings that are about the masks.

    Raises `HarnessError` for inputs that do not fit, statistics that are missing, NaN or infinity in an input
    (unless `allow_nonfinite`), a disk too small. An exception of one method, or a folder that cannot be had,
    ends its own job only: the others are finished, then it is raised, or with `on_error="record"` put under
    `error` (None otherwise)."""
    from harness.merge.engine import run

    return run(
        inputs,
        jobs,
        threads=threads,
        block=block,
        progress=progress,
        shard_bytes=shard_bytes,
        allow_nonfinite=allow_nonfinite,
        on_error=on_error,
        device=device,
    )


__all__ = ["Inputs", "Job", "merge"]
