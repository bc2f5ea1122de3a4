"""The rounds of `prepare`: every round answers what all methods ask for, in one shared pass."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from harness.masking import lazy
from harness.merge.block import Block, InPlaceError, InputError, Unit
from harness.merge.cut import Ranker, values_of
from harness.merge.reduce import Reducer
from harness.merge.requests import Request, function_key, replaced, requests_in, signature
from harness.method import Cut

View = tuple[int, tuple]  # what of a job changes the numbers of a request: its seed, its statistics


class Asked:
    """One request and the jobs that made it; `values` has the same key for requests that rank the same
    numbers."""

    def __init__(self, request: Request, run: Any, units: list[Unit]) -> None:
        self.request, self.runs = request, [run]
        self.solver = Ranker(request, units) if isinstance(request, Cut) else Reducer(request, units)
        where = getattr(request, "where", None)
        self.values = (run.view, type(request), function_key(request.values), function_key(where))

    @property
    def alive(self) -> bool:
        return any(run.error is None for run in self.runs)

    def fail(self, error: Exception) -> None:
        """The function of a request failed: so do the jobs that made it."""
        if isinstance(error, InputError):
            raise error
        for run in self.runs:
            run.error = run.error or error

    def values_in(self, group: Block, known: dict[Any, Any]) -> Any:
        """The request's values in a block; computed once per block for all that share them."""
        if self.values not in known:
            run = self.runs[0]
            group.view(run.job.seed, run.job.scores)
            known[self.values] = (
                values_of(self.request, group)
                if isinstance(self.request, Cut)
                else self.request.values(group)
            )
        return known[self.values]


class Round:
    """What all unfinished methods wait for, answered together."""

    def __init__(
        self, runs: list[Any], units: list[Unit], group: Callable[[Unit], Block], workers: Any
    ) -> None:
        self.units, self.group, self.workers = units, group, workers
        self.passes = 0
        self._lock = threading.Lock()
        self._asked: dict[Any, Asked] = {}
        self._keys: dict[tuple[int, int], Any] = {}
        self._runs: list[Any] = []
        for run in runs:
            with run.guarded():
                for request in requests_in(run.preparation.waiting):
                    key = (run.view, signature(request))
                    self._keys[id(run), id(request)] = key
                    if key in self._asked:
                        self._asked[key].runs.append(run)
                    else:
                        self._asked[key] = Asked(request, run, units)
                self._runs.append(run)

    def answer(self, progress: Callable[[int, int], None]) -> None:
        """Read the inputs, and let every method run on to its next request."""
        trial = 0
        while open_now := self._open():
            rankers = [asked for asked in open_now if isinstance(asked.request, Cut)]
            if rankers:
                self._sample(rankers, trial)
            self._count(open_now, first=trial == 0, progress=progress)
            trial += 1
        results = {key: asked.solver.result() for key, asked in self._asked.items() if asked.alive}
        for run in self._runs:
            if run.error is None:
                with run.guarded():
                    waiting = run.preparation.waiting
                    run.preparation.answer(
                        replaced(waiting, lambda request, run=run: results[self._keys[id(run), id(request)]])
                    )

    def _open(self) -> list[Asked]:
        """Requests without an answer: all at first, later the cuts whose bracket missed."""
        return [
            asked
            for asked in self._asked.values()
            if asked.alive and (self.passes == 0 or isinstance(asked.request, Cut) and not asked.solver.done)
        ]

    def _sample(self, rankers: list[Asked], trial: int) -> None:
        """Bracket every cut. The stretches of a thread are remembered with their place, so that order is
        kept."""
        by_scope: dict[str, list[Asked]] = {}
        for asked in rankers:
            by_scope.setdefault(asked.request.scope, []).append(asked)
        for same in by_scope.values():
            wanted: dict[Unit, list[Asked]] = {}
            for asked in same:
                for unit in asked.solver.stretches(trial):
                    wanted.setdefault(unit, []).append(asked)
            found: dict[Unit, list[tuple[Asked, Any]]] = {unit: [] for unit in wanted}

            def work(unit: Unit, wanted=wanted, found=found) -> None:
                with self.group(unit) as group:
                    known: dict[Any, Any] = {}
                    for asked in wanted[unit]:
                        try:
                            values = asked.values_in(group, known)
                            values = values.numpy() if lazy(values) else values.copy()
                            found[unit].append((asked, values))
                        except Exception as error:
                            asked.fail(error)

            self.workers.each(wanted, work)
            for unit, samples in found.items():
                for asked, values in samples:
                    asked.solver.sample(unit, values)
            for asked in same:
                asked.solver.bracket()

    def _count(self, open_now: list[Asked], *, first: bool, progress: Callable[[int, int], None]) -> None:
        self.passes += 1
        units = [unit for unit in self.units if first or any(asked.solver.wants(unit) for asked in open_now)]
        done = 0

        def work(unit: Unit) -> None:
            nonlocal done
            with self.group(unit) as group:
                known: dict[Any, Any] = {}
                for asked in open_now:
                    if asked.alive:
                        try:
                            self._take(asked, unit, group, known)
                        except Exception as error:
                            asked.fail(error)
            with self._lock:
                done += 1
                progress(done, len(units))

        self.workers.each(units, work)

    def _take(self, asked: Asked, unit: Unit, group: Block, known: dict) -> None:
        solver = asked.solver
        if not isinstance(solver, Ranker):
            solver.take(group, asked.values_in(group, known))
        elif solver.wants(unit):
            counted = solver.count(unit, asked.values_in(group, known))
            with self._lock:
                solver.add(unit, counted)
        if group.written_into():
            raise InPlaceError(
                f"a request of {asked.runs[0].name} changes its input in place in `{unit.name}`",
                "work on copies: the blocks are shared by all methods",
            )
