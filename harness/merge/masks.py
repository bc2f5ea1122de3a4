"""What the masks of a method select, counted while its blocks are written: `masks.json`. Torch-free.

Counts are exact. Energies are squared norms of every 65 536 elements, added pairwise in float32 (a few parts
in ten million); these are added exactly and rounded once: no order of blocks, no number of threads and no
kill can show in the file."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.checkpoint.read import FLOATS, SIZES, TensorInfo
from harness.errors import HarnessError
from harness.merge.block import EMBEDDINGS, Block, place_of
from harness.method import CHUNK

if TYPE_CHECKING:
    from torch import Tensor

TILE = 1024  # elements of a squared norm whose squares are added by halves
MOST = 0.9  # more than this share of a selection without effect is said
COUNTS = ("selected", "before", "zero_delta", "zero_gradient", "unchanged")  # of a role
Tally = dict[str, Any]  # elements, unchanged, roles: {role: COUNTS (None: not known), energy: [kept, whole]}
Pairs = dict[str, "tuple[Tensor, Tensor | None]"]  # role -> (mask, mask before exclusion)


class Figures:
    """The tallies of one streaming job. All threads call `part` and `add`; `tensor` comes once a tensor."""

    def __init__(self, method: Any, roles: Sequence[str]) -> None:
        self.method, self.roles = method, tuple(roles)
        self.masked = hasattr(method, "masks")
        needs = method.needs(self.roles) if self.masked and hasattr(method, "needs") else ()
        self.scores: dict[str, str] = {}  # role -> key of the statistic that selects
        for need in needs:
            if need.model == "expert" and need.kind != "votes":
                self.scores.setdefault(need.role, need.key)
        self._parts: dict[str, list[Tally]] = {}
        self._lock = threading.Lock()

    def masks(self, group: Block, state: Any) -> Pairs:
        """The method's masks of a block. Raises `HarnessError` for what the contract does not allow."""
        if not self.masked:
            return {}
        found = self.method.masks(group, state)
        pairs = {role: mask if isinstance(mask, tuple) else (mask, None) for role, mask in found.items()}
        for role, pair in pairs.items():
            if role not in self.roles:
                raise HarnessError(f"`masks` names the role `{role}`", "one of " + ", ".join(self.roles))
            for mask in pair:
                if mask is not None and (str(mask.dtype) != "torch.bool" or mask.shape != (group.length,)):
                    raise HarnessError(
                        f"`masks` gave {mask.dtype} {list(mask.shape)} for {group.length} elements",
                        "one bool per element: a tensor, or a tuple (mask, mask before exclusion)",
                    )
            group.deltas[role]
            if role in self.scores:
                group.scores[self.scores[role]]
        return pairs

    def part(self, group: Block, pairs: Pairs, data: memoryview, code: str) -> Tally:
        """The tally of one block; `data` are its bytes as they are stored with dtype `code`."""
        stored = _once(
            group, ("stored base", code), lambda: np.frombuffer(group.stored_base(code), f"u{SIZES[code]}")
        )
        changed = np.frombuffer(data, stored.dtype) != stored
        roles = {role: self._role(group, role, *pair, changed) for role, pair in pairs.items()}
        return {"elements": group.length, "unchanged": group.length - _count(changed), "roles": roles}

    def add(self, name: str, part: Tally) -> None:
        """Take in the tally of one block of a tensor."""
        with self._lock:
            self._parts.setdefault(name, []).append(part)

    def tensor(self, name: str) -> Tally:
        """The tally of a tensor whose blocks have all been taken."""
        with self._lock:
            parts = self._parts.pop(name)
        return added(parts)

    def written(self, tallies: Mapping[str, Tally]) -> tuple[str, list[str]]:
        """The text of `masks.json` from the tallies by tensor, in their order, and what is to be said."""
        return written(type(self.method).method_name, self.masked, tallies)

    def _role(
        self, group: Block, role: str, mask: Tensor, before: Tensor | None, changed: np.ndarray
    ) -> dict[str, Any]:
        own = mask.cpu().numpy()
        delta = _once(group, ("delta", role), lambda: group.deltas[role].cpu().numpy())
        selected = _count(own)
        nonzero = _once(group, ("nonzero", role), lambda: delta != 0)
        whole = _once(group, ("energy", role), lambda: _energy(delta))
        zero_gradient = None
        if role in self.scores:
            score = group.scores[self.scores[role]]
            zero = _once(group, ("zero", id(score)), lambda: score.cpu().numpy() == 0)
            zero_gradient = _count(own & zero)
        return {
            "selected": selected,
            "before": None if before is None else _count(before.cpu().numpy()),
            "zero_delta": selected - _count(own & nonzero),
            "zero_gradient": zero_gradient,
            "unchanged": selected - _count(own & changed),
            "energy": [_energy(np.multiply(delta, own)), whole],
        }


def _once(group: Block, key: Any, make: Any) -> Any:
    """What all jobs of the pass share in a block."""
    if key not in group.shared:
        group.shared[key] = make()
    return group.shared[key]


def _bits(buffers: Any, values: Any, code: str) -> np.ndarray:
    """float32 values as they are stored with dtype `code`, as whole numbers, in a place of their own."""
    return np.frombuffer(buffers.stored(values, code, f"base {code}"), f"u{SIZES[code]}")


def _count(mask: np.ndarray) -> int:
    return int(np.count_nonzero(mask))


