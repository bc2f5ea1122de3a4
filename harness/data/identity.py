"""What a task's rows are, as a hash: the bytes of the local copy, or the address and revision."""

from __future__ import annotations

import json
import os
from typing import Any

from harness.data.fetch import sha256
from harness.data.source import Source, home, local_files

CACHE = ".sha256.json"


def identity(source: Source) -> dict[str, Any]:
    """Per split the content hashes of the files that are read, or where the rows would come from.

    Hashes are kept by path, size and time of change, so that large files are read once.
    """
    known = _cache()
    told: dict[str, Any] = {}
    fresh = dict(known)
    for split in source.files:
        found = {}
        for path in local_files(source, split):
            stat = path.stat()
            mark = f"{path}:{stat.st_size}:{stat.st_mtime_ns}"
            fresh[mark] = found[path.name] = known.get(mark) or sha256(path)
        told[split] = found or {"at": source.address, "revision": source.revision}
    if fresh != known:
        _keep(fresh)
    return told


def _cache() -> dict[str, str]:
    try:
        return json.loads((home() / CACHE).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return {}


def _keep(sums: dict[str, str]) -> None:
    temporary = home() / f"{CACHE}.{os.getpid()}"
    try:
        temporary.write_text(json.dumps(sums), encoding="utf-8")
        os.replace(temporary, home() / CACHE)
    except OSError:  # a copy that cannot be written into is hashed anew each time
        temporary.unlink(missing_ok=True)
