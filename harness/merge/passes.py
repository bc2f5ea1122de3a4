"""The passes over the inputs: the rounds of `prepare`, and the one that writes. Torch comes with the buffers
that need it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from harness.checkpoint import fit
from harness.checkpoint.part import of_the_disk
from harness.checkpoint.read import FLOATS, SIZES, Checkpoint, TensorInfo
from harness.errors import HarnessError
from harness.masking import lazy
from harness.measure import peak_mib
from harness.merge.block import (
    BASE,
    Block,
    InPlaceError,
    InputError,
    Sources,
    Unit,
    mergeable,
    place_of,
    units_of,
)
from harness.merge.fused.tallies import TOGETHER, Stored, carry_out
from harness.merge.masks import Figures, Pairs
from harness.merge.requests import Preparation
from harness.merge.rounds import Postponed, Round
from harness.merge.underway import Run
from harness.merge.workers import Workers
from harness.method import Layout


class Passes:
    """The passes over the inputs that all streaming jobs of a merge share."""

    def __init__(
        self,
        inputs: Any,
        runs: list[Run],
        workers: Workers,
        progress: Callable[[str, int, int], None],
        allow_nonfinite: bool,
    ) -> None:
        self.inputs, self.runs, self.workers, self.progress = inputs, runs, workers, progress
        self.seconds: dict[str, float] = {}
        self.passes = 0
        self.sources = Sources(allow_nonfinite)
        self.roles = tuple(inputs.experts)
        wanted = fit.outputs(inputs.base)
        self.weights = {name: info for name, info in wanted.items() if mergeable(info)}
        self.copied = {name: info for name, info in wanted.items() if name not in self.weights}
        self.units = units_of(self.weights, workers.block)
        layers = [layer for layer, _ in map(place_of, wanted) if layer is not None]
        self.depth = max(layers, default=-1) + 1
        self.sources.places[BASE] = inputs.base.tensors
        for role, expert in inputs.experts.items():
            self.sources.places["expert", role] = fit.matched(inputs.base, expert, role)
        for one in runs:
            for key, scores in one.job.scores.items():
                self.sources.places["statistic", str(scores.path)] = self._statistic(key, scores)
            if one.job.masks is not None:
                one.figures = Figures(one.job.method, self.roles)
        self._lock = threading.Lock()

    def carry_out(self, warnings: list[str]) -> None:
        """Prepare, write and finish every job. One whose folder cannot be had is left out."""
        for one in self.runs:
            with one.guarded():
                one.record = one.output.open()
                one.resumed = len(one.output.done)
        self._timed("prepare", self._prepare)
        self._timed("merge", self._merge)
        for one in self._alive():
            with one.guarded():
                record, masks = self._record(one, warnings), None
                if one.figures:
                    tallies = {name: one.output.facts[name] for name in self.weights}
                    masks, said = one.figures.written({n: t for n, t in tallies.items() if t})
                    record |= {"warnings": [*warnings, *said], "mask_warnings": said}
                record["warnings"] = [*record["warnings"], *one.output.finish(record, masks)]
                one.record = record

    def close(self) -> None:
        """Work that an error has ended for good is deleted; what the disk or a kill ended can be resumed."""
        self.sources.reader.close()
        for one in self.runs:
            if one.error is not None and not of_the_disk(one.error):
                one.output.discard()
            one.output.close()

    def _timed(self, phase: str, work: Callable[[], None]) -> None:
        begun = time.perf_counter()
        work()
        self.seconds[phase] = round(time.perf_counter() - begun, 4)

    def _alive(self) -> list[Run]:
        """The jobs that go on: neither failed nor finished."""
        return [one for one in self.runs if one.error is None and one.record is None]

    def _group(self, unit: Unit, kind: str) -> Block:
        buffers = self.workers.buffers(kind)
        if hasattr(buffers, "begin"):
            buffers.begin(unit.offset, unit.length)
        return Block(unit, self.depth, self.sources, buffers, self.roles)

    def _prepare(self) -> None:
        for one in self._alive():
            if one.output.done >= set(self.weights):
                continue  # killed when all was written
            with one.guarded():
                one.preparation = Preparation(
                    one.job.method, Layout(self.roles, tuple(self.weights), one.job.seed)
                )
        preparing = [one for one in self._alive() if one.preparation]
        postponed = Postponed(self.units)
        while True:
            for one in preparing:
                postponed.take(one)
            waiting = [one for one in preparing if one.error is None and one.preparation.asks]
            if not (now := postponed.claimed()) and not waiting:
                break
            asked = Round(waiting, self.units, self._group, self.workers, now)
            asked.answer(lambda done, total: self.progress("prepare", done, total))
            self.passes += asked.passes

    def _merge(self) -> None:
        for one in self._alive():
            one.left = Counter(unit.name for unit in self.units if unit.name not in one.output.done)
            for name, info in self.weights.items():
                if info.numel == 0 and name not in one.output.done:
                    one.output.written(name, {})
        units = [unit for unit in self.units if any(unit.name in one.left for one in self._alive())]
        done = 0

        def work(unit: Unit) -> None:
            nonlocal done
            wanted = [one for one in self._alive() if unit.name in one.left]
            for kind in dict.fromkeys(one.kind for one in wanted):
                with self._group(unit, kind) as group:
                    self._merge_into(group, [one for one in wanted if one.kind == kind])
            with self._lock:
                done += 1
                self.progress("merge", done, len(units))

        self.passes += bool(units)
        self.workers.each(units, work)
        self._copy()

    def _merge_into(self, group: Block, runs: list[Run]) -> None:
        """One block of every output. Lazy ones are computed together, others one by one."""
        held: list[tuple[Run, Stored]] = []
        for one in runs:
            begun = time.perf_counter()
            if (made := self._merged(one, group)) is None:
                continue
            code, _ = one.output.tensors[group.name]
            if lazy(made[0]):
                others = [stored for _, stored in held]
                held.append((one, Stored(made[0], code, group, one.figures, made[1], others)))
            else:
                self._store(one, group, *self._computed(*made, code, group, one.figures))
            self._took(one, time.perf_counter() - begun)
            if len(held) == TOGETHER:
                self._carry_out(group, held)
                held = []
        self._carry_out(group, held)

    def _carry_out(self, group: Block, held: list[tuple[Run, Stored]]) -> None:
        if not held:
            return
        begun = time.perf_counter()
        done = carry_out([stored for _, stored in held])
        share = (time.perf_counter() - begun) / len(held)
        for (one, _), made in zip(held, done, strict=True):
            self._store(one, group, *made)
            self._took(one, share)

    def _took(self, one: Run, seconds: float) -> None:
        with self._lock:
            one.method_seconds += seconds

    def _merged(self, one: Run, group: Block) -> tuple[Any, Pairs] | None:
        """The merged block and its masks; None when the method fails, which ends its job."""
        masks: Pairs = {}
        try:
            merged = one.job.method.merge(group.view(one.job.seed, one.job.scores), one.preparation.state)
            if what := group.buffers.unlike(merged, group.length):
                raise HarnessError(
                    f"{one.name} returned {what} for a block of {group.length} elements of `{group.name}`",
                    "return the merged block, a 1-D tensor",
                )
            if one.figures:
                masks = one.figures.masks(group, one.preparation.state)
        except InputError:
            raise
        except Exception as error:
            one.error = error
            return None
        if group.written_into():
            raise InPlaceError(
                f"{one.name} changes its input in place in `{group.name}`",
                "work on copies: the blocks are shared by all methods",
            )
        return merged, masks

    def _computed(
        self, merged: Any, masks: Pairs, code: str, group: Block, figures: Figures | None
    ) -> tuple[Any, int, Any]:
        """As `carry_out`, of a block that is computed already: rounded once to the stored dtype, counted."""
        buffers = group.buffers
        bad = 0 if self.sources.allow_nonfinite else buffers.unstorable(merged, code)
        data = None if bad else buffers.stored(merged, code)
        return data, bad, None if bad or figures is None else figures.part(group, masks, data, code)

    def _store(self, one: Run, group: Block, data: Any, bad: int, part: Any) -> None:
        """Put a block in its place."""
        code, _ = one.output.tensors[group.name]
        if bad:
            one.error = HarnessError(
                f"{one.name} made {bad} values in `{group.name}` that {FLOATS[code]} cannot hold",
                "check its parameters, or store a wider dtype",
            )
            return
        if one.figures:
            one.figures.add(group.name, part)
        one.output.write(group.name, group.offset * SIZES[code], data)
        with self._lock:
            one.left[group.name] -= 1
            last = one.left[group.name] == 0
        if last:
            one.output.written(group.name, one.figures and one.figures.tensor(group.name))

    def _copy(self) -> None:
        """Tensors of whole numbers, from the base as they are."""
        for one in self._alive():
            for name, info in self.copied.items():
                if name not in one.output.done:
                    data = memoryview(bytearray(info.nbytes))
                    self.sources.reader.read(info, 0, data)
                    one.output.write(name, 0, data)
                    one.output.written(name, {})

    def _statistic(self, key: str, scores: Checkpoint) -> dict[str, TensorInfo]:
        """The statistic's tensors for the model's weights. Raises `HarnessError` when one is missing or
        unlike."""
        for name, info in self.weights.items():
            found = scores.tensors.get(name)
            if found is None or found.shape != info.shape or found.dtype not in FLOATS:
                held = "nothing" if found is None else f"{found.dtype} {list(found.shape)}"
                raise HarnessError(
                    f"statistic `{key}` ({scores.path}) has {held} for `{name}` {list(info.shape)}",
                    "compute it again for these models",
                )
        return scores.tensors

    def _record(self, one: Run, warnings: list[str]) -> dict[str, Any]:
        return {
            "seconds": dict(self.seconds),
            "method_seconds": round(one.method_seconds, 4),
            "peak_mib": peak_mib(),
            "bytes_read": self.sources.reader.nbytes,
            "bytes_written": one.output.layout.nbytes,
            "passes": self.passes,
            "resumed": one.resumed,
            "warnings": warnings,
        }
