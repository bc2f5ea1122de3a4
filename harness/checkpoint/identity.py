"""The content hash of a model: the same for any sharding, for any folder, on any machine."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from harness.checkpoint.read import Checkpoint, TensorInfo
from harness.store import digest, write_text

CONFIG_BOOKKEEPING = (
    "transformers_version",
    "_name_or_path",
    "torch_dtype",
    "dtype",
)  # say nothing of the weights
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
    "chat_template.jinja",
    "chat_template.json",
)
GENERATION_FILE = "generation_config.json"
PIECE = 1 << 22  # bytes read at a time


def fingerprint(path: str | Path, cache: Path | None = None) -> str:
    """sha256 (hex) over every tensor (name, dtype, shape, bytes), the config without its bookkeeping, and the
    tokenizer, chat-template and generation-config files.

    `cache` is a JSON file of hashes by (path, size, modification time): with it, unchanged files are not
    read again. Raises `HarnessError` for a checkpoint that cannot be read.
    """
    model = Checkpoint.open(path)
    known = _Cache(cache)
    tensors = [
        entry for file in model.files for entry in known.get(file, lambda file=file: _tensors(model, file))
    ]
    folder = model.path if model.path.is_dir() else model.path.parent
    beside = [folder / name for name in (*TOKENIZER_FILES, GENERATION_FILE)] if model.path.is_dir() else []
    texts = [[file.name, known.get(file, lambda file=file: _file(file))] for file in beside if file.is_file()]
    known.save()
    config = {key: value for key, value in model.config.items() if key not in CONFIG_BOOKKEEPING}
    return digest({"tensors": sorted(tensors), "config": config, "files": texts})


def stamp(path: Path) -> str:
    """sha256 (hex) of the files' names, sizes and times: tells a model from another on this disk, unread.
    Raises `HarnessError` for a checkpoint that cannot be read."""
    found = [(file, file.stat()) for file in Checkpoint.open(path).files]
    return digest([[str(file.resolve()), stat.st_size, stat.st_mtime_ns] for file, stat in found])


def fingerprint_files(folder: Path, names: Iterable[str], cache: Path | None = None) -> list[list[str]]:
    """[name, sha256 (hex)] of files of `folder`, sorted; `cache` as for `fingerprint`."""
    known = _Cache(cache)
    found = [
        [name, known.get(folder / name, lambda name=name: _file(folder / name))] for name in sorted(names)
    ]
    known.save()
    return found


def _tensors(model: Checkpoint, file: Path) -> list[list[Any]]:
    """[name, dtype, shape, sha256 of the bytes] of every tensor in `file`."""
    infos = [info for info in model.tensors.values() if info.file == file]
    with ThreadPoolExecutor(max_workers=min(8, len(os.sched_getaffinity(0)))) as pool:
        hashes = list(pool.map(_data, infos))
    return [
        [info.name, info.dtype, list(info.shape), value] for info, value in zip(infos, hashes, strict=True)
    ]


def _data(info: TensorInfo) -> str:
    with info.file.open("rb", buffering=0) as stream:
        stream.seek(info.start)
        return _sha256(stream, info.nbytes)


def _file(file: Path) -> str:
    with file.open("rb", buffering=0) as stream:
        return _sha256(stream, file.stat().st_size)


def _sha256(stream: Any, left: int) -> str:
    found, buffer = hashlib.sha256(), memoryview(bytearray(min(PIECE, max(left, 1))))
    while left:
        n = stream.readinto(buffer[: min(left, len(buffer))])
        if not n:
            raise EOFError(f"{stream.name} became shorter while it was read")
        found.update(buffer[:n])
        left -= n
    return found.hexdigest()


class _Cache:
    """Values of files by (path, size, mtime_ns). A cache that cannot be read is started anew."""

    def __init__(self, file: Path | None) -> None:
        self.file, self.entries, self.changed = file, {}, False
        if file is not None:
            with contextlib.suppress(OSError, ValueError):
                loaded = json.loads(file.read_text("utf-8"))
                self.entries = loaded if isinstance(loaded, dict) else {}

    def get(self, file: Path, compute: Any) -> Any:
        stat = file.stat()
        stamp, key = [stat.st_size, stat.st_mtime_ns], str(file.resolve())
        entry = self.entries.get(key)
        if not (isinstance(entry, dict) and entry.get("stamp") == stamp):
            entry = {"stamp": stamp, "value": compute()}
            self.entries[key], self.changed = entry, True
        return entry["value"]

    def save(self) -> None:
        if self.file is not None and self.changed:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_text(self.file, json.dumps(self.entries))


def present(folder: Path, names: Iterable[str]) -> list[str]:
    """Those of `names` that are files of `folder`."""
    return [name for name in names if (folder / name).is_file()]
