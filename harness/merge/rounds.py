"""The rounds of `prepare`: every round answers what all methods ask for, in one shared pass."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from harness.masking import lazy
from harness.merge.block import Block, InPlaceError, InputError, Unit
from harness.merge.cut import Ranker, values_of
from harness.merge.reduce import Later, Reducer
from harness.merge.requests import Request, can_wait, function_key, replaced, requests_in, signature
from harness.method import Cut

View = tuple[str, int, tuple]  # what of a job changes the numbers of a request: its buffers, seed, statistics


class Asked:
    """One request and the jobs that made it; `values` has the same key for requests that rank the same
    numbers."""

    def __init__(self, request: Request, run: Any, units: list[Unit]) -> None:
        self.request, self.runs, self.kind = request, [run], run.kind
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


class Postponed:
    """Requests that the pass of the next ones answers on its way: every tensor is read for them first."""

    def __init__(self, units: list[Unit]) -> None:
        self.units = units
        self._asked: dict[Any, tuple[Asked, Later]] = {}

    def take(self, run: Any) -> None:
        """Let a method run on past what it can have later."""
        with run.guarded():
            while run.preparation.asks and can_wait(run.preparation.waiting):
                run.preparation.answer(
                    replaced(run.preparation.waiting, lambda request: self._later(request, run))
                )

    def _later(self, request: Request, run: Any) -> Later:
        key = (run.view, signature(request))
        if key not in self._asked:
            asked = Asked(request, run, self.units)
            self._asked[key] = asked, Later(asked.solver)
        else:
            self._asked[key][0].runs.append(run)
        return self._asked[key][1]

    def claimed(self) -> list[tuple[Asked, Later]]:
        """What is to be answered now; it is not claimed twice."""
        claimed, self._asked = [pair for pair in self._asked.values() if pair[0].alive], {}
        return claimed


class Gates:
    """Lets nobody count in a tensor before all its blocks are read for what was postponed."""

    def __init__(self, units: list[Unit], opened: Callable[[str], None]) -> None:
        self._left, self._lock, self._opened = Counter(unit.name for unit in units), threading.Lock(), opened
        self._open = {name: threading.Event() for name in self._left}

    def read(self, name: str) -> None:
        with self._lock:
            self._left[name] -= 1
            last = self._left[name] == 0
        if last:
            try:
                self._opened(name)
            finally:
                self._open[name].set()

    def wait(self, name: str) -> None:
        """Whoever reads the blocks began before: they are handed out in order."""
        if name in self._open:
            self._open[name].wait()


class Round:
    """What all unfinished methods wait for, answered together; `postponed` in the first pass, before it."""

    def __init__(
        self,
        runs: list[Any],
        units: list[Unit],
        group: Callable[[Unit, str], Block],
        workers: Any,
        postponed: list[tuple[Asked, Later]],
    ) -> None:
        self.units, self.group, self.workers = units, group, workers
        self.passes = 0
        self._postponed = postponed
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
        while (open_now := self._open()) or (self._postponed and not self.passes):
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
        by_scope: dict[tuple[str, str], list[Asked]] = {}
        for asked in rankers:
            by_scope.setdefault((asked.kind, asked.request.scope), []).append(asked)
        for (kind, _), same in by_scope.items():
            wanted: dict[Unit, list[Asked]] = {}
            for asked in same:
                for unit in asked.solver.stretches(trial):
                    wanted.setdefault(unit, []).append(asked)
            found: dict[Unit, list[tuple[Asked, Any]]] = {unit: [] for unit in wanted}

            def work(unit: Unit, kind=kind, wanted=wanted, found=found) -> None:
                with self.group(unit, kind) as group:
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
        before = [asked for asked, _ in self._postponed] if first else []
        gates = Gates(units if before else [], self._read)
        done = 0

        def work(item: tuple[Unit, list[Asked]]) -> None:
            nonlocal done
            unit, asked = item
            if asked is before:
                try:
                    self._answer(unit, asked)
                finally:
                    gates.read(unit.name)
                return
            gates.wait(unit.name)
            self._answer(unit, asked)
            with self._lock:
                done += 1
                progress(done, len(units))

        self.workers.each(_in_order(units, before, open_now), work)

    def _read(self, name: str) -> None:
        """All blocks of a tensor have been read for what was postponed."""
        for asked, later in self._postponed:
            if asked.alive:
                later.read(name)

    def _answer(self, unit: Unit, wanted: list[Asked]) -> None:
        for kind in dict.fromkeys(asked.kind for asked in wanted):
            self._answer_in(kind, unit, [asked for asked in wanted if asked.kind == kind])

    def _answer_in(self, kind: str, unit: Unit, wanted: list[Asked]) -> None:
        with self.group(unit, kind) as group:
            known: dict[Any, Any] = {}
            for asked in wanted:
                if asked.alive:
                    try:
                        self._take(asked, unit, group, known)
                    except Exception as error:
                        asked.fail(error)

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


def _in_order(
    units: list[Unit], before: list[Asked], wanted: list[Asked]
) -> Iterator[tuple[Unit, list[Asked]]]:
    """The blocks, each with what is asked of it: those of a tensor twice where something comes `before`."""
    for _, own in itertools.groupby(units, lambda unit: unit.name):
        own = list(own)
        if before:
            yield from ((unit, before) for unit in own)
        yield from ((unit, wanted) for unit in own)
