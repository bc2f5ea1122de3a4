"""All that is asked of one row, by one engine."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import steps
from harness.collapse import collapse_of
from harness.evaluate.engine import Stopped
from harness.plan import EvalStep, Plan, RowStep
from harness.run.outcome import Outcome


def row_groups(wanted: Sequence[EvalStep]) -> list[list[EvalStep]]:
    """Evaluations by the row that they are of: an engine loads its weights once."""
    groups: dict[Path, list[EvalStep]] = {}
    for step in wanted:
        groups.setdefault(step.row.folder.path, []).append(step)
    return list(groups.values())


class RowEvaluation:
    """One row's evaluations by one evaluator: its probes and its tasks as one stream. Where a row that the
    probes find broken is not evaluated, they come first by themselves.

    When `stop` is set, what was answered is stored and the rest is not waited for."""

    def __init__(
        self, plan: Plan, wanted: Sequence[EvalStep], outcome: Outcome, stop: threading.Event | None = None
    ) -> None:
        self.plan, self.outcome, self.stop = plan, outcome, stop or threading.Event()
        self.row, self.skips = wanted[0].row, plan.family.collapse.skip
        self.probes = [step for step in wanted if step.probe]
        self.tasks = [step for step in wanted if not step.probe]
        self.records: list[tuple[EvalStep, dict[str, Any]]] = []
        self._left = {step.folder.path for step in wanted}
        self._scoring: list[Any] = []
        self._shares: dict[Path, tuple[int, int, int]] = {}  # requests done, all, tokens
        self._guard, self._begun = threading.Lock(), 0.0

    def carry_out(self, evaluator: Any, checkpoint: Path | None = None) -> None:
        """All of it; `checkpoint` is where the row's weights are."""
        self.ask(evaluator, checkpoint)
        self.finish()

    def ask(self, evaluator: Any, checkpoint: Path | None = None) -> None:
        """Until the engine has answered everything and may answer for another row; scoring goes on."""
        if not self.row.folder.complete:  # its merge failed, and that was said
            return
        where, self._begun = checkpoint or self.row.checkpoint, time.monotonic()
        try:
            if not self.skips:
                self._ask([*self.probes, *self.tasks], evaluator, where)
            else:
                self._ask(self.probes, evaluator, where)
                self.finish()
                if not broken(self.plan, self.row):
                    self._ask(self.tasks, evaluator, where)
        except Stopped:
            return
        self.outcome.warn(evaluator.engine.warnings)

    def finish(self) -> None:
        """Until all that was answered is scored."""
        for scoring in self._scoring:
            scoring.wait()

    def _ask(self, wanted: Sequence[EvalStep], evaluator: Any, where: Path) -> None:
        if not wanted or self.stop.is_set():
            return
        told = self._shown, self._finished, self._waits
        try:
            self._scoring.append(steps.evaluate(self.plan, wanted, evaluator, where, *told))
        except Exception as error:  # of all, or of what is left: the checkpoint, the disk
            for step in wanted:
                if step.folder.path in self._left:
                    self._finished(step, error)

    def _shown(self, step: EvalStep, done: int, total: int, tokens: int = 0) -> None:
        if self.stop.is_set():
            raise Stopped
        self._shares[step.folder.path] = (done, total, tokens)
        self.outcome.screen.now("eval", self.row.label, *map(sum, zip(*self._shares.values(), strict=True)))

    def _waits(self) -> None:
        if self.stop.is_set():
            raise Stopped
        self.outcome.waits("eval", self.row.label)

    def _finished(self, step: EvalStep, record: dict[str, Any] | Exception) -> None:
        if isinstance(record, Exception):
            self.outcome.fail(step.folder, "eval", step.label, record)
        else:
            self.outcome.count(1)
        with self._guard:
            if not isinstance(record, Exception):
                self.records.append((step, record))
            self._left.discard(step.folder.path)
            probed_now = step.probe and not self._left & {probe.folder.path for probe in self.probes}
            all_done = not self._left
        if probed_now and (why := probed(self.plan, self.row)):
            self.outcome.warn([f"{self.row.label} has collapsed: {'; '.join(why)}"])
        if all_done:
            self._say()

    def _say(self) -> None:
        tasks = [record for step, record in self.records if not step.probe]
        if not tasks:
            return
        first = [record["generated"] for step, record in self.records if step.probe and self.skips]
        asked = sum(record["generated"] + record["from_store"] for record in tasks)
        stored = max(
            0, sum(record["from_store"] for record in tasks) - sum(first)
        )  # the probe's are of this run
        spent = time.monotonic() - self._begun
        again = f" · {stored} of {asked} responses from store" if stored else ""
        self.outcome.screen.done("eval", self.row.label, f"{len(tasks)} tasks  {spent:.1f} s{again}")


def probed(plan: Plan, row: RowStep) -> list[str]:
    """Why a merge's probe finds it broken; [] while its own is not complete."""
    complete = all(step.folder.complete for step in plan.probes_of(row))
    return collapse_of(plan, row, plan.probes_of) if row.is_merge and complete else []


def broken(plan: Plan, row: RowStep) -> bool:
    """Whether the rest of a row's evaluation is left out."""
    return plan.family.collapse.skip and bool(probed(plan, row))
