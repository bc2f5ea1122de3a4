"""Carries a plan out in this process: merges are made while engines, in child processes, evaluate."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from harness import judging, libraries, lock, steps
from harness.evaluate.child import PATIENT
from harness.evaluate.choice import visible_gpus
from harness.evaluate.pool import engines_for
from harness.plan import EvalStep, Plan, RowStep
from harness.run import merging
from harness.run.evaluating import RowEvaluation, row_groups
from harness.run.outcome import Outcome
from harness.run.scoring import make_scores, score_groups, with_scores
from harness.run.weights import Kept, weights_of
from harness.screen import Screen


def carry_out(
    plan: Plan, screen: Screen, *, engines: int | None = None, keep_weights: str = "all", **merges: Any
) -> Outcome:
    """Do what the store lacks. A failed step is written down and does not stop the others. `keep_weights` is
    `all`, or `none`: those of merges go when they are evaluated. `merges` are keywords of
    `harness.merge.merge`; their `device` is also that of the gradients."""
    plan.store.prepare()
    patient()
    return _Run(plan, screen, **merges).all(engines, keep_weights)


def patient() -> None:
    """Set before torch is imported, which has not happened yet."""
    for name, value in PATIENT.items():
        os.environ.setdefault(name, value)


def begin(plan: Plan, outcome: Outcome) -> None:
    """Count what is stored; write the folders of the references, and the lock of the family's models."""
    merged = (row for row in plan.rows if row.is_merge)
    folders = {s.folder for s in (*plan.scores, *merged, *plan.probes, *plan.evals, *plan.judges)}
    outcome.stored = sum(folder.complete for folder in folders)
    for row in plan.rows:
        if not row.is_merge and not row.folder.complete:
            steps.write_reference(row)
    if plan.inputs:
        for line in lock.keep(plan):
            outcome.screen.note(line)


class _Run:
    """One carrying-out of one plan."""

    def __init__(self, plan: Plan, screen: Screen, **merges: Any) -> None:
        self.plan, self.outcome, self.merges = plan, Outcome(screen), merges
        self.stop, self.weights = threading.Event(), Kept()

    def all(self, engines: int | None, keep_weights: str) -> Outcome:
        plan, merges, evals = self.plan, self.plan.merges_to_make(), self.plan.evals_to_make()
        begin(plan, self.outcome)
        lost = merging.make_sources(plan, self.outcome) if merges or evals else set()
        groups = row_groups([step for step in evals if step.row.checkpoint not in lost])
        log, settings = plan.store.root / "log", plan.family.engine
        with (
            weights_of(plan, keep_weights, self.outcome) as self.weights,
            engines_for(len(row_groups(evals)), engines, log, plan.engine, settings) as evaluators,
        ):
            if evals:  # while the engines start
                libraries.load(libraries.EVALUATION)
            self.make_all(merges, groups, evaluators)
        # the engines are gone: a judge may need their memory
        self.outcome.count(judging.judge_all(plan, self.outcome.screen, self.outcome.fail))
        return self.outcome

    def make_all(self, merges: Sequence[RowStep], groups: Sequence[list[EvalStep]], evaluators: list) -> None:
        """Scores, then merges; meanwhile the rows whose weights are there are evaluated, then the merges. A
        GPU is not shared: the former wait while gradients are computed on it."""
        scores, wanted = score_groups(self.plan, merges), {row.folder.path for row in merges}
        ready = [group for group in groups if group[0].row.folder.path not in wanted]
        asked = {group[0].row.folder.path: group for group in groups}
        shared = bool(visible_gpus()) and self.merges.get("device") != "cpu"
        trains = shared and any(row.recipe.rows for row in merges)
        first = not trains and not (shared and scores)
        with self.evaluating(evaluators) as waiting:
            self._queue(waiting, ready, first)
            if merges:
                merging.check_inputs(self.plan, self.outcome)
                for group in scores:
                    make_scores(self.plan, group, self.outcome, self.merges.get("device", "auto"))
                self._queue(waiting, ready, not first and not trains)
                for wave in self.weights.waves(with_scores(merges, self.outcome)):
                    there = self.make_wave(wave, set(asked))
                    self._queue(waiting, ready, trains)  # what trains is in the first wave
                    self._queue(waiting, [asked[path] for path in there])
                    trains = False
            self._queue(waiting, ready, trains)

    def make_wave(self, wave: Sequence[RowStep], asked: set[Path]) -> list[Path]:
        """Make merges in shared passes; those of the folders `asked` that can be evaluated now."""
        weights = self.weights
        placed = weights.place(wave)
        made = merging.make_merges(self.plan, placed, self.outcome, weights.keep, **self.merges)
        there = [row.folder.path for row in made if row.folder.path in asked]
        for row in wave:
            if row.folder.path not in there:
                weights.release(row)
        return there

    def _queue(self, waiting: Any, groups: Sequence[list[EvalStep]], now: bool = True) -> None:
        for group in groups if now else ():
            waiting.put(group)

    @contextlib.contextmanager
    def evaluating(self, evaluators: list) -> Iterator[queue.SimpleQueue]:
        """A queue of rows, handed to the engines as they get free; an engine loads a row's weights once."""
        waiting: queue.SimpleQueue = queue.SimpleQueue()
        with ThreadPoolExecutor(max(1, len(evaluators))) as pool:
            futures = [pool.submit(self._evaluate, waiting, evaluator) for evaluator in evaluators]
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

    def _evaluate(self, waiting: queue.SimpleQueue, evaluator: Any) -> None:
        """One engine's rows; while one is scored, the next is asked."""
        asked: list[RowEvaluation] = []
        try:
            while (group := waiting.get()) is not None and not self.stop.is_set():
                asked.append(RowEvaluation(self.plan, group, self.outcome, self.stop))
                asked[-1].ask(evaluator, self.weights.of(group[0].row))
                if not self.stop.is_set():
                    self.weights.release(group[0].row)
                if len(asked) > 1:
                    asked.pop(0).finish()
            for one in asked:
                one.finish()
            if not self.stop.is_set():  # while other engines still answer; whom it matters to says what fails
                with contextlib.suppress(Exception):
                    libraries.load(*libraries.REPORTS)
        except BaseException:  # a defect: whoever waits for this thread's rows is told
            self.weights.give_up()
            raise
