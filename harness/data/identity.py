"""What a task's rows are, as a hash: the bytes of the local copy, or the address and revision."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from harness.data.record import fetched, sha256
from harness.data.source import Source, home, local_files
from harness.errors import HarnessError
from harness.store import write_text

CACHE = ".sha256.json"
SETTLED = 2.0  # seconds; a file younger than the clock of its file system tells could change unseen


def identity(source: Source) -> dict[str, Any]:
    """Per split the content hashes of the files that are read, or where the rows come from: for what is not
    here, and for an unchanged copy of the pinned revision, so that fetching it changes no identity.

    Hashes are kept by path, size and times of change, so that large files are read once. Raises HarnessError
    for a file that cannot be read.
    """
    known = _cache()
    fresh: dict[str, list] = {}
    told: dict[str, Any] = {}
    published = {"at": source.place, "revision": source.revision}
    for split in source.files:
        paths = local_files(source, split)
        found = {str(path.relative_to(source.folder)): _hash(path, known, fresh) for path in paths}
        told[split] = published if not found or _as_pinned(source, found) else found
    if fresh:
        _keep(fresh)
    return told


def _as_pinned(source: Source, found: dict[str, str]) -> bool:
    kept = fetched(source.folder)
    pinned = {"from": source.place, "revision": source.revision}
    return bool(source.revision) and all(
        kept.get(name) == {"sha256": value, **pinned} for name, value in found.items()
    )


def _hash(path: Path, known: dict[str, list], fresh: dict[str, list]) -> str:
    try:
        stat = path.stat()
        mark = [stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
        entry = known.get(str(path))
        if isinstance(entry, list) and entry[:-1] == mark:
            return entry[-1]
        found = sha256(path)
    except OSError as error:
        raise HarnessError(
            f"{path} cannot be read: {error.strerror}", "see its permissions, or fetch it again"
        ) from error
    if time.time() - max(stat.st_mtime, stat.st_ctime) > SETTLED:
        fresh[str(path)] = [*mark, found]
    return found


def _cache() -> dict[str, list]:
    try:
        known = json.loads((home() / CACHE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _keep(fresh: dict[str, list]) -> None:
    """Add to what other processes kept meanwhile; a lost entry costs reading its file again."""
    kept = {path: entry for path, entry in _cache().items() if Path(path).exists()}
    try:
        write_text(home() / CACHE, json.dumps({**kept, **fresh}))
    except OSError:  # a folder that cannot be written into: hashed anew each time
        return
