"""Fills the local copy of a benchmark, at the pinned revision where there is one.

Everything is downloaded into a folder of its own first. What was fetched is then noted, and the files are
moved in; a reader that finds some of the noted files missing says so, so nothing half done looks complete.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from harness.data import record
from harness.data.places import NotObtained, Place, exists, place_of
from harness.data.record import fetched, sha256
from harness.data.source import Source, home, local_files, matching, missing
from harness.errors import HarnessError

STAGE = ".fetch"  # in HARNESS_DATA: downloads under way
_silent: dict[str, str] = {}  # places that could not be reached, which this process does not wait for again


@dataclass(frozen=True)
class Fetched:
    """What a local copy now holds. `how`: `fetched`, `already here`, or `laid there by hand`."""

    files: tuple[Path, ...]
    revision: str | None
    how: str


def fetch(source: Source) -> Fetched:
    """Fill the local copy, also where it was fetched and is of another revision or changed since. Splits that
    were laid there by hand are left alone.

    Raises HarnessError when it cannot be obtained. No network is used under HF_HUB_OFFLINE=1, nor for a
    pinned revision that is here.
    """
    with _disk(source):
        if here := _here(source, source.revision):
            return here
        _allowed(source)
        with _alone(source) as stage:
            return _here(source, source.revision) or _fetched(source, stage)


def _here(source: Source, revision: str | None) -> Fetched | None:
    """What is to be told of a copy that needs nothing; None for any other."""
    wanted = _wanted(source)
    if not wanted:
        return _told(source, None, "laid there by hand")
    if revision and all(_unchanged(source, split, revision) for split in wanted):
        return _told(source, revision, "already here")
    return None


def _fetched(source: Source, stage: Path) -> Fetched:
    if not source.hub:  # the hub's client goes on where it was cut off
        shutil.rmtree(stage)
        stage.mkdir()
    names: list[str] = []
    with _obtaining(source):
        place = place_of(source, stage)
        if here := _here(source, place.commit):
            return here
        for split in _wanted(source):
            names += [name for name in _names(source, split, place) if name not in names]
        with ThreadPoolExecutor(place.at_once) as pool:
            list(pool.map(lambda name: place.get(name, stage), names))
    _move_in(source, stage, names, place.commit)
    return _told(source, place.commit, "fetched")


def published(source: Source) -> None:
    """Raise HarnessError when the place of a source cannot be reached or lacks it. Downloads nothing; takes
    seconds at most, unlike the retries of the loaders that read it."""
    _allowed(source)
    with _obtaining(source):
        if source.url:
            if not exists(source.url):
                raise NotObtained("it is not there")
            return
        place = place_of(source, home())
        for split in source.files:
            _names(source, split, place)


@contextlib.contextmanager
def _obtaining(source: Source) -> Iterator[None]:
    where = "hub" if source.hub else "github" if source.github else source.place
    split = next(iter(source.files))
    if where in _silent:
        raise missing(source, split, _silent[where])
    try:
        yield
    except NotObtained as error:
        if error.unreachable:
            _silent[where] = str(error)
        raise missing(source, split, str(error)) from error


def changed(source: Source, split: str) -> list[Path]:
    """The files of a split that are no longer what was fetched."""
    kept = fetched(source.folder)
    return [
        path
        for path in local_files(source, split)
        if (entry := kept.get(_name(source, path))) and entry.get("sha256") != sha256(path)
    ]


def _names(source: Source, split: str, place: Place) -> list[str]:
    for pattern in source.files[split]:
        if found := place.names(pattern):
            return found
    raise NotObtained(f"it has no {' or '.join(source.files[split])}")


def _wanted(source: Source) -> list[str]:
    """The splits that were not laid there by hand."""
    kept = fetched(source.folder)

    def known(split: str) -> bool:
        return any(matching(pattern, kept) for pattern in source.files[split])

    return [split for split in source.files if known(split) or not local_files(source, split)]


def _unchanged(source: Source, split: str, revision: str) -> bool:
    kept = fetched(source.folder)
    try:
        files = local_files(source, split)
    except HarnessError:  # part of it is missing
        return False
    entries = [kept.get(_name(source, path), {}) for path in files]
    same = all(entry.get("revision") == revision for entry in entries)
    return bool(files) and same and not changed(source, split)


def _name(source: Source, path: Path) -> str:
    return str(path.relative_to(source.folder))


def _told(source: Source, revision: str | None, how: str) -> Fetched:
    files = [path for split in source.files for path in local_files(source, split)]
    return Fetched(tuple(dict.fromkeys(files)), revision, how)


def _allowed(source: Source) -> None:
    split = next(iter(source.files))
    if not source.address:
        raise missing(source, split, "")
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise missing(source, split, "HF_HUB_OFFLINE is set, so nothing is fetched")


def _move_in(source: Source, stage: Path, names: list[str], commit: str | None) -> None:
    """Note the files, remove what they replace, move them in: killed in between, some that are noted are
    missing."""
    entries = {
        name: {"sha256": sha256(stage / name), "from": source.place, "revision": commit} for name in names
    }
    source.folder.mkdir(parents=True, exist_ok=True)
    patterns = [pattern for split in _wanted(source) for pattern in source.files[split]]
    before = {name for pattern in patterns for name in matching(pattern, fetched(source.folder))}
    record.note(source.folder, entries, without=before)
    for name in before.union(names):
        (source.folder / name).unlink(missing_ok=True)
    for name in names:
        to = source.folder / name
        to.parent.mkdir(parents=True, exist_ok=True)
        part = to.with_name(f".{to.name}.part")  # the folder may be a link to another file system
        shutil.move(stage / name, part)
        os.replace(part, to)
    shutil.rmtree(stage)


@contextlib.contextmanager
def _alone(source: Source) -> Iterator[Path]:
    """The folder for a benchmark's downloads; a second process waits for the first."""
    stage = home() / STAGE / source.benchmark
    stage.mkdir(parents=True, exist_ok=True)
    with stage.with_name(f"{stage.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stage.mkdir(exist_ok=True)  # the first may have removed it
        yield stage


@contextlib.contextmanager
def _disk(source: Source) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = f"{error.filename or home()}: {error.strerror or error}"
        raise HarnessError(
            f"the data of `{source.benchmark}` is not complete here and cannot be kept: {reason}",
            "HARNESS_DATA names the folder for the data; fetch into one that is writable and has room",
        ) from error
