"""Linear: the weighted mean of the experts' weights, `sum_i w_i theta_i / sum_i w_i`; the base takes no part.

Model soups (arXiv:2203.05482, the uniform soup), a mean that has no reference code to follow. mergekit's
`linear` with `normalize: true` computes the same (tests compare with mergekit 0.1.5).
Ours differs from mergekit in nothing but this: all arithmetic is float32, with one cast at the end.
"""

from harness import HarnessError, merge_method, ops, param


@merge_method("linear", title="Linear", paper="arXiv:2203.05482")
class Linear:
    weights: dict[str, float] = param({}, "weight of an expert by role; an expert not named has 1")

    def needs(self, roles):
        if sum(ops.by_role(self.weights, 1.0, roles, "weights").values()) == 0:
            raise HarnessError("the `weights` of `linear` add up to 0", "the mean is divided by their sum")
        return ()

    def degenerate(self, roles):
        weights = ops.by_role(self.weights, 1.0, roles, "weights")
        used = [role for role in roles if weights[role] != 0]
        return ops.said((len(used) == 1, f"one expert has all the weight: the result is `{used[0]}`"))

    def merge(self, group, state):
        weights = ops.by_role(self.weights, 1.0, group.experts, "weights")
        return ops.weighted_sum(group.experts, weights).div_(sum(weights.values()))
