"""All that is asked of one row, by one engine."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import steps
from harness.collapse import collapse_of
from harness.plan import EvalStep, Plan, RowStep
from harness.run.outcome import Outcome


class Stopped(BaseException):
    """The run was interrupted while an engine was answering; not a failure of the step."""


def row_groups(wanted: Sequence[EvalStep]) -> list[list[EvalStep]]:
    """Evaluations by the row that they are of: an engine loads its weights once."""
    groups: dict[Path, list[EvalStep]] = {}
    for step in wanted:
        groups.setdefault(step.row.folder.path, []).append(step)
    return list(groups.values())


class RowEvaluation:
    """One row's evaluations, carried out by one evaluator: its probes, then its tasks as one stream.

    `checkpoint` is where the row's weights are. When `stop` is set, what was answered is stored and the rest
    is not waited for."""

    def __init__(
        self, plan: Plan, wanted: Sequence[EvalStep], outcome: Outcome, stop: threading.Event | None = None
    ) -> None:
        self.plan, self.outcome, self.stop = plan, outcome, stop or threading.Event()
        self.row = wanted[0].row
        self.probes = [step for step in wanted if step.probe]
        self.tasks = [step for step in wanted if not step.probe]
        self.records: list[tuple[EvalStep, dict[str, Any]]] = []

    def carry_out(self, evaluator: Any, checkpoint: Path | None = None) -> None:
        """A row whose merge is not there is left out: that was said."""
        if not self.row.folder.complete:
            return
        try:
            self._ask(self.probes, evaluator, checkpoint)
            if self.probes and (why := probed(self.plan, self.row)):
                self.outcome.warn([f"{self.row.label} has collapsed: {'; '.join(why)}"])
            if not broken(self.plan, self.row):
                self._ask(self.tasks, evaluator, checkpoint)
        except Stopped:
            return
        self._say()

    def _ask(self, wanted: Sequence[EvalStep], evaluator: Any, checkpoint: Path | None) -> None:
        if wanted and not self.stop.is_set():
            where = checkpoint or self.row.checkpoint
            steps.evaluate(self.plan, wanted, evaluator, where, self._shown, self._finished)

    def _shown(self, step: EvalStep, done: int, total: int) -> None:
        if self.stop.is_set():
            raise Stopped
        self.outcome.screen.now("eval", step.label, done, total)

    def _finished(self, step: EvalStep, record: dict[str, Any] | Exception) -> None:
        if isinstance(record, Exception):
            self.outcome.fail(step.folder, "eval", step.label, record)
            return
        self.records.append((step, record))
        self.outcome.count(1)

    def _say(self) -> None:
        tasks = [record for step, record in self.records if not step.probe]
        if not tasks:
            return
        probed = sum(record["generated"] for step, record in self.records if step.probe)
        asked = sum(record["generated"] + record["from_store"] for record in tasks)
        stored = max(0, sum(record["from_store"] for record in tasks) - probed)  # the probe's are of this run
        spent = sum(record["seconds"]["all"] for _, record in self.records)
        again = f" · {stored} of {asked} responses from store" if stored else ""
        self.outcome.screen.done("eval", self.row.label, f"{len(tasks)} tasks  {spent:.1f} s{again}")


def probed(plan: Plan, row: RowStep) -> list[str]:
    """Why a merge's probe finds it broken; [] while its own is not complete."""
    complete = all(step.folder.complete for step in plan.probes_of(row))
    return collapse_of(plan, row, plan.probes_of) if row.is_merge and complete else []


def broken(plan: Plan, row: RowStep) -> bool:
    """Whether the rest of a row's evaluation is left out."""
    return plan.family.collapse.skip and bool(probed(plan, row))
