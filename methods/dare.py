"""DARE: drop task-vector entries at random, rescale the rest, then add (`linear`) or merge by TIES (`ties`).

Language Models are Super Mario (arXiv:2311.03099, section 3); code github.com/yule-BUAA/MergeLM. An entry
is kept with probability `density` = 1 - p, and multiplied by 1 / density. `variant: ties` hands the
result to TIES, which trims it to `trim` first (the code's default keeps 0.2).
Ours differs: random numbers belong to (seed, role, tensor, element), so threads and shards change nothing,
where the code draws from a global generator; `weights` are an addition, neutral by default; `rescale: l1`
is mergekit's factor, which restores each tensor's L1 norm (1 where a norm is below 1e-7).
"""

from typing import Literal

from harness import Reduce, merge_method, ops, param, selection

Depth = float | list[float]


@merge_method("dare", title="DARE", paper="arXiv:2311.03099")
class Dare:
    density: Depth = param(0.1, "chance to keep an entry; a list is over depth", low=1e-6, high=1, noop=1.0)
    scale: Depth = param(1.0, "lambda, factor of what is added; a list is over depth", noop=0.0)
    weights: dict[str, float] = param({}, "weight of an expert by role; an expert not named has 1")
    variant: Literal["linear", "ties"] = param("linear", "how the thinned task vectors are merged")
    rescale: Literal["exact", "l1", "none"] = param("exact", "by 1 / density, to the L1 norm, or not")
    trim: float = param(0.2, "share TIES keeps of a thinned task vector", low=0, high=1, noop=1.0)

    def needs(self, roles):
        ops.by_role(self.weights, 1.0, roles, "weights")
        return ()

    def degenerate(self, roles):
        same = {"linear": "task arithmetic", "ties": "TIES with density `trim`"}[self.variant]
        return ops.said((ops.zero(self.scale), "scale 0: the result is the base"),
                        (self.density == 1, f"density 1: nothing is dropped, this is {same}"))

    def prepare(self, layout):
        norms, roles = {}, layout.roles
        if self.rescale == "l1" and self.density != 1:
            norms = yield {r: Reduce(lambda group, r=r: self.norms(group, r), scope="tensor") for r in roles}
        if self.variant == "ties":
            return (yield from selection.ties(lambda g, r: self.thinned(g, r, norms), roles, self.trim))
        return lambda g: ops.total(self.thinned(g, r, norms) for r in roles)

    def kept(self, group, role):
        return group.deltas[role] * (group.uniform(role) < group.at(self.density))

    def norms(self, group, role):
        return ops.magnitudes(group.deltas[role], self.kept(group, role))

    def thinned(self, group, role, norms):
        density, factor = group.at(self.density), self.weights.get(role, 1.0)
        if density == 1:
            return group.deltas[role] * factor
        before, after = norms[role].value(group).tolist() if norms else (1.0, density)
        if self.rescale != "none" and min(before, after) >= 1e-7:
            factor *= before / after
        return self.kept(group, role).mul_(factor)

    def merge(self, group, merged):
        return ops.add_scaled(group.base, merged(group), group.at(self.scale))
