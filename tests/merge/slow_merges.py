"""Methods for the engine's tests, each with a reference that holds the whole model at once in numpy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from harness import Cut, Reduce, merge_method, param

Model = dict[str, np.ndarray]  # name -> flat float32, in the engine's order


@merge_method("test_add", title="add")
class Add:
    scale: float = param(0.3, "of the sum of task vectors")

    def merge(self, group, state):
        out = group.base.clone()
        for delta in group.deltas.values():
            out += self.scale * delta
        return out


@merge_method("test_trim", title="trim")
class Trim:
    keep: float = param(0.2, "share")
    end: str = param("highest", "end")
    scope: str = param("global", "scope")
    ties: str = param("exact", "ties")
    at_least: int = param(0, "floor")
    narrow: bool = param(False, "rank only where the base is positive")

    def prepare(self, layout):
        where = (lambda g: g.base > 0) if self.narrow else None
        return (
            yield {
                role: Cut(
                    lambda g, role=role: g.deltas[role].abs(),
                    self.keep,
                    self.end,
                    self.scope,
                    where,
                    self.ties,
                    self.at_least,
                )
                for role in layout.roles
            }
        )

    def merge(self, group, cuts):
        out = group.base.clone()
        for role, delta in group.deltas.items():
            out += delta * cuts[role].mask(group)
        return out


@merge_method("test_elect", title="a cut, then a reduction that depends on it")
class Elect:
    keep: float = param(0.3, "share")

    def prepare(self, layout):
        cuts = yield [Cut(lambda g, role=role: g.deltas[role].abs(), self.keep) for role in layout.roles]
        roles = layout.roles

        def kept(group):
            return torch.stack([group.deltas[r] * c.mask(group) for r, c in zip(roles, cuts, strict=True)])

        total, most = yield (Reduce(kept), Reduce(lambda g: kept(g).abs(), "max", "tensor"))
        return cuts, total, most

    def merge(self, group, state):
        cuts, total, most = state
        gain = (total.value(group) + most.value(group)).float()
        return group.base + sum(
            gain[i] * delta * cuts[i].mask(group) for i, delta in enumerate(group.deltas.values())
        )


@merge_method("test_noise", title="random numbers")
class Noise:
    keep: float = param(0.5, "share")

    def prepare(self, layout):
        return (yield Cut(lambda g: g.uniform("noise"), self.keep, "lowest"))

    def merge(self, group, cut):
        return group.base + 0.01 * group.uniform("noise") * cut.mask(group)


@merge_method("test_nested", title="a cut among what another cut keeps")
class Nested:
    keep: float = param(0.4, "share")

    def prepare(self, layout):
        role = layout.roles[0]
        outer = yield Cut(lambda g: g.deltas[role].abs(), self.keep)
        inner = yield Cut(lambda g: g.experts[role].abs(), self.keep, "lowest", where=outer.mask)
        return role, inner

    def merge(self, group, state):
        role, inner = state
        return group.base + group.deltas[role] * inner.mask(group)


def cut_mask(values: Model, where: Model | None, m: Trim) -> Model:
    """Exactly what a cut keeps: a stable sort of everything, ties in order of place."""
    masks = {}
    parts = [list(values)] if m.scope == "global" else [[name] for name in values]
    for names in parts:
        flat = np.concatenate([values[name] for name in names])
        allowed = np.concatenate([where[name] for name in names]) if where else np.ones(len(flat), bool)
        places = np.flatnonzero(allowed)
        k = min(max(int(m.keep * len(places)), m.at_least), len(places))
        key = -flat[places] if m.end == "highest" else flat[places]
        order = places[np.argsort(key, kind="stable")]
        mask = np.zeros(len(flat), bool)
        mask[order[:k]] = True
        if m.ties == "all" and k:
            mask |= allowed & (flat == flat[order[k - 1]])
        at = 0
        for name in names:
            masks[name] = mask[at : at + len(values[name])]
            at += len(values[name])
    return masks


def trim(base: Model, experts: Mapping[str, Model], m: Trim) -> Model:
    out = {name: tensor.copy() for name, tensor in base.items()}
    where = {name: tensor > 0 for name, tensor in base.items()} if m.narrow else None
    for expert in experts.values():
        deltas = {name: expert[name] - base[name] for name in base}
        masks = cut_mask({name: np.abs(delta) for name, delta in deltas.items()}, where, m)
        for name in base:
            out[name] += deltas[name] * masks[name]
    return out


def elect(base: Model, experts: Mapping[str, Model], m: Elect) -> Model:
    kept = []
    for expert in experts.values():
        deltas = {name: expert[name] - base[name] for name in base}
        masks = cut_mask({name: np.abs(d) for name, d in deltas.items()}, None, Trim(keep=m.keep))
        kept.append({name: deltas[name] * masks[name] for name in base})
    total = [sum(float(t.astype(np.float64).sum()) for t in one.values()) for one in kept]
    out = {}
    for name in base:
        out[name] = base[name].copy()
        for i, one in enumerate(kept):
            gain = np.float32(total[i] + np.abs(one[name]).max())
            out[name] += gain * one[name]
    return out


def nested(base: Model, experts: Mapping[str, Model], m: Nested) -> Model:
    expert = next(iter(experts.values()))
    deltas = {name: expert[name] - base[name] for name in base}
    outer = cut_mask({name: np.abs(d) for name, d in deltas.items()}, None, Trim(keep=m.keep))
    inner = cut_mask({name: np.abs(expert[name]) for name in base}, outer, Trim(keep=m.keep, end="lowest"))
    return {name: base[name] + deltas[name] * inner[name] for name in base}
