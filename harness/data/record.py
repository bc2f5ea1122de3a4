"""What was noted when a local copy was fetched: for every file its hash, place and commit. Light."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from harness.store import write_text

NAME = ".source.json"  # hidden, so that neither `*.json` nor a loader of the folder takes it for data
Entry = dict[str, str | None]  # sha256, from, revision


def fetched(folder: Path) -> dict[str, Entry]:
    """Relative path -> entry of every file that was fetched into a folder; {} for one filled by hand."""
    try:
        files = json.loads((folder / NAME).read_text(encoding="utf-8"))["files"]
        return {name: dict(entry) for name, entry in files.items()}
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
    ):  # absent, or not ours: nothing is known
        return {}


def note(folder: Path, entries: Mapping[str, Entry], without: Iterable[str] = ()) -> None:
    """Add entries to a folder's record, and leave out those of `without`."""
    kept = {name: entry for name, entry in fetched(folder).items() if name not in without}
    text = json.dumps({"files": {**kept, **entries}}, indent=1, sort_keys=True)
    write_text(folder / NAME, text + "\n")


def sha256(path: Path) -> str:
    """sha256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
