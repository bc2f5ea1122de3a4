"""Where merged weights lie until they are evaluated: in their rows' folders for good, or in memory."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness import inputs, spool
from harness.checkpoint import fit
from harness.checkpoint.identity import TOKENIZER_FILES, present
from harness.plan import Plan, RowStep
from harness.run.outcome import Outcome
from harness.steps import KEPT

BESIDE = 1 << 20  # bytes of config, card and index beside weights and tokenizer
ROOM = 256 << 20  # bytes that merges leave free for whatever else runs


class Kept:
    """Weights stay in the rows' folders, and all merges share one set of passes."""

    keep = True

    def waves(self, rows: Sequence[RowStep]) -> list[list[RowStep]]:
        """Merges that share passes and lie there together; those that train come first."""
        return [list(rows)] if rows else []

    def place(self, wave: Sequence[RowStep]) -> list[RowStep]:
        """The rows with the folders that they are merged into, once there is room for them."""
        return list(wave)

    def of(self, row: RowStep) -> Path:
        """Where a row's weights are."""
        return row.checkpoint

    def release(self, row: RowStep) -> None:
        """The row is evaluated, or will not be."""

    def give_up(self) -> None:
        """Nobody will be evaluated any more: `place` does not wait."""


class Volatile(Kept):
    """Weights lie in shared memory, and go when their row is evaluated. Waves are as large as half of it; one
    is merged while the one before is evaluated. What no memory holds lies in the store, and goes as well.

    A method that builds its model itself (`build`) does so in the row's folder, where it finds what a killed
    run had begun."""

    keep = False

    def __init__(self, plan: Plan, outcome: Outcome) -> None:
        self.plan, self.outcome = plan, outcome
        self._stack, self._where = contextlib.ExitStack(), plan.store.root / "spool"
        self._at: dict[Path, Path] = {}  # by the row's folder
        self._wave: dict[Path, int] = {}  # of those that are not released
        self._waves = self._each = 0
        self._over = False
        self._changed = threading.Condition()

    def waves(self, rows: Sequence[RowStep]) -> list[list[RowStep]]:
        streamed, built = [row for row in rows if _streams(row)], [row for row in rows if not _streams(row)]
        count = self._open() if streamed else 0
        parts = [streamed[at : at + count] for at in range(0, len(streamed), max(count, 1))]
        return [*([built] if built else []), *parts]

    def _open(self) -> int:
        """Choose the place; the merges that it holds at once."""
        self._each, room = output_bytes(self.plan), spool.free(spool.MEMORY)
        if self._each <= room // 2 and spool.usable(spool.MEMORY):
            self._where = spool.MEMORY
        else:
            self._where.mkdir(parents=True, exist_ok=True)
            self.outcome.screen.note(
                f"a merge takes {self._each / 1e9:.2f} GB, more than half of what {spool.MEMORY} has free "
                f"({room / 1e9:.2f} GB): weights lie in {self._where} until they are evaluated"
            )
        self._spool = self._stack.enter_context(spool.Spool(self._where))
        return max(1, spool.free(self._where) // 2 // self._each)

    def place(self, wave: Sequence[RowStep]) -> list[RowStep]:
        self._wait(sum(map(_streams, wave)) * self._each)
        placed = [
            dataclasses.replace(row, checkpoint=self._spool.path / row.folder.path.name)
            if _streams(row)
            else row
            for row in wave
        ]
        with self._changed:
            self._waves += 1
            self._at |= {row.folder.path: row.checkpoint for row in placed}
            self._wave |= {row.folder.path: self._waves for row in placed}
        return placed

    def _wait(self, nbytes: int) -> None:
        """Until there is room beside the wave that is evaluated."""
        with self._changed:
            while self._wave and not self._over:
                waves = len(set(self._wave.values()))
                if waves < 2 and spool.free(self._where) >= nbytes + ROOM:
                    return
                self._changed.wait(1.0)

    def of(self, row: RowStep) -> Path:
        return self._at.get(row.folder.path, row.checkpoint)

    def release(self, row: RowStep) -> None:
        path = self._at.get(row.folder.path)
        if path is None and row.is_merge and row.folder.done().get(KEPT) is False:
            path = row.checkpoint  # built by a run that was killed
        if path == row.checkpoint and row.folder.complete:
            shutil.rmtree(path, ignore_errors=True)
        elif path is not None and path != row.checkpoint:
            self._spool.remove(path)
        with self._changed:
            self._wave.pop(row.folder.path, None)
            self._changed.notify_all()

    def give_up(self) -> None:
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def close(self) -> None:
        self._stack.close()


@contextlib.contextmanager
def weights_of(plan: Plan, keep: str, outcome: Outcome) -> Iterator[Kept]:
    """The weights of a run that keeps `all` or `none`. What killed runs have left in memory is removed."""
    for place in (spool.MEMORY, plan.store.root / "spool"):
        spool.sweep(place)
    if keep == "all":
        yield Kept()
        return
    weights = Volatile(plan, outcome)
    try:
        yield weights
    finally:
        weights.close()


def _streams(row: RowStep) -> bool:
    """Whether the merge engine writes the row's model; a whole-model method does so itself."""
    return hasattr(row.method, "merge")


def output_bytes(plan: Plan) -> int:
    """Bytes of one merge's folder: the base's tensors, the donor's tokenizer."""
    tensors = fit.outputs(inputs.opened(plan).base).values()
    donor = plan.inputs[plan.donor]
    texts = sum((donor / name).stat().st_size for name in present(donor, TOKENIZER_FILES))
    return sum(info.nbytes for info in tensors) + texts + BESIDE
