"""One row made alone, in a process of its own, with everything that it reads: what it costs.

`python -m harness.sweep.alone` is a child process: JSON on standard input (the arguments of `made`), one line
of JSON on standard output, as `Cost` without `wall`.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import libraries
from harness.errors import HarnessError
from harness.screen import Screen


@dataclass(frozen=True)
class Cost:
    """Seconds of gradient statistics and of the merge, peak resident memory of the process (GiB), of CUDA
    memory where it was used; `wall` is the whole command's, its start included."""

    statistics: float
    merge: float
    peak_gib: float
    gpu_gib: float | None
    wall: float

    @property
    def seconds(self) -> float:
        return self.statistics + self.merge


def cost(
    family: str, label: str, row: Mapping[str, Any], device: str, models: dict[str, str], scratch: Path
) -> Cost:
    """Make a row (`method` and settings) of a family in a child process, in the folder `scratch`, which is
    emptied before and removed behind it. `models` are the base and the experts (by role) at their pinned
    revisions, or the folders of those that were trained. HarnessError where the child fails."""
    asked = {"family": family, "label": label, "row": dict(row), "results": f"{scratch}/results",
             "to": f"{scratch}/merge", "device": device, "models": models}  # fmt: skip
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        begun = time.perf_counter()
        command = [sys.executable, "-m", "harness.sweep.alone"]
        done = subprocess.run(command, input=json.dumps(asked), text=True, capture_output=True)
        wall = time.perf_counter() - begun
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if done.returncode != 0:
        last = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
        raise HarnessError(f"`{label}` alone failed: {last}", "`harness compare` with this row says more")
    return Cost(**json.loads(done.stdout.splitlines()[-1]), wall=wall)


def made(
    family: str,
    label: str,
    row: dict[str, Any],
    results: str,
    to: str,
    device: str,
    models: dict[str, str],
) -> dict[str, Any]:
    """In the child: statistics into a fresh store, then the merge."""
    from harness.family import load_family
    from harness.measure import Meter
    from harness.planner import make_plan
    from harness.run.local import patient
    from harness.run.merging import make_sources, merge_to
    from harness.run.outcome import Outcome
    from harness.run.scoring import make_scores, score_groups
    from harness.store import Store

    patient()
    loaded = load_family(family)
    experts = {
        role: one.model_copy(update={"model": models[role], "train": None}) if role in models else one
        for role, one in loaded.experts.items()
    }
    alone = loaded.model_copy(
        update={"methods": {label: row}, "base": models["base"], "experts": experts, "checkpoints": {}}
    )
    store, screen, meter = Store(Path(results), loaded.name), Screen(quiet=True), Meter()
    plan = make_plan(alone, store, tasks=[], references=False, prepare=True, lone=True)
    outcome = Outcome(screen)
    make_sources(plan, outcome)
    if plan.scores:
        libraries.load()  # so that statistics are timed without it
    with meter.phase("statistics"):
        for group in score_groups(plan, [plan.rows[0]]):
            make_scores(plan, group, outcome, device)
    with meter.phase("merge"):
        merge_to(plan, Path(to), screen, device=device)
    inner = [done.get("peak_mib", {}) for step in plan.scores if (done := step.folder.done())]
    peaks = [*meter.peak_mib.values(), *(value for told in inner for value in told.values())]
    seconds = meter.seconds if plan.scores else {**meter.seconds, "statistics": 0.0}
    return {"statistics": seconds["statistics"], "merge": seconds["merge"], "peak_gib": max(peaks) / 1024,
            "gpu_gib": _gpu()}  # fmt: skip


def _gpu() -> float | None:
    torch = sys.modules.get("torch")  # a method without statistics may do without
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return None
    return torch.cuda.max_memory_allocated() / 2**30


def main() -> None:
    """The child."""
    with contextlib.redirect_stdout(sys.stderr):
        told = made(**json.loads(sys.stdin.read()))
    print(json.dumps(told))


if __name__ == "__main__":
    try:
        main()
    except HarnessError as error:
        sys.exit(error.message)
