"""TIES: trim each task vector to its largest entries, elect a sign per element, average those that agree.

TIES-Merging (arXiv:2306.01708, Algorithm 1); code github.com/prateeky2806/ties-merging @44e7891: both are
`paper` and `official`. Trim: of each expert the magnitudes >= the (d - int(d * density))-th smallest of the
model. Elect: the sign of the trimmed sum; where that is 0, the sign elected by most elements. Merge:
the mean of the non-zero entries of that sign, times `scale`. Ours differs from the code: density 1 keeps all
(there an error); if all elected signs cancel, an element without one stays (there it takes its negatives).
`profile: mergekit`: trim per tensor to max(1, int(density * numel)), elect on the weighted vectors (0:
positive), divide by the agreeing weights under `normalize`. Ours differs from mergekit 0.1.5: magnitudes
equal at the cut are taken by index (there in the order of an unstable sort).
"""

from typing import Literal

from harness import merge_method, ops, param, signs

Depth = float | list[float]


def delta(group, role):
    return group.deltas[role]


@merge_method("ties", title="TIES", paper="arXiv:2306.01708", plain=True)
class Ties:
    profile: Literal["paper", "official", "mergekit"] = param("paper", "whose form; official is the paper's")
    density: Depth = param(0.2, "share kept; a list is over depth (mergekit)", low=0, high=1, noop=1.0)
    scale: Depth = param(1.0, "lambda, factor of what is added; a list is over depth", noop=0.0)
    weights: dict[str, float] = param({}, "mergekit: weight of an expert by role; one not named has 1")
    normalize: bool = param(True, "mergekit: divide by the sum of the agreeing weights")

    def needs(self, roles):
        ops.by_role(self.weights, 1.0, roles, "weights")
        given = {"weights": self.weights, "normalize": not self.normalize}
        given["density"] = isinstance(self.density, (list, tuple))
        ops.reserved(self.profile, "mergekit", **given)
        return ()

    def degenerate(self, roles):
        mean = "task arithmetic" if len(roles) == 1 else "where signs agree, the mean of the experts"
        said = ops.said(
            (ops.zero(self.scale), "scale 0: the result is the base"),
            (ops.one(self.density), f"density 1: nothing is trimmed, this is {mean}"),
        )
        return said + ops.alike(ops.by_role(self.weights, 1.0, roles, "weights"), self.normalize)

    def prepare(self, layout):
        if self.profile != "mergekit":
            return (yield from signs.ties(delta, layout.roles, self.density))
        weights = ops.by_role(self.weights, 1.0, layout.roles, "weights")
        return (yield from signs.mergekit_ties(delta, weights, self.density, self.normalize))

    def merge(self, group, merged):
        return ops.add_scaled(group.base, merged(group), group.at(self.scale))

    masks = signs.masks
