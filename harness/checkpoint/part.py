"""The private folder beside a wanted one, `.NAME.part`, in which a model is made. Torch-free.

What the model is made of is hashed into a key. The finished folder has the key in its mark; an unfinished one
is resumed by work under the same key, and thrown away by any other.

The lock is a file in the folder, and goes with it: whoever finishes or discards the folder holds it until
then, and a lock that is no longer in its place is none."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.store import write_text

MARK = "merge.json"  # in a finished folder: the key, and the record of the merge
LOCK = ".lock"
TRIES = 20  # as many processes may finish or discard the folder just when it is to be locked


def of_the_disk(error: BaseException) -> bool:
    """Whether the file system ended the work, by itself or as `reachable` tells it: it can be resumed."""
    return isinstance(error, OSError) or isinstance(error.__cause__, OSError)


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
        """Make the folder, and hold it until `unlock`, `named` or `discard`. Raises `HarnessError` while
        another process does. It may have finished `to` just before: look again."""
        for left in reversed(range(TRIES)):
            try:
                if self._locked():
                    return
            except BlockingIOError:
                break
            except (FileNotFoundError, FileExistsError):  # it went between two steps
                if not left:
                    raise
        raise HarnessError(f"another process is writing {self.to}", "wait for it to end")

    def unlock(self) -> None:
        """Let go of the folder; what is there can be resumed."""
        if self._lock is not None:
            self._lock.close()
        self._lock = None

    def resumable(self, stamp: str = "") -> bool:
        """Whether the work there was begun under this key (and `stamp`)."""
        try:
            return (self.path / ".key").read_text("utf-8") == stamp + self.key
        except OSError:
            return False

    def clear(self, *kept: str) -> None:
        """Delete all but the lock and what is `kept`."""
        for entry in self.path.iterdir():
            if entry.name not in (LOCK, *kept):
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def begin(self, stamp: str = "") -> None:
        """Name what the work is made of; whatever is there from now on can be resumed."""
        write_text(self.path / ".key", stamp + self.key)

    def mark(self, folder: Path, record: dict[str, Any]) -> None:
        """Put key and record into a folder that is about to get the wanted name."""
        write_text(folder / MARK, json.dumps({"key": self.key, "record": record}, indent=1) + "\n")

    def named(self) -> None:
        """The folder has got the wanted name: delete the lock there, and let go of it."""
        (self.to / LOCK).unlink(missing_ok=True)
        self.unlock()

    def discard(self) -> None:
        """Delete the folder, and let go of it. Does nothing where it is not held: it is another's then."""
        if self._lock is None:
            return
        with contextlib.suppress(OSError):
            self.clear()
            (self.path / LOCK).unlink()  # from now on another process may make it its own
            self.path.rmdir()
        self.unlock()

    def _locked(self) -> bool:
        """Whether the folder is held now; False where the lock went with the folder meanwhile."""
        self.path.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as opened:
            lock = opened.enter_context((self.path / LOCK).open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lock.fileno()).st_ino != (self.path / LOCK).stat().st_ino:
                return False
            opened.pop_all()
            self._lock = lock
        return True
