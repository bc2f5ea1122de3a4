"""DARE: drop task-vector entries at random, rescale the rest, then add (`linear`) or merge by TIES (`ties`).

Language Models are Super Mario (arXiv:2311.03099, section 3); code github.com/yule-BUAA/MergeLM. An entry
is kept with probability `density` = 1 - p, and multiplied by 1 / density. `variant: ties` hands the
result to TIES, which trims it to `trim` first (the code's default keeps 0.2).
Ours differs: random numbers belong to (seed, role, tensor, element), so threads and shards change nothing,
where the code draws from a global generator; `weights`, `normalize` are additions, neutral by default.
`profile: mergekit` (its dare_linear and dare_ties): each tensor's L1 norm is restored instead (but by 1
where one is below 1e-7), nothing is trimmed, signs are elected on weighted vectors, as in its TIES. Ours
differs from mergekit 0.1.5 in the random numbers alone.
"""

from typing import Literal

from harness import merge_method, ops, param, signs

Depth = float | list[float]


@merge_method("dare", title="DARE", paper="arXiv:2311.03099", plain=True, draws=signs.thins)
class Dare:
    profile: Literal["paper", "mergekit"] = param("paper", "the paper's form, or mergekit's")
    density: Depth = param(0.1, "chance to keep an entry; a list is over depth", low=1e-6, high=1, noop=1.0)
    scale: Depth = param(1.0, "lambda, factor of what is added; a list is over depth", noop=0.0)
    weights: dict[str, float] = param({}, "weight of an expert by role; an expert not named has 1")
    variant: Literal["linear", "ties"] = param("linear", "how the thinned task vectors are merged")
    rescale: Literal["exact", "l1", "none"] | None = param(None, "paper: exact (1 / density); mergekit: l1")
    trim: float = param(0.2, "share TIES keeps (paper)", low=0, high=1, noop=1.0)
    normalize: bool = param(False, "divide by the sum of the weights (not in the paper's TIES)")

    def needs(self, roles):
        ops.by_role(self.weights, 1.0, roles, "weights")
        ops.refuse((self.trims and self.normalize, "`normalize` with the paper's TIES", "profile: mergekit"))
        return ()

    def degenerate(self, roles):
        same = "task arithmetic" if self.variant == "linear" else f"TIES{' to `trim`' * self.trims}"
        said = ops.said(
            (ops.zero(self.scale), "scale 0: the result is the base"),
            (ops.one(self.density), f"density 1: nothing is dropped, this is {same}"),
            (self.trim != 0.2 and not self.trims, "`trim` is read by the paper's TIES alone"),
        )
        return said + ops.alike(ops.by_role(self.weights, 1.0, roles, "weights"), self.normalize)

    @property
    def trims(self):
        return (self.profile, self.variant) == ("paper", "ties")

    def prepare(self, layout):
        weights, norms = ops.by_role(self.weights, 1.0, layout.roles, "weights"), {}
        rescale = self.rescale or ("exact" if self.profile == "paper" else "l1")
        if rescale == "l1" and not ops.one(self.density):
            norms = yield signs.norms(weights, self.density)
        return (yield from signs.dare(self, weights, rescale, norms))

    def merge(self, group, merged):
        return ops.add_scaled(group.base, merged(group), group.at(self.scale))

    masks = signs.masks
