"""Linear: the weighted mean of the experts' weights, `sum_i w_i theta_i / sum_i w_i`; the base takes no part.

Model soups (arXiv:2203.05482, the uniform soup), a mean that has no reference code to follow. mergekit's
`linear` computes the same, with `normalize` as here (tests compare with mergekit 0.1.5).
Ours differs from mergekit in nothing but this: products are rounded before they are added (no fused
multiply-add); all arithmetic is float32, with one cast at the end.
"""

from harness import merge_method, ops, param


@merge_method("linear", title="Linear", paper="arXiv:2203.05482", plain=True)
class Linear:
    weights: dict[str, float] = param({}, "weight of an expert by role; an expert not named has 1")
    normalize: bool = param(True, "divide by the sum of the weights")

    def weighting(self, roles):
        return ops.by_role(self.weights, 1.0, roles, "weights")

    def needs(self, roles):
        none = self.normalize and sum(self.weighting(roles).values()) == 0
        ops.refuse((none, "the `weights` of `linear` add up to 0", "the mean is divided by their sum"))
        return ()

    def degenerate(self, roles):
        weights = self.weighting(roles)
        used = [role for role in roles if weights[role] != 0]
        alone = len(used) == 1 and (self.normalize or weights[used[0]] == 1)
        said = ops.said((alone, f"one expert has all the weight: the result is `{used[0] if used else ''}`"))
        return said + ops.alike(weights, self.normalize and len(used) > 1)

    def merge(self, group, state):
        weights = self.weighting(group.experts)
        mixed = ops.weighted_sum(group.experts, weights)
        return mixed.div_(sum(weights.values())) if self.normalize else mixed
