"""The units of work, and the `TensorGroup` that a method sees of one: its tensors are read when they are
first looked at, so an input that no method of a pass uses is not read. Torch-free: what a tensor is, the
buffers know."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.checkpoint.read import FLOATS, SIZES, Checkpoint, TensorInfo
from harness.checkpoint.reader import Reader
from harness.errors import HarnessError
from harness.masking import lazy
from harness.method import CHUNK, TensorGroup

if TYPE_CHECKING:
    from torch import Tensor

LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|block)\.(\d+)\.")
EMBEDDINGS = {"wte": "embed_tokens", "wpe": "embed_positions", "word_embeddings": "embed_tokens"}
BASE = ("base", "")
Source = tuple[str, str]  # ("base", ""), ("expert", role) or ("statistic", path)


class InputError(HarnessError):
    """An input is at fault, not the method that looked at it: ends the whole merge."""


class InPlaceError(InputError):
    """A method wrote into the shared blocks: what the other jobs saw since is wrong, so all of them end."""


@dataclass(frozen=True)
class Unit:
    """Elements `offset` to `offset + length` of a tensor. `index` counts the blocks of the model in order; it
    is -1 for a stretch that is only a sample."""

    info: TensorInfo
    offset: int
    length: int
    index: int
    layer: int | None
    module: str

    @property
    def name(self) -> str:
        return self.info.name


def units_of(tensors: Mapping[str, TensorInfo], block: int) -> list[Unit]:
    """The blocks of all tensors, in order."""
    found: list[Unit] = []
    for info in tensors.values():
        layer, module = place_of(info.name)
        for offset in range(0, info.numel, block):
            found.append(Unit(info, offset, min(block, info.numel - offset), len(found), layer, module))
    return found


def place_of(name: str) -> tuple[int | None, str]:
    """(decoder layer, module) of a tensor: `model.layers.3.mlp.up_proj.weight` is (3, `mlp.up_proj`)."""
    found = LAYER.search(name)
    module = name[found.end() :] if found else re.sub(r"^(model|transformer|language_model)\.", "", name)
    module = re.sub(r"\.(weight|bias)$", "", module)
    return (int(found[1]) if found else None), EMBEDDINGS.get(module, module)


class Sources:
    """Where the elements of every input lie: source -> tensor name -> place. Shared by all threads."""

    def __init__(self, allow_nonfinite: bool) -> None:
        self.reader = Reader()
        self.places: dict[Source, Mapping[str, TensorInfo]] = {}
        self.allow_nonfinite = allow_nonfinite
        self._clean: set[tuple[Source, int]] = set()

    def check(self, source: Source, unit: Unit, values: Tensor, buffers: Any) -> None:
        """Raise `InputError` when `values` are not all finite. A block is looked at once."""
        if self.allow_nonfinite or (source, unit.index) in self._clean:
            return
        if lazy(values):  # known when it is computed
            buffers.watch(values, lambda: self._nonfinite(source, unit, buffers.eager()))
            return
        if buffers.unstorable(values, "F32"):
            raise self._nonfinite(source, unit, buffers)
        if unit.index >= 0:
            self._clean.add((source, unit.index))

    def _nonfinite(self, source: Source, unit: Unit, buffers: Any) -> InputError:
        info, count = self.places[source][unit.name], 0
        for offset in range(0, info.numel, CHUNK):
            values = buffers.load(self.reader, info, offset, min(CHUNK, info.numel - offset), "check")
            count += buffers.unstorable(values, "F32")
        kind, role = source
        who = {"base": "the base", "expert": f"expert `{role}`"}.get(kind, f"statistic {role}")
        return InputError(
            f"{who} has {count} NaN or infinite values of {info.numel} in `{unit.name}` ({info.file})",
            "use an intact checkpoint, or merge it as it is: `--allow-nonfinite`",
        )


class Lazy(Mapping[str, "Tensor"]):
    """A mapping whose values are made when they are first asked for."""

    def __init__(self, keys: Mapping[str, object] | tuple[str, ...], get: Callable[[str], Tensor]) -> None:
        self._keys, self._get = keys, get

    def __getitem__(self, key: str) -> Tensor:
        if key not in self._keys:
            raise KeyError(key)
        return self._get(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


class Block(TensorGroup):
    """The group of one unit, for all jobs in turn: `view` sets what differs between them."""

    def __init__(
        self, unit: Unit, depth: int, sources: Sources, buffers: Any, roles: tuple[str, ...]
    ) -> None:
        self.unit, self.depth, self.seed = unit, depth, 0
        self.name, self.module, self.layer = unit.name, unit.module, unit.layer
        self.shape, self.offset, self.length = unit.info.shape, unit.offset, unit.length
        self._sources, self.buffers = sources, buffers
        self._loaded: dict[object, tuple[Tensor, int]] = {}
        self._experts = Lazy(roles, lambda role: self._load(("expert", role)))
        self._differences = Lazy(roles, self._delta)
        self._scores: Mapping[str, Tensor] = {}
        self._score_views: dict[int, Lazy] = {}
        self._made: dict[object, object] = {}
        self.shared: dict[object, object] = {}  # what the engine derives from the inputs, for all jobs

    def view(self, seed: int, scores: Mapping[str, Checkpoint]) -> Block:
        """This block as a job sees it: its seed and its statistics."""
        self.seed = seed
        self._made.clear()
        if id(scores) not in self._score_views:
            self._score_views[id(scores)] = Lazy(
                scores, lambda key: self._load(("statistic", str(scores[key].path)))
            )
        self._scores = self._score_views[id(scores)]
        return self

    def __enter__(self) -> Block:
        return self

    def __exit__(self, *_: object) -> None:
        # The group and its mappings are a cycle, which must not hold the buffers.
        for held in (self._loaded, self._made, self.shared):
            held.clear()

    @property
    def base(self) -> Tensor:
        return self._load(BASE)

    @property
    def experts(self) -> Mapping[str, Tensor]:
        return self._experts

    @property
    def scores(self) -> Mapping[str, Tensor]:
        return self._scores

    @property
    def deltas(self) -> Mapping[str, Tensor]:
        return self._differences

    def stored_base(self, code: str) -> memoryview:
        """The base's bytes as they are stored with dtype `code`, until the next block: what the file holds,
        where that is its dtype."""
        info = self._sources.places[BASE][self.name]
        if info.dtype != code or SIZES[code] != 2:
            return self.buffers.stored(self.base, code, f"base {code}")
        held = self.buffers.raw("base", 2 * self.length)
        if BASE not in self._loaded:
            self._sources.reader.read(info, 2 * self.offset, held)
        return held

    def drawn(self, role: str, share: float) -> Tensor:
        own = getattr(self.buffers, "drawn", None)
        return own(share, self.seed, role, self.name) if own else super().drawn(role, share)

    def uniform(self, role: str) -> Tensor:
        own = getattr(self.buffers, "uniform", None)
        return own(self.seed, role, self.name) if own else super().uniform(role)

    def written_into(self) -> bool:
        """Whether somebody changed a shared tensor in place (torch counts the writes)."""
        return any(tensor._version != version for tensor, version in self._loaded.values())

    def _load(self, source: Source) -> Tensor:
        if source not in self._loaded:
            info = self._sources.places[source][self.name]
            room = "base" if source == BASE else "raw"
            tensor = self.buffers.load(self._sources.reader, info, self.offset, self.length, source, room)
            self._sources.check(source, self.unit, tensor, self.buffers)
            self._loaded[source] = tensor, tensor._version
        return self._loaded[source][0]

    def _delta(self, role: str) -> Tensor:
        key = ("delta", role)
        if key not in self._loaded:
            expert, base = self._load(("expert", role)), self._load(BASE)
            tensor = self.buffers.difference(expert, base, key)
            self._loaded[key] = tensor, tensor._version
        return self._loaded[key][0]


def mergeable(info: TensorInfo) -> bool:
    """Whether a tensor holds weights; whole numbers (position ids) are copied from the base instead."""
    if info.dtype.startswith("F8") or info.dtype == "F64":
        raise HarnessError(
            f"`{info.name}` is stored as {info.dtype}", "convert it: " + ", ".join(FLOATS.values())
        )
    return info.dtype in FLOATS
