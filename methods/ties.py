"""TIES: trim each task vector to its largest entries, elect a sign per element, average those that agree.

TIES-Merging (arXiv:2306.01708, Algorithm 1); code github.com/prateeky2806/ties-merging @44e7891. Trim: of
each expert the entries of magnitude >= the (d - int(d * density))-th smallest of the model. Elect: the
sign of the trimmed vectors' sum; where it is zero, the sign elected by most elements. Merge: the mean of the
non-zero entries of the elected sign, times `scale`, on the base.
Ours differs from the code: density 1 keeps all (there it is an error); should the elected signs of all
elements cancel exactly, an element without a sign stays at the base (there it takes its negative entries).
mergekit's `ties` is another method: it trims per tensor, and elects on weighted vectors.
"""

from harness import merge_method, ops, param, selection


def delta(group, role):
    return group.deltas[role]


@merge_method("ties", title="TIES", paper="arXiv:2306.01708")
class Ties:
    density: float = param(0.2, "share of each task vector kept, by magnitude", low=0, high=1, noop=1.0)
    scale: float | list[float] = param(1.0, "lambda, factor of what is added; a list is over depth", noop=0.0)

    def degenerate(self, roles):
        mean = "task arithmetic" if len(roles) == 1 else "where signs agree, the mean of the experts"
        return ops.said(
            (ops.zero(self.scale), "scale 0: the result is the base"),
            (self.density == 1, f"density 1: nothing is trimmed, this is {mean}"),
        )

    def prepare(self, layout):
        return (yield from selection.ties(delta, layout.roles, self.density))

    def merge(self, group, merged):
        return ops.add_scaled(group.base, merged(group), group.at(self.scale))
