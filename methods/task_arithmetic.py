"""Task arithmetic: `theta0 + scale * sum_i w_i tau_i`, with task vectors `tau_i = theta_i - theta0`.

Editing Models with Task Arithmetic (arXiv:2212.04089, section 2); reference code
github.com/mlfoundations/task_vectors. mergekit's `task_arithmetic` computes the same, with `normalize` as
here: the sum is divided by that of the weights, unless that is below 1e-8 (tests: mergekit 0.1.5).
Ours differs: float32 arithmetic with one cast at the end, where mergekit casts the weights to the tensors'
dtype and computes in that; `weights`, and a `scale` over depth, are additions, neutral by default.
"""

from harness import merge_method, ops, param


@merge_method("task_arithmetic", title="Task Arithmetic", paper="arXiv:2212.04089", plain=True)
class TaskArithmetic:
    scale: float | list[float] = param(1.0, "lambda, factor of what is added; a list is over depth", noop=0.0)
    weights: dict[str, float] = param({}, "weight of an expert by role; an expert not named has 1")
    normalize: bool = param(False, "divide by the sum of the weights")

    def needs(self, roles):
        ops.by_role(self.weights, 1.0, roles, "weights")
        return ()

    def degenerate(self, roles):
        weights = ops.by_role(self.weights, 1.0, roles, "weights")
        none = all(weight == 0 for weight in weights.values())
        said = ops.said(
            (none or ops.zero(self.scale), f"{'all weights' if none else 'scale'} 0: the result is the base")
        )
        return said + ops.alike(weights, self.normalize)

    def merge(self, group, state):
        weights = ops.by_role(self.weights, 1.0, group.experts, "weights")
        mixed, whole = ops.weighted_sum(group.deltas, weights), ops.divisor(weights, self.normalize)
        return ops.add_scaled(group.base, mixed if whole == 1 else mixed.div_(whole), group.at(self.scale))
