"""What the merge contract means, slowly and plainly: each tensor is one block, everything is in memory.

`merge(method, base, experts, scores)` drives `prepare` and `merge` as an engine does, and resolves `Cut` and
`Reduce` from their docstrings by sorting and adding up all elements. It shares no code with the engine.
"""

from __future__ import annotations

import inspect

import numpy as np
import torch

from harness.method import Cut, Layout, Reduce, TensorGroup


def groups_of(base, experts, scores=None, seed=0):
    """One `TensorGroup` per tensor, in order. Models are name -> float32 array."""
    made = []
    layers = [int(name.split(".")[2]) for name in base if name.startswith("model.layers.")]
    for name, weights in base.items():
        inside = name.startswith("model.layers.")
        made.append(
            TensorGroup(
                name=name,
                module=".".join(name.split(".")[3 if inside else 1 if name.startswith("model.") else 0 : -1]),
                layer=int(name.split(".")[2]) if inside else None,
                depth=max(layers, default=-1) + 1,
                shape=tuple(weights.shape),
                offset=0,
                base=flat(weights),
                experts={role: flat(expert[name]) for role, expert in experts.items()},
                scores={key: flat(score[name]) for key, score in (scores or {}).items()},
                seed=seed,
            )
        )
    return made


def merge(method, base, experts, scores=None, seed=0):
    """name -> merged float32 array; also checks that the method left its inputs alone."""
    groups = groups_of(base, experts, scores, seed)
    state = prepared(method, groups, tuple(experts), seed)
    merged = {}
    for group in groups:
        before = [t.clone() for t in inputs(group)]
        out = method.merge(group, state)
        assert out.shape == group.base.shape and out.dtype == torch.float32
        assert all(same_bits(a, b) for a, b in zip(before, inputs(group), strict=True)), (
            "inputs were written into"
        )
        assert all(out.data_ptr() != t.data_ptr() for t in inputs(group)), "an input was handed back"
        merged[group.name] = out.reshape(group.shape).numpy()
    return merged


def prepared(method, groups, roles, seed=0):
    """The state that `prepare` ends with."""
    if not hasattr(method, "prepare"):
        return None
    steps = method.prepare(Layout(roles, tuple(group.name for group in groups), seed))
    if not inspect.isgenerator(steps):
        return steps
    answer = None
    while True:
        try:
            asked = steps.send(answer)
        except StopIteration as end:
            return end.value
        answer = answered(asked, groups)


def answered(asked, groups):
    if isinstance(asked, dict):
        return {key: answered(one, groups) for key, one in asked.items()}
    if isinstance(asked, (list, tuple)):
        return [answered(one, groups) for one in asked]
    if asked.scope == "tensor":
        parts = {group.name: [group] for group in groups}
    else:
        parts = dict.fromkeys((group.name for group in groups), groups)
    kind = {Cut: NaiveThreshold, Reduce: NaiveReduced}[type(asked)]
    return kind(asked, parts)


class NaiveThreshold:
    """`Cut`, by a full stable sort of everything."""

    def __init__(self, cut, parts):
        self.masks, self.values, self.counts = {}, {}, {}
        for name, groups in parts.items():
            if name not in self.masks:
                self._resolve(cut, groups)

    def _resolve(self, cut, groups):
        values = np.concatenate([cut.values(group).numpy() for group in groups])
        where = [np.ones(g.base.numel(), bool) if cut.where is None else cut.where(g).numpy() for g in groups]
        eligible = np.flatnonzero(np.concatenate(where))
        sign = -1 if cut.end == "highest" else 1
        keys = sign * values[eligible]
        assert (values[eligible] >= 0).all()
        order = np.argsort(keys, kind="stable")  # equal values stay in tensor order, then index
        keep = groups[0].at(cut.keep)  # a list over depth is for single tensors
        k = min(len(order), max(int(keep * len(order)), cut.at_least) + cut.extra)
        if cut.ties == "all" and k:
            k = int((keys <= keys[order[k - 1]]).sum())
        kept = np.zeros(len(values), bool)
        kept[eligible[order[:k]]] = True
        start = 0
        for group in groups:
            n = group.base.numel()
            self.masks[group.name] = torch.from_numpy(kept[start : start + n])
            self.values[group.name] = float(sign * keys[order[k - 1]]) if k else float("inf")
            self.counts[group.name] = k
            start += n

    def mask(self, group):
        return self.masks[group.name].clone()

    def value(self, group):
        return self.values[group.name]

    def kept(self, group):
        return self.counts[group.name]


class NaiveReduced:
    """`Reduce`, in float64 over all elements at once."""

    def __init__(self, request, parts):
        combine = {"sum": np.sum, "max": np.max, "min": np.min}[request.op]
        self.values = {
            name: torch.tensor(
                combine(
                    np.concatenate(
                        [request.values(group).numpy().astype(np.float64) for group in groups], axis=-1
                    ),
                    axis=-1,
                )
            )
            for name, groups in parts.items()
        }

    def value(self, group):
        return self.values[group.name]


def inputs(group):
    return [group.base, *group.experts.values(), *group.deltas.values(), *group.scores.values()]


def flat(array):
    return torch.from_numpy(np.array(array, dtype=np.float32)).flatten()


def same_bits(a, b):
    return torch.equal(a.view(torch.int32), b.view(torch.int32))
