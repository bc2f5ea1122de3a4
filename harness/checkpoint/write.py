"""Write a checkpoint in place: the headers are known before the first tensor, so the files are made at their
full size and every block goes to its offset, from any thread, in any order."""

from __future__ import annotations

import errno
import json
import math
import os
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from harness.checkpoint.read import SIZES, TensorInfo
from harness.errors import HarnessError

SLACK = 16 << 20  # bytes beside the weights: tokenizer, config, journal


@dataclass(frozen=True)
class Layout:
    """Where every tensor of a checkpoint to be written lies; `headers` are the first bytes of every file."""

    tensors: dict[str, TensorInfo]
    headers: dict[Path, bytes]
    sizes: dict[Path, int]

    @property
    def nbytes(self) -> int:
        """Bytes of all files."""
        return sum(self.sizes.values())


def plan(folder: Path, tensors: Mapping[str, tuple[str, tuple[int, ...]]], shard_bytes: int) -> Layout:
    """Lay out name -> (dtype code, shape) in shards of at most `shard_bytes` of data, in the given order.

    A tensor larger than that gets a shard of its own. Names are those of the hub: `model.safetensors`, or
    `model-00001-of-00003.safetensors`.
    """
    if shard_bytes < 1:
        raise HarnessError(
            f"the shard size is {shard_bytes} bytes", "give a positive number, such as 5000000000"
        )
    shards: list[list[str]] = [[]]
    room = shard_bytes
    for name, (dtype, shape) in tensors.items():
        n = math.prod(shape) * SIZES[dtype]
        if n > room and shards[-1]:
            shards.append([])
            room = shard_bytes
        shards[-1].append(name)
        room -= n
    placed, headers, sizes = {}, {}, {}
    for i, names in enumerate(shards, 1):
        file = folder / (
            "model.safetensors" if len(shards) == 1 else f"model-{i:05}-of-{len(shards):05}.safetensors"
        )
        names = sorted(names, key=lambda name: -SIZES[tensors[name][0]])  # wider types first keep all aligned
        headers[file], infos = _header(file, {name: tensors[name] for name in names})
        placed |= infos
        sizes[file] = len(headers[file]) + sum(info.nbytes for info in infos.values())
    return Layout({name: placed[name] for name in tensors}, headers, sizes)


def _header(
    file: Path, tensors: Mapping[str, tuple[str, tuple[int, ...]]]
) -> tuple[bytes, dict[str, TensorInfo]]:
    entries, at = {}, 0
    for name, (dtype, shape) in tensors.items():
        n = math.prod(shape) * SIZES[dtype]
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + n]}
        at += n
    text = json.dumps({"__metadata__": {"format": "pt"}, **entries}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    head = len(text).to_bytes(8, "little") + text
    infos = {
        name: TensorInfo(
            name,
            spec["dtype"],
            tuple(spec["shape"]),
            file,
            len(head) + spec["data_offsets"][0],
            spec["data_offsets"][1] - spec["data_offsets"][0],
        )
        for name, spec in entries.items()
    }
    return head, infos


def index(layout: Layout) -> str | None:
    """The text of `model.safetensors.index.json`; None for a single file."""
    if len(layout.headers) == 1:
        return None
    total = sum(info.nbytes for info in layout.tensors.values())
    places = {name: info.file.name for name, info in sorted(layout.tensors.items())}
    return json.dumps({"metadata": {"total_size": total}, "weight_map": places}, indent=2) + "\n"


def check_space(folder: Path, nbytes: int) -> None:
    """Raise `HarnessError` unless the disk of `folder` (which need not exist yet) has room for `nbytes`."""
    stat = os.statvfs(existing(folder))
    free = stat.f_bavail * stat.f_frsize
    if nbytes + SLACK > free:
        raise HarnessError(
            f"{folder} needs {_size(nbytes + SLACK)} and its disk has {_size(free)} free",
            "free some space, choose another folder, or merge fewer rows at once",
        ) from OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e9:.2f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.1f} MB"


def existing(folder: Path) -> Path:
    """`folder`, or the nearest folder above it that exists."""
    while not folder.exists():
        folder = folder.parent
    return folder


class Files:
    """The open files of a layout. `create` makes them; `write` puts bytes at a place of a tensor."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._stack = ExitStack()
        self._fds: dict[Path, int] = {}
        # A file system lets one writer into a file at a time; threads that queue there would spin.
        self._locks = {file: threading.Lock() for file in layout.headers}

    def create(self) -> None:
        """Make every file at its full size with its header; the disk space is taken now, not later."""
        for file, head in self.layout.headers.items():
            fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
            try:
                _allocate(fd, self.layout.sizes[file])
                os.pwrite(fd, head, 0)
            finally:
                os.close(fd)

    def open(self) -> None:
        for file in self.layout.headers:
            fd = os.open(file, os.O_RDWR)
            self._stack.callback(os.close, fd)
            self._fds[file] = fd

    def write(self, name: str, offset: int, data: memoryview) -> None:
        """Write `data` at byte `offset` of tensor `name`."""
        info = self.layout.tensors[name]
        if offset + data.nbytes > info.nbytes:
            raise ValueError(f"{data.nbytes} bytes at {offset} do not fit `{name}` ({info.nbytes} bytes)")
        fd, at = self._fds[info.file], info.start + offset
        with self._locks[info.file]:
            while data.nbytes:
                n = os.pwrite(fd, data, at)
                data, at = data[n:], at + n

    def close(self) -> None:
        self._stack.close()


def _allocate(fd: int, size: int) -> None:
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        import errno

        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
        os.ftruncate(fd, size)  # a file system that cannot reserve; a full disk then shows when writing
