"""What a checkpoint holds: names, dtypes, shapes and the place of every tensor's bytes. Reads headers only.

The safetensors format is 8 bytes of header length (little endian), a JSON header, then the data; offsets in
the header count from the end of the header (https://github.com/huggingface/safetensors, "Format")."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.errors import HarnessError

SIZES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U64": 8,
    "U32": 4,
    "U16": 2,
    "U8": 1,
    "BOOL": 1,
}
FLOATS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}  # what can be merged, by torch's names
HEADER_LIMIT = 100_000_000  # bytes; the limit of the format's own library
HEAD = "lm_head.weight"
EMBEDDING = "model.embed_tokens.weight"


@dataclass(frozen=True)
class TensorInfo:
    """One stored tensor: `dtype` is the format's code (`BF16`), `start` an absolute byte offset in `file`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int
    nbytes: int

    @property
    def numel(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Checkpoint:
    """A model folder (or a single safetensors file): `tensors` by name in natural order, and its `config`.
    `name` is printed where the folder's own says nothing (a converted model lies in the store)."""

    path: Path
    tensors: dict[str, TensorInfo]
    config: dict[str, Any]
    name: str = ""

    @classmethod
    def open(cls, path: str | Path) -> Checkpoint:
        """Read the headers of a folder with safetensors (one file, or shards with their index) or of one
        file.

        Raises `HarnessError` when nothing is there, a shard is missing, a header or an index is damaged,
        offsets overlap or leave the file, or the index and the shards disagree.
        """
        path = Path(path)
        if not path.exists():
            raise HarnessError(f"no checkpoint at {path}", "give a folder with config.json and *.safetensors")
        if path.is_file():
            return cls(path, _in_order(read_header(path)), {})
        found = _indexed(path) if _index(path) else _unindexed(path)
        return cls(path, _in_order(found), _config(path))

    @cached_property
    def tied(self) -> bool:
        """Whether the output head is the embedding. A config that does not say so is judged by what is
        stored."""
        for section in (self.config, self.config.get("text_config") or {}):
            if section.get("tie_word_embeddings") is not None:
                return bool(section["tie_word_embeddings"])
        return HEAD not in self.tensors

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """The safetensors files, sorted."""
        return tuple(sorted({info.file for info in self.tensors.values()}))

    @property
    def label(self) -> str:
        """A name to print."""
        return self.name or label_of(self.path)


def label_of(path: Path) -> str:
    """The hub id when a folder is in the hub's cache, else the folder's name."""
    for part in path.parts:
        if part.startswith("models--"):
            return part.removeprefix("models--").replace("--", "/", 1)
    return path.parent.name if path.name == "model" else path.name  # as the store keeps them


def natural_key(name: str) -> list[Any]:
    """Sort key under which `layers.2` comes before `layers.10`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name) if part]


def read_header(file: Path) -> Iterator[TensorInfo]:
    """The tensors of one safetensors file, checked against the file's size."""
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if size < 8 or length > min(size - 8, HEADER_LIMIT):
                raise _damaged(file, f"the header claims {length} bytes and the file has {size}")
            raw = stream.read(length)
    except OSError as error:
        raise HarnessError(
            f"cannot read {file}: {error.strerror}", "check that the download is complete"
        ) from error
    try:
        header = json.loads(raw)
        entries = [
            _entry(file, name, spec, 8 + length) for name, spec in header.items() if name != "__metadata__"
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(file, f"the header cannot be read ({type(error).__name__})") from error
    _check_offsets(file, entries, 8 + length, size)
    yield from entries


def _entry(file: Path, name: str, spec: dict[str, Any], data: int) -> TensorInfo:
    dtype, shape = spec["dtype"], tuple(int(side) for side in spec["shape"])
    begin, end = (int(offset) for offset in spec["data_offsets"])
    if dtype not in SIZES:
        raise HarnessError(f"{file}: tensor `{name}` has dtype {dtype}", "known: " + ", ".join(SIZES))
    if min(shape, default=0) < 0 or begin < 0 or end - begin != math.prod(shape) * SIZES[dtype]:
        raise _damaged(file, f"tensor `{name}` ({dtype} {list(shape)}) does not take bytes {begin} to {end}")
    return TensorInfo(name, dtype, shape, file, data + begin, end - begin)


def _check_offsets(file: Path, entries: list[TensorInfo], data: int, size: int) -> None:
    """Tensors follow each other without gap or overlap, and fill the file."""
    at, before = data, "the header"
    for info in sorted(entries, key=lambda info: (info.start, info.nbytes)):
        if info.start != at:
            raise _damaged(
                file,
                f"tensor `{info.name}` overlaps {before}"
                if info.start < at
                else f"there is a gap before tensor `{info.name}`",
            )
        at, before = info.start + info.nbytes, f"`{info.name}`"
    if at != size:
        raise _damaged(file, f"the header describes {at} bytes and the file has {size}")


def _damaged(file: Path, fact: str) -> HarnessError:
    return HarnessError(f"{file} is truncated or corrupt: {fact}", "download or write the file again")


def _in_order(found: Iterator[TensorInfo]) -> dict[str, TensorInfo]:
    tensors: dict[str, TensorInfo] = {}
    for info in found:
        if info.name in tensors:
            raise HarnessError(
                f"tensor `{info.name}` is in both {tensors[info.name].file.name} and {info.file.name}",
                f"leave one checkpoint in {info.file.parent}",
            )
        tensors[info.name] = info
    return {name: tensors[name] for name in sorted(tensors, key=natural_key)}


def _index(folder: Path) -> Path | None:
    index = folder / "model.safetensors.index.json"
    return index if index.is_file() and not (folder / "model.safetensors").is_file() else None


def _indexed(folder: Path) -> Iterator[TensorInfo]:
    """The tensors that the index names, each in the shard it names."""
    index = folder / "model.safetensors.index.json"
    try:
        wanted = {
            str(name): str(file) for name, file in json.loads(index.read_text("utf-8"))["weight_map"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(index, f"no `weight_map` can be read ({type(error).__name__})") from error
    for shard in sorted(set(wanted.values())):
        if Path(shard).name != shard or not (folder / shard).is_file():
            raise HarnessError(
                f"shard {folder / shard} is missing", f"{index.name} names it: download it again"
            )
        held = {info.name: info for info in read_header(folder / shard)}
        absent = sorted(name for name, file in wanted.items() if file == shard and name not in held)
        if absent:
            raise HarnessError(
                f"{index} names tensors that {shard} does not hold ({len(absent)}): `{absent[0]}`",
                "the index and the shards come from different models: download them again",
            )
        stray = sorted(name for name in held if wanted.get(name) != shard)
        if stray:
            raise HarnessError(
                f"{shard} holds tensors that {index} does not name ({len(stray)}): `{stray[0]}`",
                "the index and the shards come from different models: download them again",
            )
        yield from held.values()


def _unindexed(folder: Path) -> Iterator[TensorInfo]:
    """`model.safetensors`, or all safetensors files of a folder without index (gradient statistics are
    such)."""
    single = folder / "model.safetensors"
    files = [single] if single.is_file() else sorted(folder.glob("*.safetensors"))
    if not files:
        others = sorted(file.name for file in [*folder.glob("*.bin"), *folder.glob("adapter_*")])
        raise HarnessError(
            f"no safetensors file in {folder}" + (f" (found {', '.join(others[:3])})" if others else ""),
            "save the model with `save_pretrained`, which writes safetensors",
        )
    for file in files:
        if numbered := re.search(r"-of-(\d+)\.safetensors$", file.name):
            if len(files) != int(numbered[1]):
                raise HarnessError(
                    f"{folder} has {len(files)} of {int(numbered[1])} shards and no index",
                    "download the missing files again",
                )
    for file in files:
        yield from read_header(file)


def _config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    if not file.is_file():
        return {}
    try:
        config = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise HarnessError(f"{file} is not JSON: {error}", "download the file again") from error
    if not isinstance(config, dict):
        raise HarnessError(
            f"{file} holds a {type(config).__name__}, not an object", "download the file again"
        )
    return config
