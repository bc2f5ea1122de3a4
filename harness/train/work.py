"""The private folder of one training, `.NAME.part` beside the wanted one. Torch-free.

    .NAME.part/training/   what the work needs to go on: targets, checkpoint, losses
    .NAME.part/model/      the model; it gets the wanted name when it is whole, by one rename

What the training is made of is hashed into a key; work under another key is thrown away."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.store import reachable, write_text

MARK = "merge.json"  # in a finished folder: the key, and the record of the merge
CURVE = "training.jsonl"  # in a finished folder: the losses, one line per step


class Work:
    """`with Work(to, key) as work:` holds the folder; `finish` gives the model its name.

    Leaving with a `HarnessError` deletes the work, which can never be finished; any other exception leaves it
    to be resumed."""

    def __init__(self, to: Path, key: str, replace: bool = False) -> None:
        self.to, self.key, self.replace = Path(to), key, replace
        self.part = self.to.with_name(f".{self.to.name}.part")
        self.training, self.model = self.part / "training", self.part / "model"
        self._lock: Any = None

    @property
    def finished(self) -> dict[str, Any] | None:
        """The record of an earlier training of exactly this; None if there is none. Refuses other content of
        `to`."""
        if not self.to.exists() or (self.to.is_dir() and not any(self.to.iterdir())):
            return None
        try:
            mark = json.loads((self.to / MARK).read_text("utf-8"))
        except (OSError, ValueError):
            mark = {}
        if mark.get("key") == self.key:
            return mark["record"]
        if not self.replace:
            raise HarnessError(
                f"{self.to} already holds something else", "choose another folder, or delete this one first"
            )
        return None

    def __enter__(self) -> Work:
        with reachable(self.part):
            self.part.mkdir(parents=True, exist_ok=True)
            self._lock = (self.part / ".lock").open("w")
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._lock.close()
                raise HarnessError(f"another process is writing {self.to}", "wait for it to end") from None
            if not self._resumable():
                self._clear()
                write_text(self.part / ".key", self.key)
            self.training.mkdir(exist_ok=True)
        return self

    def __exit__(self, _: Any, error: BaseException | None, __: Any) -> None:
        self._lock.close()
        if isinstance(error, HarnessError):
            shutil.rmtree(self.part, ignore_errors=True)

    def finish(self, record: dict[str, Any]) -> None:
        """The model is whole: name it, and delete what the training left."""
        shutil.copyfile(self.training / CURVE, self.model / CURVE)
        write_text(self.model / MARK, json.dumps({"key": self.key, "record": record}, indent=1) + "\n")
        if self.to.exists() and self.replace:
            shutil.rmtree(self.to)
        os.rename(self.model, self.to)
        shutil.rmtree(self.part)

    def _resumable(self) -> bool:
        try:
            return (self.part / ".key").read_text("utf-8") == self.key
        except OSError:
            return False

    def _clear(self) -> None:
        for entry in self.part.iterdir():
            if entry.name != ".lock":
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
