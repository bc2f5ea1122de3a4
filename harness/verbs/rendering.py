"""Rendering a board with every report: each by itself, each file whole, and none of another table's."""

from __future__ import annotations

import contextlib
import copy
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness import __version__, registry
from harness.board import Board
from harness.errors import HarnessError
from harness.screen import Screen
from harness.store import abandoned, digest, reachable, write_text

MADE = "rendered.json"
READS = {"html": ("figures",)}  # reports that show what others wrote


def write_reports(
    board: Board, folder: Path, screen: Screen, names: Sequence[str], *, again: bool = False
) -> int:
    """Render `board` into `folder`; the exit code. A report is not rendered anew where neither the board nor
    the report changed; one that fails does not stop the others, and leaves none of its files. Waits for
    another process that renders into the same folder.

    HarnessError where the folder cannot be written."""
    screen.close()
    with reachable(folder), _held(folder):
        record, content, failed = _Record(folder), digest([__version__, board.to_json()]), 0
        marks = {name: _mark(content, name) for name in record.with_read(names, content)}
        stale = [name for name in marks if again or not record.has(name, marks[name])]
        record.begin(stale)
        for name in stale:
            try:
                record.keep(name, marks[name], rendered(name, board, folder))
            except (Exception, SystemExit) as error:  # a report is a plugin: it fails alone
                record.drop(name)
                _say(screen, name, error)
                failed = 1
        kept = [file for file in record.files_of(marks) if "/" not in file]
    screen.info(f"report: {folder}/  {', '.join(kept)}")
    return failed


def rendered(name: str, board: Board, folder: Path) -> list[str]:
    """The files that a report wrote, by their names in `folder`; it has a copy of the board to itself."""
    returned = registry.report(name)(copy.deepcopy(board), folder)
    hint = "`render` returns a list of the paths that it wrote, all in the folder that it was given"
    if not isinstance(returned, (list, tuple)) or not all(isinstance(path, Path) for path in returned):
        raise HarnessError(f"it returned {returned!r}"[:200], hint)
    home = os.path.abspath(folder)
    files = [os.path.relpath(os.path.abspath(path), home) for path in returned]
    for path, file in zip(returned, files, strict=True):
        if file.split(os.sep)[0] == os.pardir:
            raise HarnessError(f"it returned {path}, which is not in {folder}", hint)
        if not (folder / file).is_file():
            raise HarnessError(f"it returned {path}, which is no file", hint)
    return files


def _say(screen: Screen, name: str, error: BaseException) -> None:
    """Two lines: what failed and why, what to do."""
    if isinstance(error, HarnessError):
        fact, hint = error.message, error.hint
    else:
        path = registry.get("reports", name).path
        fact = f"{type(error).__name__}: {error}"
        hint = f"mend {path}{registry.line_in(error, path)}; the other reports are written"
    screen.failed("report", name, fact)
    screen.info(f"hint: {hint}")


def _mark(content: str, name: str) -> str:
    """What a report's files depend on: the board, its own file and the folder of its name beside it."""
    path, found = registry.get("reports", name).path, hashlib.sha256()
    beside = path.with_suffix("")
    for file in [path, *sorted(f for f in beside.rglob("*") if f.is_file() and f.suffix != ".pyc")]:
        found.update(file.read_bytes())
    return digest([content, found.hexdigest()])


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Keep other processes out; what they left half written when they were killed goes."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in abandoned(folder):
            left.unlink(missing_ok=True)
        yield


class _Record:
    """`rendered.json`: by report what its files show, and which they are. `mark` is None while a report is
    rendered, so that whatever a kill leaves there is never taken for what was there before."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: dict[str, dict[str, Any]] = {}
        with contextlib.suppress(OSError, ValueError):  # absent or damaged: everything is rendered
            found = json.loads((folder / MADE).read_text(encoding="utf-8"))
            self.made = {name: {"mark": told["mark"], "files": list(map(str, told["files"]))}
                         for name, told in found.items()} if _whole(found) else {}  # fmt: skip

    def has(self, name: str, mark: str) -> bool:
        told = self.made.get(name)
        return told is not None and told["mark"] == mark and all(map(self._there, told["files"]))

    def with_read(self, names: Sequence[str], content: str) -> list[str]:
        """`names`, and before them what they show of other reports that have files of another table here."""
        read = [other for name in names for other in READS.get(name, ()) if other in self.made]
        stale = [name for name in read if name not in names and not self.has(name, _mark(content, name))]
        return [*stale, *names]

    def begin(self, names: Sequence[str]) -> None:
        for name in names:
            self.made.setdefault(name, {"files": []})["mark"] = None
        self._write()

    def keep(self, name: str, mark: str, files: list[str]) -> None:
        before = self.made[name]["files"]
        self.made[name] = {"mark": mark, "files": files}
        if not files:  # it printed, or had nothing to say: it does so again
            del self.made[name]
        self._remove(before)
        self._write()

    def drop(self, name: str) -> None:
        self._remove(self.made.pop(name)["files"])
        self._write()

    def files_of(self, names: Sequence[str]) -> list[str]:
        return sorted({file for name in names for file in self.made.get(name, {"files": []})["files"]})

    def _there(self, file: str) -> bool:
        return (self.folder / file).is_file()

    def _remove(self, files: Sequence[str]) -> None:
        """Those that are no report's any more."""
        for file in set(files) - set(self.files_of(list(self.made))):
            if not os.path.isabs(file) and os.pardir not in file.split("/"):
                (self.folder / file).unlink(missing_ok=True)

    def _write(self) -> None:
        write_text(self.folder / MADE, json.dumps(self.made, indent=1, sort_keys=True) + "\n")


def _whole(found: Any) -> bool:
    """Whether `rendered.json` is as it is written here."""
    told = found.values() if isinstance(found, dict) else [None]
    return all(isinstance(t, dict) and isinstance(t.get("files"), list) and "mark" in t for t in told)
