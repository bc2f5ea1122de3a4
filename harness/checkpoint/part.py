"""The private folder beside a wanted one, `.NAME.part`, in which a model is made. Torch-free.

What the model is made of is hashed into a key. The finished folder has the key in its mark; an unfinished one
is resumed by work under the same key, and thrown away by any other."""

from __future__ import annotations

import fcntl
import json
import shutil
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.store import write_text

MARK = "merge.json"  # in a finished folder: the key, and the record of the merge


class Part:
    """The private folder of the model `to`."""

    def __init__(self, to: Path, key: str) -> None:
        self.to, self.key = Path(to), key
        self.path = self.to.with_name(f".{self.to.name}.part")
        self._lock: Any = None

    def earlier(self) -> dict[str, Any] | None:
        """The record of `to`, if it was made under this key."""
        try:
            mark = json.loads((self.to / MARK).read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return mark.get("record") if mark.get("key") == self.key else None

    def vacant(self) -> bool:
        """Whether `to` holds nothing yet."""
        return not self.to.exists() or (self.to.is_dir() and not any(self.to.iterdir()))

    def occupied(self) -> HarnessError:
        """What is said of a `to` that holds something else."""
        return HarnessError(
            f"{self.to} already holds something else", "choose another folder, or delete this one first"
        )

    def lock(self) -> None:
        """Make the folder, and hold it until `unlock`. Raises `HarnessError` while another process does."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = (self.path / ".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.unlock()
            raise HarnessError(f"another process is writing {self.to}", "wait for it to end") from None

    def unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
        self._lock = None

    def resumable(self, stamp: str = "") -> bool:
        """Whether the work there was begun under this key (and `stamp`)."""
        try:
            return (self.path / ".key").read_text("utf-8") == stamp + self.key
        except OSError:
            return False

    def clear(self) -> None:
        """Delete all but the lock."""
        for entry in self.path.iterdir():
            if entry.name != ".lock":
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def begin(self, stamp: str = "") -> None:
        """Name what the work is made of; whatever is there from now on can be resumed."""
        write_text(self.path / ".key", stamp + self.key)

    def mark(self, folder: Path, record: dict[str, Any]) -> None:
        """Put key and record into a folder that is about to get the wanted name."""
        write_text(folder / MARK, json.dumps({"key": self.key, "record": record}, indent=1) + "\n")

    def discard(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
