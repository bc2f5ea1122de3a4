"""The private folder of one training, `.NAME.part` beside the wanted one. Torch-free.

    .NAME.part/training/   what the work needs to go on: targets, checkpoint, losses
    .NAME.part/model/      the model; it gets the wanted name when it is whole, by one rename

What the training is made of is hashed into a key; work under another key is thrown away."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

from harness.checkpoint.part import MARK, Part, of_the_disk
from harness.errors import HarnessError
from harness.store import reachable

__all__ = ["CURVE", "MARK", "Work"]
CURVE = "training.jsonl"  # in a finished folder: the losses, one line per step


class Work:
    """`with Work(to, key) as work:` holds the folder; `finish` gives the model its name.

    Leaving with a `HarnessError` deletes the work, which can never be finished; any other exception leaves it
    to be resumed, and so does an error of the disk when there is something to resume."""

    def __init__(self, to: Path, key: str, replace: bool = False) -> None:
        self.to, self.replace, self._work = Path(to), replace, Part(to, key)
        self.part = self._work.path
        self.training, self.model = self.part / "training", self.part / "model"

    @property
    def finished(self) -> dict[str, Any] | None:
        """The record of an earlier training of exactly this; None if there is none. Refuses other content of
        `to`."""
        record = None if self._work.vacant() else self._work.earlier()
        if record is None and not (self._work.vacant() or self.replace):
            raise self._work.occupied()
        return record

    def __enter__(self) -> Work:
        with reachable(self.part):
            self._work.lock()
            try:
                self._begin()
            except BaseException as error:
                self.__exit__(None, error, None)
                raise
        return self

    def __exit__(self, _: Any, error: BaseException | None, __: Any) -> None:
        if isinstance(error, HarnessError):
            if not (of_the_disk(error) and any(self.training.glob("*"))):
                self._work.discard()
        self._work.unlock()

    def finish(self, record: dict[str, Any]) -> None:
        """The model is whole: name it, delete what the training left, and let go."""
        shutil.copyfile(self.training / CURVE, self.model / CURVE)
        self._work.mark(self.model, record)
        if self.to.exists() and self.replace:
            shutil.rmtree(self.to)
        os.rename(self.model, self.to)
        self._work.discard()

    def sweep(self) -> None:
        """Delete what a kill left after the model had its name, unless another process works there."""
        if self.part.exists():
            with contextlib.suppress(HarnessError):
                self._work.lock()
                self._work.discard()

    def _begin(self) -> None:
        if self.finished is not None:  # it was not, before the folder was held
            raise HarnessError(f"another process has just made {self.to}", "run it again: it is found done")
        if not self._work.resumable():
            self._work.clear()
            self._work.begin()
        self.training.mkdir(exist_ok=True)
