"""A slow, plain answer to what the merge contract means: whole tensors as one block each, everything in memory.

`merge(method, base, experts, scores)` drives `prepare` and `merge` as an engine does, and resolves `Cut` and
`Reduce` from their docstrings by sorting and adding up all elements. It shares no code with the engine.
"""

from __future__ import annotations

import inspect

import numpy as np
import torch

from harness.method import Cut, Layout, Reduce, TensorGroup


def groups_of(base, experts, scores=None, seed=0):
    """One `TensorGroup` per tensor, in order. All arguments are name -> float32 array, experts and scores nested."""
    made = []
    layers = [int(name.split(".")[2]) for name in base if name.startswith("model.layers.")]
    for name, weights in base.items():
        inside = name.startswith("model.layers.")
        made.append(TensorGroup(
            name=name,
            module=".".join(name.split(".")[3 if inside else 1 if name.startswith("model.") else 0:-1]),
            layer=int(name.split(".")[2]) if inside else None,
            depth=max(layers, default=-1) + 1,
            shape=tuple(weights.shape),
            offset=0,
            base=flat(weights),
            experts={role: flat(expert[name]) for role, expert in experts.items()},
            scores={key: flat(score[name]) for key, score in (scores or {}).items()},
            seed=seed,
        ))
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
        assert all(same_bits(a, b) for a, b in zip(before, inputs(group), strict=True)), "inputs were written into"
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
    """`Cut`, by a full stable sort."""

    def __init__(self, cut, parts):
        self.masks, self.values, self.counts = {}, {}, {}
        for name, groups in parts.items():
            ranked = [(float(v), g, i) for g, group in enumerate(groups) for i, v in enumerate(cut.values(group))
                      if cut.where is None or bool(cut.where(group)[i])]
            assert all(value >= 0 for value, _, _ in ranked)
            sign = -1 if cut.end == "highest" else 1
            ranked.sort(key=lambda item: (sign * item[0], item[1], item[2]))
            k = min(len(ranked), max(int(cut.keep * len(ranked)), cut.at_least) + cut.extra)
            if cut.ties == "all" and k:
                k = sum(sign * value <= sign * ranked[k - 1][0] for value, _, _ in ranked)
            self.values[name] = ranked[k - 1][0] if k else float("inf")
            self.counts[name] = k
            place = [g.name for g in groups].index(name)
            mask = torch.zeros(groups[place].base.numel(), dtype=torch.bool)
            mask[[i for _, g, i in ranked[:k] if g == place]] = True
            self.masks[name] = mask

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
            name: torch.tensor(combine(np.concatenate(
                [request.values(group).numpy().astype(np.float64) for group in groups], axis=-1), axis=-1))
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
