"""Carries a plan out in this process: scores, one merge pass, evaluations; each kept in the store."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import queue
import threading
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import inputs, judging, lock, steps
from harness.collapse import collapse_of
from harness.errors import HarnessError
from harness.evaluate.pool import GPU, engines_for
from harness.plan import EvalStep, Plan, RowStep, ScoreStep
from harness.screen import Screen
from harness.store import Folder, reachable, write_text


@dataclass
class Outcome:
    """Steps by what became of them; exit code 1 when some failed."""

    stored: int = 0
    made: int = 0
    failed: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        return 1 if self.failed else 0


def carry_out(plan: Plan, screen: Screen, *, engines: int | None = None, **engine: Any) -> Outcome:
    """Do what the store lacks. A failed step is written down and does not stop the others. `engine` are
    keywords of `harness.merge.merge`; its `device` is also that of the gradients."""
    plan.store.prepare()
    return _Run(plan, screen, **engine).all(engines)


def merge_to(plan: Plan, to: Path, screen: Screen, **engine: Any) -> None:
    """Make the plan's one merge into the folder `to`; its gradient statistics stay in the store. `engine` are
    keywords of `harness.merge.merge`."""
    row = dataclasses.replace(plan.rows[0], checkpoint=to)
    scores, run = plan.scores_to_make([row]), _Run(plan, screen, **engine)
    if scores:
        plan.store.prepare()
    run.make_sources()
    run.check_inputs(lineage=False)  # it costs as much as the merge
    if run.make_scores(scores):
        raise HarnessError(run.outcome.failed[0], "traceback.txt in the step's folder says more")
    with reachable(to):
        (record,) = steps.merge_jobs(plan, [row], lambda *part: screen.now("merge", *part), **engine)
    run.warn_of(row, record)
    screen.done("merge", row.label, f"{sum(record['seconds'].values()):.1f} s")


# Without these, OpenMP threads spin while they wait: on a busy machine that costs ten times the work itself.
PATIENT = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}


class _Stopped(BaseException):
    """The run was interrupted while an engine was answering; not a failure of the step."""


class _Run:
    """One carrying-out of one plan."""

    def __init__(self, plan: Plan, screen: Screen, **engine: Any) -> None:
        for name, value in PATIENT.items():  # read when torch is imported, which has not happened yet
            os.environ.setdefault(name, value)
        self.plan, self.screen, self.outcome = plan, screen, Outcome()
        self.stop, self.said, self.engine = threading.Event(), set(), engine
        self.lost: set[Path] = set()  # checkpoints that could not be converted

    def all(self, engines: int | None) -> Outcome:
        plan, merges, evals = self.plan, self.plan.merges_to_make(), self.plan.evals_to_make()
        merged = (row for row in plan.rows if row.is_merge)
        folders = {s.folder for s in (*plan.scores, *merged, *plan.probes, *plan.evals, *plan.judges)}
        self.outcome.stored = sum(folder.complete for folder in folders)
        for row in plan.rows:
            if not row.is_merge and not row.folder.complete:
                steps.write_reference(row)
        if plan.inputs:
            for line in lock.keep(plan):
                self.screen.note(line)
        if merges or evals:
            self.make_sources()
        rows = len({step.row.folder.path for step in evals})
        with engines_for(rows, engines, plan.store.root / "log") as evaluators:
            if evals:  # while the engines start
                steps.load_libraries()
            self.make_all(merges, evals, evaluators)
        # the engines are gone: a judge may need their memory
        self.outcome.made += judging.judge_all(plan, self.screen, self.fail)
        return self.outcome

    def make_all(self, merges: Sequence[RowStep], evals: Sequence[EvalStep], evaluators: list) -> None:
        """Scores, then merges; meanwhile the reference rows are evaluated, then the merges. A GPU is not
        shared: the reference rows wait while gradients are computed on it."""
        scores = self.plan.scores_to_make(merges)
        groups = _by_row([step for step in evals if step.row.checkpoint not in self.lost])
        references = [group for group in groups if not group[0].row.is_merge]
        shared = GPU.exists() and self.engine.get("device") != "cpu"
        trains = shared and any(row.recipe.rows for row in merges)
        first = not trains and not (shared and scores)
        with self.evaluating(evaluators) as waiting:
            self._queue(waiting, references, first)
            if merges:
                self.check_inputs()
                failed = self.make_scores(scores)
                self._queue(waiting, references, not first and not trains)
                self.make_merges(self._with_scores(merges, failed))
            self._queue(waiting, references, trains)
            self._queue(waiting, [group for group in groups if group[0].row.is_merge])

    def _queue(self, waiting: Any, groups: Sequence[list[EvalStep]], now: bool = True) -> None:
        for group in groups if now else ():
            waiting.put(group)

    def make_sources(self) -> None:
        """Convert what is not stored as safetensors. A row that cannot be converted fails alone; a model that
        is merged stops the run."""
        self.warn(inputs.make(self.plan, lambda what: self.screen.now("convert", what), self.unconverted))

    def unconverted(self, path: Path, error: HarnessError) -> None:
        self.lost.add(path)
        for row in [row for row in self.plan.rows if row.checkpoint == path]:
            self.fail(row.folder, "convert", row.label, error)

    def check_inputs(self, lineage: bool = True) -> None:
        """Stop on models that do not fit together; warn of what is merely odd."""
        show = lambda i, n: self.screen.now("check", "the models", i, n)  # noqa: E731
        self.warn(inputs.check(self.plan, show if lineage else None))

    def warn(self, warnings: Sequence[str]) -> None:
        """Say each warning once."""
        for warning in warnings:
            if warning not in self.said:
                self.said.add(warning)
                self.screen.note(warning)

    def warn_of(self, row: RowStep, record: dict[str, Any]) -> None:
        """Say a merge's warnings; those about its masks are about this row alone."""
        own = record.get("mask_warnings", ())
        self.warn([f"{row.label}: {w}" if w in own else w for w in record.get("warnings", ())])

    def fail(self, folder: Folder, kind: str, what: str, error: BaseException | str) -> None:
        """Write a failure down and go on."""
        folder.path.mkdir(parents=True, exist_ok=True)
        if isinstance(error, BaseException) and not isinstance(error, HarnessError):
            write_text(folder.path / "traceback.txt", "".join(traceback.format_exception(error)))
            error = f"{type(error).__name__}: {error}"
        write_text(folder.path / "error.txt", f"{error}\n")
        self.screen.failed(kind, what, str(error))
        self.outcome.failed.append(f"{kind} {what}: {error}")

    def make_scores(self, wanted: Sequence[ScoreStep]) -> set[Path]:
        """Compute gradient statistics; the folders of those that failed."""
        groups: dict[str, list[ScoreStep]] = {}
        for step in wanted:
            groups.setdefault(step.recipe.together, []).append(step)
        failed = set()
        for group in groups.values():
            what = ", ".join(step.label for step in group)
            if any(read.folder.path in failed for step in group for read in step.after):
                for step in group:
                    self.fail(step.folder, "scores", step.label, "a statistic that it reads failed")
                    failed.add(step.folder.path)
                continue
            self.screen.now("scores", what)
            try:
                show = lambda i, n, w=what: self.screen.now("scores", w, i, n)  # noqa: E731
                record = steps.compute_scores(group, self.plan, show, self.engine.get("device", "auto"))
            except HarnessError:
                raise
            except Exception as error:
                for step in group:
                    self.fail(step.folder, "scores", step.label, error)
                    failed.add(step.folder.path)
            else:
                self.outcome.made += len(group)
                self.screen.done("scores", what, f"{record['seconds']['scores']:.1f} s")
        return failed

    def _with_scores(self, merges: Sequence[RowStep], failed: set[Path]) -> list[RowStep]:
        ready = []
        for row in merges:
            if any(step.folder.path in failed for step in row.scores.values()):
                self.fail(row.folder, "merge", row.label, "a gradient statistic that it reads failed")
            else:
                ready.append(row)
        return ready

    def make_merges(self, rows: list[RowStep]) -> None:
        """All merges in shared passes. A method whose code fails does not stop the others."""
        if not rows:
            return
        what = rows[0].label if len(rows) == 1 else f"{len(rows)} merges in shared passes"
        self.screen.now("merge", what)
        records = steps.merge_rows(
            self.plan,
            rows,
            lambda part, i, n: self.screen.now("merge", f"{what}, {part}", i, n),
            **self.engine,
        )
        made = [record for record in records if record["error"] is None]
        for row, record in zip(rows, records, strict=True):
            if record["error"] is not None:
                self.fail(row.folder, "merge", row.label, record["error"])
            self.warn_of(row, record)
        self.outcome.made += len(made)
        if made:
            self.screen.done("merge", what, f"{sum(made[0]['seconds'].values()):.1f} s")

    @contextlib.contextmanager
    def evaluating(self, evaluators: list) -> Iterator[queue.SimpleQueue]:
        """A queue of rows, handed to the engines as they get free; an engine loads a row's weights once."""
        waiting: queue.SimpleQueue = queue.SimpleQueue()

        def work(evaluator: Any) -> None:
            while (group := waiting.get()) is not None and not self.stop.is_set():
                self.evaluate_row(group, evaluator)

        with ThreadPoolExecutor(max(1, len(evaluators))) as pool:
            futures = [pool.submit(work, evaluator) for evaluator in evaluators]
            try:
                yield waiting
                for _ in evaluators:
                    waiting.put(None)
                for future in futures:
                    future.result()
            except BaseException:
                self.stop.set()
                for _ in evaluators:
                    waiting.put(None)
                raise

    def evaluate_row(self, wanted: list[EvalStep], evaluator: Any) -> None:
        """A row's probes, then its tasks."""
        row, records, probed = wanted[0].row, [], 0
        if not row.folder.complete:  # its merge failed, and that was said
            return
        for step in wanted:
            if self.stop.is_set() or (not step.probe and self.broken(row)):
                break
            self.screen.now("eval", step.label)
            try:
                record = steps.evaluate(self.plan, step, evaluator, lambda i, n, s=step: self._asked(s, i, n))
            except _Stopped:
                return
            except Exception as error:
                self.fail(step.folder, "eval", step.label, error)
                continue
            self.outcome.made += 1
            records.append((step, record))
            probed += record["generated"] if step.probe else 0
            if step.probe and (why := self.probed(row)):
                self.warn([f"{row.label} has collapsed: {'; '.join(why)}"])
        self._say_evaluated(row, records, probed)

    def _asked(self, step: EvalStep, done: int, total: int) -> None:
        if self.stop.is_set():  # Ctrl-C: what was answered is stored, the rest is not waited for
            raise _Stopped
        self.screen.now("eval", step.label, done, total)

    def _say_evaluated(self, row: RowStep, records: list[tuple[EvalStep, dict]], probed: int) -> None:
        tasks = [record for step, record in records if not step.probe]
        if not tasks:
            return
        asked = sum(record["generated"] + record["from_store"] for record in tasks)
        stored = max(0, sum(record["from_store"] for record in tasks) - probed)  # the probe's are of this run
        spent = sum(record["seconds"]["all"] for _, record in records)
        again = f" · {stored} of {asked} responses from store" if stored else ""
        self.screen.done("eval", row.label, f"{len(tasks)} tasks  {spent:.1f} s{again}")

    def probed(self, row: RowStep) -> list[str]:
        """Why a merge's probe finds it broken; [] while its own is not complete."""
        complete = all(step.folder.complete for step in self.plan.probes_of(row))
        return collapse_of(self.plan, row, self.plan.probes_of) if row.is_merge and complete else []

    def broken(self, row: RowStep) -> bool:
        """Whether the rest of a row's evaluation is left out."""
        return self.plan.family.collapse.skip and bool(self.probed(row))


def _by_row(wanted: Sequence[EvalStep]) -> list[list[EvalStep]]:
    groups: dict[Path, list[EvalStep]] = {}
    for step in wanted:
        groups.setdefault(step.row.folder.path, []).append(step)
    return list(groups.values())
