"""Weights that are not kept: private folders in shared memory, or on a disk, that go when their run ends.

`<place>/harness-<uid>/<name>/` holds one run's weights; the folder above, mode 0700, is the user's own. A run
holds its folder's lock as long as it lives, however it ends: a folder whose lock can be had is an orphan, and
the next run removes it. Linux keeps what lies in `/dev/shm` in memory.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from harness.costs.machine import host_memory
from harness.errors import HarnessError

MEMORY = Path("/dev/shm")
LOCK = ".lock"


class Spool:
    """A folder of this process's own below `place`, made on entering and removed on leaving."""

    def __init__(self, place: Path = MEMORY) -> None:
        self.place = place
        self._lock: IO[str] | None = None
        self._path: Path | None = None

    def __enter__(self) -> Spool:
        home = _home(self.place, make=True)
        with _guarded(home):  # nobody looks for orphans between the folder and its lock
            self._path = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=home))
            self._lock = (self._path / LOCK).open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()

    @property
    def path(self) -> Path:
        if self._path is None:
            raise RuntimeError("the spool is not open")
        return self._path

    def remove(self, folder: Path) -> None:
        """Delete one model, and what an unfinished merge of it has left."""
        for path in (folder, folder.with_name(f".{folder.name}.part")):
            shutil.rmtree(path, ignore_errors=True)


def free(place: Path = MEMORY) -> int:
    """Bytes that can be written below `place`: what its file system has, and for one in memory, what this
    process may still take of that; 0 where there is no such place."""
    if not os.access(place, os.W_OK):
        return 0
    told = os.statvfs(place)
    room = told.f_bavail * told.f_frsize
    return min(room, host_memory()[1]) if place == MEMORY else room


def usable(place: Path = MEMORY) -> bool:
    """Whether a spool can be made there: in `/dev/shm` everybody may have made a folder of that name."""
    try:
        return _home(place, make=True) is not None
    except (HarnessError, OSError):
        return False


def sweep(place: Path = MEMORY) -> int:
    """Remove what killed runs have left below `place`; the number of their folders."""
    with contextlib.suppress(HarnessError, OSError):  # somebody else's folder: nothing of ours can be in it
        home = _home(place, make=False)
        if home is None:
            return 0
        with _guarded(home):
            orphans = [path for path in home.iterdir() if path.is_dir() and _orphan(path)]
            for folder in orphans:
                shutil.rmtree(folder, ignore_errors=True)
        return len(orphans)
    return 0


def _orphan(folder: Path) -> bool:
    """Whether the run that made the folder has ended. Without a lock it was killed while it made it."""
    try:
        with (folder / LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return True
    except BlockingIOError:
        return False
    return True


def _home(place: Path, make: bool) -> Path | None:
    """The user's folder below `place`; None where there is none. HarnessError when it is not theirs alone."""
    home = place / f"harness-{os.getuid()}"
    if make:
        with contextlib.suppress(FileExistsError):
            home.mkdir(mode=0o700)
    try:
        found = home.lstat()
    except FileNotFoundError:
        return None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise HarnessError(f"{home} is not a folder of yours alone", "remove it, or `chmod 700` it")
    return home


@contextlib.contextmanager
def _guarded(home: Path) -> Iterator[None]:
    """One process at a time makes folders or looks for orphans."""
    with (home / LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
