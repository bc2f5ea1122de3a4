"""SCE: select where experts differ most, weight each expert by the size of its change, erase minority signs.

FuseChat (arXiv:2408.07990). Per tensor: keep the int(select_topk * n) elements of the largest
variance between the task vectors, of the n whose variance is not zero; w_i = mean(tau_i^2) of what is kept,
normalised to sum 1, or uniform when their sum is below 1e-6 (light fine-tunes stay below); of each element
drop the entries against the sign of the sum; `theta0 + sum w_i tau_i / max(sum w_i, 1e-6)` over the rest.
This is the form of mergekit's `sce` (tests compare with mergekit 0.1.5). Rows that papers call
FuseLLM are most likely this with `select_topk: 1`. Ours differs: exactly int(select_topk * n) in float64
(there in float32, which can be one more or less), equal variances are taken by index; with one expert all
variances are 0; `scale` is an addition, neutral by default.
"""

from harness import Cut, Reduce, merge_method, ops, param

Depth = float | list[float]


def spread(group):
    return ops.variance(list(group.deltas.values()))


@merge_method("sce", title="SCE", paper="arXiv:2408.07990", plain=True)
class Sce:
    select_topk: Depth = param(1.0, "share kept, by variance; a list is over depth", low=0, high=1, noop=1.0)
    scale: Depth = param(1.0, "factor of what is added; a list is over depth", noop=0.0)

    def degenerate(self, roles):
        lone = len(roles) == 1 and not ops.one(self.select_topk)
        return ops.said(
            (ops.zero(self.scale), "scale 0: the result is the base"),
            (ops.zero(self.select_topk), "select_topk 0: the result is the base"),
            (lone, "one expert has no variance: nothing is selected"),
        )

    def prepare(self, layout):
        cut = None
        if not ops.one(self.select_topk):
            cut = yield Cut(spread, self.select_topk, scope="tensor", where=lambda g: spread(g) > 0)
        squares = yield Reduce(lambda group: ops.squares(self.selected(group, cut)), scope="tensor")
        return cut, squares

    def selected(self, group, cut):
        if cut is None or group.at(self.select_topk) == 1:
            return list(group.deltas.values())
        mask = group.once(cut, lambda: cut.mask(group))
        return [delta * mask for delta in group.deltas.values()]

    def merge(self, group, state):
        cut, squares = state
        deltas, means = self.selected(group, cut), (squares.value(group) / group.numel).tolist()
        whole = sum(means)
        weights = [m / whole if whole >= 1e-6 else 1 / len(means) for m in means]
        weighted = [delta * weight for delta, weight in zip(deltas, weights, strict=True)]
        found, divisor = ops.blend(weighted, ops.agreeing(deltas), weights)
        return ops.add_scaled(group.base, found.div_(divisor.clamp_(min=1e-6)), group.at(self.scale))

    def masks(self, group, state):
        return dict(zip(group.deltas, ops.agreeing(self.selected(group, state[0])), strict=True))
