"""Who works in a folder, told by a heartbeat: a lock that a lost node left behind is not waited for.

A step holds its folder by `flock` (`harness.store`). The kernel frees that when its holder dies, and a file
server when a lost machine's lease ends; some never do (NFS 3 without lock recovery). So a worker writes
`.alive` into the folders of its step, anew every few seconds. Who finds a folder locked and sees no beat for
`SILENT` seconds, although the lock's holder did beat, puts a new lock file in the old one's place.

No clocks are compared: a beat is a change that was seen. A holder without a heartbeat (a run without Ray) is
waited for as ever, and so is one on the same machine, whose kernel knows better.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from harness.store import write_text

BEAT = 10.0  # seconds
SILENT = 90.0  # as long as an NFS 4 server holds on to the lock of a client that is gone
FILE, LOCK, RECIPE = ".alive", ".lock", "recipe.yaml"


@contextlib.contextmanager
def held(
    folders: Sequence[Path], say: Callable[[str], None] = lambda text: None, host: str | None = None
) -> Iterator[None]:
    """Beat in `folders` during the block, once each can be locked."""
    host, stop = host or platform.node(), threading.Event()
    for folder in folders:
        free(folder, say, host)

    def beat() -> None:
        count = 0
        while not stop.is_set():
            count += 1
            for folder in folders:
                with contextlib.suppress(OSError):  # not made yet, or the disk is full: the step will say so
                    mark = {"host": host, "pid": os.getpid(), "beat": count, "recipe": _holder(folder)}
                    write_text(folder / FILE, json.dumps(mark))
            stop.wait(BEAT if count > 2 else 1.0)  # the step has just taken its lock, or is about to

    thread = threading.Thread(target=beat, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        for folder in folders:
            (folder / FILE).unlink(missing_ok=True)


def free(
    folder: Path, say: Callable[[str], None] = lambda text: None, host: str | None = None,
    silent: float | None = None, pause: float = 1.0,
) -> None:  # fmt: skip
    """Wait until the folder's lock can be had; break it when its holder, on another machine, is silent."""
    silent, host = SILENT if silent is None else silent, host or platform.node()
    last, seen = None, time.monotonic()
    while _locked(folder):
        alive = _alive(folder)
        if alive != last:
            last, seen = alive, time.monotonic()
        theirs = alive and alive.get("host") != host and alive.get("recipe") == _holder(folder)
        if theirs and time.monotonic() - seen > silent:
            say(f"{folder.name}: its lock was of {alive['host']}, which has been silent for {silent:.0f} s")
            _renew(folder)
            return
        time.sleep(pause)


def _locked(folder: Path) -> bool:
    try:
        with (folder / LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _renew(folder: Path) -> None:
    """A lock belongs to a file, not to its name: a new file is free."""
    new = folder / f"{LOCK}.{platform.node()}.{os.getpid()}"
    new.touch()
    os.replace(new, folder / LOCK)


def _alive(folder: Path) -> dict | None:
    try:
        return json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _holder(folder: Path) -> list[int] | None:
    """What tells the lock's holder: each writes the recipe anew."""
    with contextlib.suppress(OSError):
        found = (folder / RECIPE).stat()
        return [found.st_ino, found.st_mtime_ns]
    return None
