"""Run folders: complete or absent, never half.

A folder is complete exactly when `done.json` exists in it; that file is written last (temporary file, fsync,
rename). A failed step leaves `error.txt`. A lock file per folder lets several processes share a store; the
kernel frees it when its holder dies.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import yaml

from harness.errors import HarnessError

LOOK = 0.1  # seconds between two tries to take a lock
LEFT = 3600.0  # seconds since the last write, after which nobody is taken to be writing a file
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
REFUSED = FULL | {errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST}


def digest(value: Any) -> str:
    """sha256 (hex) of a JSON-like value in canonical form: sorted keys, no spaces, floats by repr."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def slug(name: str, settings: Mapping[str, Any], key: str) -> str:
    """Readable folder name: `ties--density=0.2,scale=1--52873946`."""
    shown = ",".join(
        f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in sorted(settings.items())
    )
    parts = [re.sub(r"[^\w.,=+()-]+", "-", part).strip("-")[:80] for part in (name, shown) if part]
    return "--".join([*parts, key[:8]])


@dataclass(frozen=True)
class Folder:
    """One run folder."""

    path: Path

    @property
    def complete(self) -> bool:
        return (self.path / "done.json").is_file()

    @property
    def failed(self) -> str | None:
        """The first line of `error.txt`, if the last try failed."""
        try:
            return (self.path / "error.txt").read_text(encoding="utf-8").strip().splitlines()[0]
        except (OSError, IndexError):
            return None

    def done(self) -> dict[str, Any]:
        """What was recorded when the folder was completed; {} while it is not."""
        try:
            return json.loads((self.path / "done.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}

    def recipe(self) -> dict[str, Any]:
        return yaml.safe_load((self.path / "recipe.yaml").read_text(encoding="utf-8"))

    @contextlib.contextmanager
    def working(self, recipe: Mapping[str, Any], busy: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold the folder while its step runs: writes the recipe, keeps others out, and on failure leaves
        `error.txt` with the reason. Waits for another process that holds it; `busy` is called while it does,
        and may raise."""
        with reachable(self.path):
            with _lock(self.path, busy):
                write_text(
                    self.path / "recipe.yaml",
                    yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True),
                )
                (self.path / "error.txt").unlink(missing_ok=True)
                try:
                    yield
                except Exception as error:
                    reason = (
                        str(error) if isinstance(error, HarnessError) else f"{type(error).__name__}: {error}"
                    )
                    with contextlib.suppress(OSError):
                        write_text(self.path / "error.txt", reason + "\n")
                    raise

    def finish(self, record: Mapping[str, Any]) -> None:
        """Complete the folder."""
        write_text(
            self.path / "done.json", json.dumps(record, indent=1, sort_keys=True, default=_plain) + "\n"
        )


def _lock(folder: Path, busy: Callable[[], None]) -> IO:
    """The lock of a folder, which is made. One that went with its folder while it was waited for is none."""
    file = folder / ".lock"
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as opened, contextlib.suppress(FileNotFoundError):
            lock = opened.enter_context(file.open("w"))
            _take(lock, busy)
            if lies_at(lock, file):
                opened.pop_all()
                return lock


def lies_at(lock: IO, path: Path) -> bool:
    """Whether an open file is still the one at `path`: a deleted or replaced lock keeps nobody out."""
    try:
        return os.path.samestat(os.fstat(lock.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _take(lock: IO, busy: Callable[[], None]) -> None:
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            busy()
            time.sleep(LOOK)


def write_text(path: Path, text: str, errors: str = "strict") -> None:
    """Write a file whole or not at all: temporary file beside it, fsync, rename. `errors` as in `open`."""
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors=errors)


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to, which becomes `path` at the end: the file is whole or as it was.

    The name is nobody else's: neither another thread's nor that of a process with the same id on another
    machine."""
    temporary = path.with_name(f".{path.name}.{os.urandom(6).hex()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)  # what a write fails on is not said by itself
        raise


def abandoned(folder: Path) -> Iterator[Path]:
    """What processes that were killed left half written in a folder and those in it."""
    for place, _, names in os.walk(folder):
        for path in (Path(place, name) for name in names if name.startswith(".") and name.endswith(".tmp")):
            with contextlib.suppress(FileNotFoundError):  # it has its name now
                if time.time() - path.stat().st_mtime > LEFT:
                    yield path


def refusal(error: OSError, path: Path | None = None, reasons: Collection[int] = FULL) -> HarnessError | None:
    """What a disk that is full or read-only means in two lines; None for other errors."""
    if error.errno not in reasons:
        return None
    return HarnessError(
        f"cannot write {error.filename or path or 'a file'}: {error.strerror}",
        "choose another folder with `--results DIR`, or free some space",
    )


@contextlib.contextmanager
def reachable(path: Path) -> Iterator[None]:
    """Turn the file system's refusals (read-only, no permission, full) into two-line errors."""
    try:
        yield
    except OSError as error:
        told = refusal(error, path, REFUSED)
        if told is None:
            raise
        raise told from error


def made(folder: Path) -> Path:
    """The folder, which is created. HarnessError where it cannot be."""
    try:
        with reachable(folder):
            folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:  # its parents are there: a place such as /proc
        raise refusal(error, folder, {error.errno}) from error
    return folder


class Store:
    """The results of one family: `<results>/<family>/{scores,models,responses,report}`."""

    def __init__(self, results: Path, family: str) -> None:
        self.root = results.expanduser() / family

    def prepare(self) -> None:
        """Create the root and show that it can be written, before any work."""
        # under a name of its own: other processes may look at the same time
        probe = made(self.root) / f".writable-{os.urandom(6).hex()}"
        with reachable(self.root):
            try:
                probe.write_bytes(b"\n")
                probe.unlink()
            except OSError as error:
                error.filename = str(self.root)
                probe.unlink(missing_ok=True)
                raise

    @property
    def fingerprints(self) -> Path | None:
        """The cache of content hashes; None while there is no store to keep it in."""
        return self.root / "fingerprints.json" if self.root.is_dir() else None

    def scores(self, name: str) -> Folder:
        return Folder(self.root / "scores" / name)

    def model(self, name: str) -> Folder:
        return Folder(self.root / "models" / name)

    def evaluation(self, model: Folder, name: str) -> Folder:
        return Folder(model.path / "evals" / name)

    def responses(self, fingerprint: str, task: str) -> Path:
        """The response store shared by all models with this fingerprint."""
        return self.root / "responses" / fingerprint[:16] / f"{task}.sqlite"

    @property
    def report(self) -> Path:
        return self.root / "report"

    def folders(self) -> Iterator[Folder]:
        """Every run folder in the store, complete or not. What others delete meanwhile is left out."""
        walks = (walk for top in self.root.glob("*") for walk in os.walk(top))
        for path in sorted(Path(place) for place, _, names in walks if "recipe.yaml" in names):
            yield Folder(path)

    def size(self, path: Path) -> int:
        """Bytes of the files below `path`, without what others delete meanwhile."""
        taken = 0
        for place, _, names in os.walk(path):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    taken += os.lstat(os.path.join(place, name)).st_size
        return taken

    def remove(self, path: Path) -> int:
        """Delete a file or folder; the bytes freed."""
        freed = self.size(path) if path.is_dir() else path.stat().st_size
        with reachable(path):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return freed


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)
