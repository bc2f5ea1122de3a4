"""Responses of one model to one task, kept as they arrive: a kill costs at most the batch in flight.

Light: imports neither torch nor lm-eval.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.store import digest

LOOKUP = 500  # keys per query; SQLite allows 999 variables everywhere


class ResponseStore:
    """An SQLite file: sha256 of the canonical request -> answer (a JSON-like value).

    A request is a JSON-like mapping of everything the answer depends on; `fingerprint` (the model's content
    hash) is part of every key, so models with different weights never share an answer even in one file.
    Several processes may use one file. Raises HarnessError when the file cannot be opened or is damaged.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path, self.fingerprint = path, fingerprint
        try:
            self._db = sqlite3.connect(path, timeout=60, isolation_level=None)
            # With a write-ahead log a commit costs no fsync, and survives the death of this process.
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS responses (key TEXT PRIMARY KEY, request TEXT, answer TEXT)"
            )
        except sqlite3.Error as error:
            raise self._broken(error) from error

    def key(self, request: Mapping[str, Any]) -> str:
        """sha256 (hex) of the request to this model."""
        return digest({"model": self.fingerprint, "request": request})

    def get(self, keys: Iterable[str]) -> dict[str, Any]:
        """The answers known among `keys`."""
        wanted, found = list(keys), {}
        try:
            for start in range(0, len(wanted), LOOKUP):
                part = wanted[start : start + LOOKUP]
                marks = ",".join("?" * len(part))
                rows = self._db.execute(f"SELECT key, answer FROM responses WHERE key IN ({marks})", part)
                found |= {key: json.loads(answer) for key, answer in rows}
        except (sqlite3.Error, ValueError) as error:
            raise self._broken(error) from error
        return found

    def put(self, rows: Iterable[tuple[str, Mapping[str, Any], Any]]) -> None:
        """Keep (key, request, answer) rows, all or none. The first answer to a request stands."""
        texts = [(key, _text(request), _text(answer)) for key, request, answer in rows]
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT OR IGNORE INTO responses VALUES (?, ?, ?)", texts)
            self._db.execute("COMMIT")
        except (sqlite3.Error, UnicodeError) as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise self._broken(error) from error

    def __len__(self) -> int:
        return self._db.execute("SELECT count(*) FROM responses").fetchone()[0]

    def close(self) -> None:
        self._db.close()

    def _broken(self, error: Exception) -> HarnessError:
        return HarnessError(
            f"response store {self.path}: {error}",
            "check free space and permissions; delete a damaged file to generate anew",
        )


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
