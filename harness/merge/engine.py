"""Carries out jobs: what is checked before, who does the work, what is left behind. Imports torch
only where a job's arithmetic needs it."""

from __future__ import annotations

import functools
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from harness.checkpoint import Checkpoint, fit, write
from harness.checkpoint.devices import check_device
from harness.errors import HarnessError
from harness.measure import peak_mib
from harness.merge import fused, masks, plain
from harness.merge.memory import Passing, kept_pages, too_many
from harness.merge.output import Output
from harness.merge.passes import Passes
from harness.merge.underway import Run
from harness.merge.workers import Workers, available
from harness.method import CHUNK
from harness.store import write_text

BLOCK = 2**18  # elements, where the buffers have no `usual_block`
Progress = Callable[[str, int, int], None]


def run(
    inputs: Any,
    jobs: Sequence[Any],
    *,
    threads: int | None,
    block: int | None,
    progress: Progress | None,
    shard_bytes: int,
    allow_nonfinite: bool,
    on_error: str,
    device: str,
) -> list[dict[str, Any]]:
    """See `harness.merge.merge`."""
    if block is not None and (block < CHUNK or block % CHUNK):
        raise HarnessError(f"the block size is {block}", f"give a multiple of {CHUNK}")
    if threads is not None and threads < 1:
        raise HarnessError(f"the number of threads is {threads}", "give 1 or more")
    begun = time.perf_counter()
    warnings = fit.check_fit(inputs.base, inputs.experts)
    report = progress or (lambda *_: None)
    kinds, makes = _buffers(inputs, jobs, device, allow_nonfinite)
    block = block or max((getattr(make, "usual_block", BLOCK) for make in makes.values()), default=BLOCK)
    runs = [
        Run(job, Output(inputs, job, shard_bytes) if hasattr(job.method, "merge") else None, kind)
        for job, kind in zip(jobs, kinds, strict=True)
    ]
    _check_folders(jobs)
    for one in runs:
        one.record = one.output.finished if one.output else None
    streaming = [one for one in runs if one.output and one.record is None]
    _check_disk(streaming)
    if too_many(sum(one.output.layout.nbytes for one in streaming)):
        for one in streaming:
            one.output.passing = Passing()
    if streaming:
        with kept_pages(), Workers(threads or available(), block, makes) as workers:
            _stream(Passes(inputs, streaming, workers, report, allow_nonfinite), warnings, begun)
    for one in runs:
        if one.output is None:
            _build(one, inputs, report, _trains_on(one.job) if device == "auto" else device)
    return _records(runs, on_error)


def _buffers(
    inputs: Any, jobs: Sequence[Any], device: str, allow_nonfinite: bool
) -> tuple[list[str], dict[str, Callable[[int], Any]]]:
    """The kind of every job's buffers, and how a thread's are made: for the compiled machine where the model
    is large, without torch where no job needs it, on a CUDA device if it is asked for."""
    models = [inputs.base, *inputs.experts.values()]
    check_device(device)
    on_cpu = device in ("cpu", "auto")
    kinds, makes = ["usual"] * len(jobs), {}
    if on_cpu and not allow_nonfinite:
        kinds = ["fused" if fused.serves(inputs.base, job.method) else "usual" for job in jobs]
        if "fused" in kinds:
            makes["fused"] = fused.compiled()
        if plain.serves(models, jobs):
            makes["usual"] = plain.PlainBuffers
    if any(kind not in makes and hasattr(job.method, "merge") for kind, job in zip(kinds, jobs, strict=True)):
        from harness.checkpoint.blocks import Buffers, DeviceBuffers

        makes["usual"] = Buffers if on_cpu else functools.partial(DeviceBuffers, device=device)
    return kinds, makes


def _stream(passes: Passes, warnings: list[str], begun: float) -> None:
    """An error of the passes is one of every job."""
    try:
        passes.seconds["check"] = round(time.perf_counter() - begun, 4)
        passes.carry_out(warnings)
    except Exception as error:
        for one in passes.runs:
            one.error = one.error or error
        raise
    finally:
        passes.close()


def _check_folders(jobs: Sequence[Any]) -> None:
    for folder, n in Counter(Path(job.to).absolute() for job in jobs).items():
        if n > 1:
            raise HarnessError(f"{n} jobs write {folder}", "give every job a folder of its own")


def _check_disk(runs: Sequence[Run]) -> None:
    """Every disk has room for all that will be written to it."""
    wanted: Counter[int] = Counter()
    where: dict[int, Path] = {}
    for one in runs:
        folder = write.existing(one.output.to.absolute().parent)
        disk = os.stat(folder).st_dev
        where.setdefault(disk, folder)
        wanted[disk] += one.output.missing_bytes
    for disk, nbytes in wanted.items():
        if nbytes:
            write.check_space(where[disk], nbytes)


def _records(runs: Sequence[Run], on_error: str) -> list[dict[str, Any]]:
    failed = [one.error for one in runs if one.error is not None]
    if failed and on_error == "raise":
        raise failed[0]
    return [{**(one.record or {}), "error": one.error} for one in runs]


def _build(one: Run, inputs: Any, progress: Progress, device: str) -> None:
    """A whole-model method writes its folder itself; it resumes and finishes by its own rules."""
    with one.guarded():
        begun = time.perf_counter()
        facts = one.job.method.build(
            SimpleNamespace(inputs=inputs, job=one.job, rows=one.job.rows, progress=progress, device=device)
        )
        seconds = {"build": round(time.perf_counter() - begun, 4)}
        one.record = {"seconds": seconds, "peak_mib": peak_mib(), **(facts or {})}
        if one.job.masks is not None:
            _compare(one, inputs)


def _trains_on(job: Any) -> str:
    """Where `auto` puts a whole-model method: one that trains on rows goes to a GPU, if there is one."""
    if not job.rows:
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _compare(one: Run, inputs: Any) -> None:
    """The figures of a checkpoint that a whole-model method wrote: all that can be said is what changed."""
    made = Checkpoint.open(one.job.to)
    tallies = masks.compared(fit.outputs(inputs.base), made.tensors)
    text, said = masks.written(type(one.job.method).method_name, False, tallies)
    Path(one.job.masks).parent.mkdir(parents=True, exist_ok=True)
    write_text(Path(one.job.masks), text)
    one.record |= {"warnings": [*one.record.get("warnings", ()), *said], "mask_warnings": said}
