"""Several copies of one training, one per device, started by `accelerate launch`.

Every copy holds the whole model and takes its share of a step's micro-batches (see `harness.train.lora`);
the first tells how far it is."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.store import write_text
from harness.train.recipe import Train
from harness.train.samples import Sample

JOB, ERROR, LOG = "job.json", "error.json", "stderr.txt"


def fit(
    base: Path,
    train: Train,
    targets: Sequence[str],
    samples: Sequence[Sample],
    folder: Path,
    progress: Callable[[int, int], None],
    count: int,
) -> int:
    """As `harness.train.lora.fit`, by `count` processes, none of which outlives this one for long."""
    from harness.train import loop

    job = {
        "base": str(base),
        "train": train.model_dump(mode="json"),
        "targets": list(targets),
        "samples": samples,
        "owner": os.getpid(),
        "checkpoints": [loop.SECONDS, loop.TIMES],
    }
    (folder / JOB).write_text(json.dumps(job), encoding="utf-8")
    (folder / ERROR).unlink(missing_ok=True)
    found_done = 0
    with (folder / LOG).open("wb") as log:
        process = subprocess.Popen(_command(folder, count), stdout=subprocess.PIPE, stderr=log, env=_env())
        try:
            for line in process.stdout or ():
                if told := _told(line):
                    progress(told["step"], told["steps"])
                    found_done = told["resumed"]
            code = process.wait()
        finally:
            if process.poll() is None:
                process.terminate()  # the launcher ends its processes
                process.wait()
    if code:
        raise _failure(folder, code)
    return found_done


@contextlib.contextmanager
def memory_told() -> Iterator[None]:
    """A GPU's memory that runs out is an error of two lines."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        hint = "lower `micro_batch_size:`, or set `gradient_checkpointing: true` or `placement: layers`"
        raise HarnessError(f"the memory of a GPU does not suffice: {reason}", hint) from error


def _command(folder: Path, count: int) -> list[str]:
    # `--multi_gpu` is accelerate's name for its launcher of several processes, which works without a GPU too
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1"]
    settings = ["--num_processes", str(count), "--mixed_precision", "no", "--dynamo_backend", "no"]
    return [*launch, *settings, "--main_process_port", "0", "--module", "harness.train.copies", str(folder)]


def _env() -> dict[str, str]:
    package = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(p for p in (package, os.environ.get("PYTHONPATH")) if p)
    return {**os.environ, "PYTHONPATH": path}


def _told(line: bytes) -> dict[str, Any] | None:
    try:
        told = json.loads(line)
    except ValueError:  # some library's own words
        return None
    return told if isinstance(told, dict) and "resumed" in told else None


def _failure(folder: Path, code: int) -> Exception:
    if (folder / ERROR).is_file():
        return HarnessError(*json.loads((folder / ERROR).read_text("utf-8")))
    lines = (folder / LOG).read_text("utf-8", errors="replace").strip().splitlines()
    tail = ([line for line in lines if line.startswith("[rank")] or lines)[-15:]
    return RuntimeError(f"the processes of a training ended with {code}: " + "\n".join(tail))


def main(folder: Path) -> None:
    """One of the processes."""
    job = json.loads((folder / JOB).read_text("utf-8"))
    _end_with(job["owner"])
    import torch
    from accelerate import Accelerator

    from harness.train import loop, lora

    group = Accelerator(cpu=not torch.cuda.is_available())
    first = group.process_index == 0
    with (folder / ".writer").open("w") as lock:
        if first:  # the first of an earlier start may take a moment to notice that its owner is gone
            fcntl.flock(lock, fcntl.LOCK_EX)
        loop.SECONDS, loop.TIMES = job["checkpoints"]
        train = Train.model_validate(job["train"])
        samples = [Sample(*sample) for sample in job["samples"]]
        resumed = loop.steps_done(folder)

        def tell(step: int, steps: int) -> None:
            if first:
                print(json.dumps({"step": step, "steps": steps, "resumed": resumed}), flush=True)

        try:
            with memory_told():
                lora.fit(Path(job["base"]), train, job["targets"], samples, folder, tell, group)
        except HarnessError as error:  # of any process: memory may run out on one GPU only
            write_text(folder / ERROR, json.dumps([error.message, error.hint]))
            raise
        group.end_training()


def _end_with(owner: int) -> None:
    """End this process when `owner` is no more, however that was killed."""

    def watch() -> None:
        while True:
            time.sleep(0.5)
            try:
                os.kill(owner, 0)
            except ProcessLookupError:
                os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
