"""Responses of one model to one task, kept as they arrive: a kill costs at most the batch in flight.

Light: imports neither torch nor lm-eval.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.evaluate.shared import on_network

LOOKUP = 500  # keys per query; SQLite allows 999 variables everywhere
PATIENCE = 60.0  # seconds to wait for another process that writes
HINTS = {
    sqlite3.SQLITE_FULL: "free some space and run again: what is stored stays",
    sqlite3.SQLITE_IOERR: "check free space, quota and file size limits, and run again: what is stored stays",
    sqlite3.SQLITE_READONLY: "make the file and its folder writable, or use another `--results` folder",
    sqlite3.SQLITE_CANTOPEN: "check that the folder exists, is writable and has free space",
    sqlite3.SQLITE_BUSY: "another process holds it: wait for that one, or end it",
    sqlite3.SQLITE_PROTOCOL: "its file system does not lock files: use a `--results` folder on one that does",
    sqlite3.SQLITE_CORRUPT: "delete it, with its -wal and -journal files, to generate these responses anew",
    sqlite3.SQLITE_NOTADB: "delete it, with its -wal and -journal files, to generate these responses anew",
}


class ResponseStore:
    """An SQLite file: sha256 of the canonical request -> answer (a JSON-like value).

    A request is a JSON-like mapping of everything the answer depends on, or its `canonical` text;
    `fingerprint` (the model's content hash) is part of every key, so models with different weights never
    share an answer even in one file. Several processes may use one file, on several machines where it lies on
    a network file system. Raises HarnessError when the file cannot be opened, written, or is damaged.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path, self.fingerprint = path, fingerprint
        self._prefix = hashlib.sha256(f'{{"model":{canonical(fingerprint)},"request":'.encode())
        try:
            shared, new = on_network(path.parent), not path.exists()
            self._db = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)
            self._choose_journal(shared, new)
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS responses (key TEXT PRIMARY KEY, request TEXT, answer TEXT)"
            )
        except (sqlite3.Error, OSError) as error:
            raise self._broken(error) from error

    def _choose_journal(self, shared: bool, new: bool) -> None:
        """With a write-ahead log a commit costs no fsync, and survives the death of this process. Its index
        is memory that processes share, which no network file system offers."""
        mode = self._journal()
        if mode == "wal" and shared:
            mode = self._journal("delete")
            if mode == "wal":
                raise sqlite3.OperationalError("its write-ahead log is in use on another machine")
        elif mode != "wal" and new and not shared:  # a file that was made on a network keeps its journal
            mode = self._journal("wal")
        self._db.execute(f"PRAGMA synchronous={'NORMAL' if mode == 'wal' else 'FULL'}")

    def _journal(self, mode: str | None = None) -> str:
        """The journal mode, changed to `mode` where given; for that SQLite does not wait by itself."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return self._db.execute("PRAGMA journal_mode" + (f"={mode}" if mode else "")).fetchone()[0]
            except sqlite3.OperationalError as error:
                if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                    raise
                time.sleep(0.01)

    def key(self, request: Mapping[str, Any] | str) -> str:
        """sha256 (hex) of the request to this model."""
        found = self._prefix.copy()
        found.update(f"{request if isinstance(request, str) else canonical(request)}}}".encode())
        return found.hexdigest()

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

    def put(self, rows: Iterable[tuple[str, Mapping[str, Any] | str, Any]]) -> None:
        """Keep (key, request, answer) rows, all or none. The first answer to a request stands."""
        texts = [(key, r if isinstance(r, str) else _text(r), _text(answer)) for key, r, answer in rows]
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
        alike = {json.JSONDecodeError: sqlite3.SQLITE_CORRUPT, OSError: sqlite3.SQLITE_READONLY}
        code = next((code for kind, code in alike.items() if isinstance(error, kind)), _code(error))
        return HarnessError(
            f"response store {self.path}: {error}",
            HINTS.get(code, "check free space and permissions; delete a damaged file to generate anew"),
        )


def canonical(request: Any) -> str:
    """A request as the text that identifies it: sorted keys, no spaces, floats by repr."""
    return json.dumps(request, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)


def _code(error: Exception) -> int:
    """SQLite's primary result code; extended ones have it in their lowest byte."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
