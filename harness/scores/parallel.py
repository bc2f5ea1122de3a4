"""Samples dealt out to several processes, one per device; the others' sums are added to the first's.

The other processes leave their sums in files beside the result. A sum of float32 depends on the order of its
terms: with other devices the last bits of a statistic differ, votes (counts) do not.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.errors import HarnessError


@contextlib.contextmanager
def started(work: Any, devices: Sequence[str], beside: Path) -> Iterator[list[Path]]:
    """Start a process for every device but the first; yields the folders their sums will be in.

    `gather` waits for them. Whatever happens, none is left running and no file stays.
    """
    beside.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=".parts-", dir=beside)))
        (folder / "work.json").write_text(json.dumps(dataclasses.asdict(work), default=str))
        parts = []
        for rank in range(1, len(devices)):
            part = folder / str(rank)
            part.mkdir()
            parts.append(_Part(part, _start(folder, part, rank, devices)))
            stack.callback(parts[-1].stop)
        yield parts


class _Part:
    """One process and the folder it writes."""

    def __init__(self, folder: Path, process: subprocess.Popen) -> None:
        self.folder, self.process = folder, process

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def losses(self) -> list[float]:
        """Wait for the end; raises what went wrong there."""
        if self.process.wait():
            told = self.folder / "error.json"
            if told.exists():
                raise HarnessError(*json.loads(told.read_text()))
            tail = (self.folder / "stderr.txt").read_text(errors="replace").strip().splitlines()[-15:]
            lines = "\n".join(tail)
            raise RuntimeError(
                f"a process computing statistics ended with {self.process.returncode}: {lines}"
            )
        return json.loads((self.folder / "losses.json").read_text())


def _start(folder: Path, part: Path, rank: int, devices: Sequence[str]) -> subprocess.Popen:
    package = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(p for p in (package, os.environ.get("PYTHONPATH")) if p)
    command = [sys.executable, "-m", "harness.scores.parallel", str(folder), str(rank), str(len(devices))]
    with (part / "stderr.txt").open("wb") as log:
        return subprocess.Popen(
            [*command, devices[rank]], stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": path}
        )


def main(folder: Path, rank: int, count: int, device: str) -> None:
    """One of the processes: its share of the samples, its sums into `folder/rank`."""
    from safetensors.torch import save_file

    from harness.scores.gradients import share, work_from

    part = folder / str(rank)
    try:
        work = work_from(json.loads((folder / "work.json").read_text()))
        sums, losses = share(work, range(rank, len(work.samples), count), device)
        for kind in work.kinds:
            save_file({name: t.cpu() for name, t in sums.of.pop(kind).items()}, part / f"{kind}.safetensors")
        (part / "losses.json").write_text(json.dumps(losses))
    except HarnessError as error:
        (part / "error.json").write_text(json.dumps([error.message, error.hint]))
        sys.exit(2)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