def _energy(values: np.ndarray) -> list[float]:
    tiles = -(-len(values) // TILE)
    squares = np.zeros(tiles * TILE, np.float32)
    np.square(values, out=squares[: len(values)])
    folded, width = squares.reshape(tiles, TILE), TILE // 2
    while width:
        folded = folded[:, :width] + folded[:, width:]
        width //= 2
    found, norms = [], folded[:, 0].astype(np.float64)
    for at in range(0, tiles, CHUNK // TILE):  # one after the other, as the machine adds them
        found.append(float(np.cumsum(norms[at : at + CHUNK // TILE])[-1]))
    return found


def added(parts: Iterable[Tally]) -> Tally:
    """The tally of several blocks (their energies are lists), or of several tensors."""
    parts = list(parts)
    roles: dict[str, dict[str, Any]] = {}
    for role in {role: None for part in parts for role in part["roles"]}:
        own = [part["roles"][role] for part in parts if role in part["roles"]]
        roles[role] = {
            name: None if any(one[name] is None for one in own) else sum(one[name] for one in own)
            for name in COUNTS
        }
        roles[role]["energy"] = [_exact(one["energy"][i] for one in own) for i in (0, 1)]
    counts = {name: sum(part[name] for part in parts) for name in ("elements", "unchanged")}
    return {**counts, "roles": roles}


def _exact(energies: Iterable[Any]) -> float:
    """The correctly rounded sum."""
    return math.fsum(x for one in energies for x in (one if isinstance(one, list) else [one]))


def written(method: str, masked: bool, tallies: Mapping[str, Tally]) -> tuple[str, list[str]]:
    """See `Figures.written`; also of a whole-model method."""
    modules: dict[str, list[Tally]] = {}
    for name, tally in tallies.items():
        modules.setdefault(place_of(name)[1].split(".")[-1], []).append(tally)
    whole, by_module = added(tallies.values()), {name: added(own) for name, own in modules.items()}
    total = _shown(whole, masked)
    embedded = [by_module[name]["roles"] for name in sorted(set(EMBEDDINGS.values())) if name in by_module]
    for role, shown in total.get("roles", {}).items():
        shown["embeddings"] = sum(own[role]["selected"] for own in embedded if role in own)
        shown["embeddings_share"] = _share(shown["embeddings"], shown["selected"])
    file = {
        "method": method,
        "masks": masked,
        "total": total,
        "modules": {name: _shown(tally, masked) for name, tally in by_module.items()},
        "tensors": {name: _shown(tally, masked) for name, tally in tallies.items()},
    }
    return json.dumps(file, indent=1, allow_nan=False) + "\n", warnings(whole, masked)


def _share(part: int | float, whole: int | float) -> float | None:
    """None where there is nothing to be a share of, or an input was not finite."""
    return part / whole if whole and math.isfinite(part) and math.isfinite(whole) else None


def _shown(tally: Tally, masked: bool) -> dict[str, Any]:
    """A tally as it stands in the file: with shares, without what is not known."""
    n = tally["elements"]
    shown = {"elements": n, "unchanged": tally["unchanged"], "unchanged_share": _share(tally["unchanged"], n)}
    if not masked:
        return {**shown, "energy": 1.0}
    shown["roles"] = {}
    for role, own in tally["roles"].items():
        selected = own["selected"]
        facts = {"selected": selected, "selected_share": _share(selected, n)}
        if own["before"] is not None:
            facts["removed"] = own["before"] - selected
            facts["removed_share"] = _share(facts["removed"], own["before"])
        for name in ("zero_gradient", "zero_delta", "unchanged"):
            if own[name] is not None:
                facts |= {name: own[name], f"{name}_share": _share(own[name], selected)}
        shown["roles"][role] = {**facts, "energy": _share(*own["energy"])}
    return shown


def warnings(total: Tally, masked: bool) -> list[str]:
    """Sentences about a merge whose masks, or whose stored bytes, make it another than it seems."""
    if not masked:
        share = _share(total["unchanged"], total["elements"]) or 0
        return [f"{share:.1%} of the stored values are the base's"] if share > MOST else []
    said = []
    for role, own in total["roles"].items():
        selected = own["selected"]
        if not selected:
            said.append(f"{role}: the mask selects nothing")
            continue
        shares = {name: (own[name] or 0) / selected for name in COUNTS}
        if shares["zero_gradient"] > MOST:
            said.append(f"{role}: {shares['zero_gradient']:.1%} of the selected elements have a score of 0")
        if shares["zero_delta"] > MOST:
            said.append(f"{role}: {shares['zero_delta']:.1%} of the selected elements are the base's already")
        elif shares["unchanged"] > MOST:
            share = f"{shares['unchanged']:.1%}"
            said.append(f"{role}: {share} of the selected elements are stored with the base's value")
    return said


def compared(base: Mapping[str, TensorInfo], made: Mapping[str, TensorInfo]) -> dict[str, Tally]:
    """Tallies of a checkpoint that no block passed through: whose stored values are the base's."""
    from harness.checkpoint.blocks import Buffers, Reader

    reader, block, tallies = Reader(), 4 * CHUNK, {}
    buffers = Buffers(block)
    try:
        for name, info in base.items():
            if info.dtype not in FLOATS:
                continue
            same, code = 0, made[name].dtype
            for at in range(0, info.numel, block):
                n = min(block, info.numel - at)
                before = _bits(buffers, buffers.load(reader, info, at, n, "base"), code)
                after = buffers.stored(buffers.load(reader, made[name], at, n, "made"), code)
                same += _count(before == np.frombuffer(after, before.dtype))
            tallies[name] = {"elements": info.numel, "unchanged": same, "roles": {}}
    finally:
        reader.close()
    return tallies
