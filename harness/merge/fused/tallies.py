"""A lazy block stored and counted in one go: its bytes, and its part of `masks.json`."""

from __future__ import annotations

from typing import Any

from harness.merge.fused import codes as c
from harness.merge.fused.graph import Sink

FIRST = 5  # counters before are those of the stored block and of the whole


def tallied(merged: Any, code: str, group: Any, figures: Any, pairs: Any) -> tuple[memoryview, int, Any]:
    """(bytes with dtype `code`, how many values that cannot hold, the tally that `Figures.part` gives)."""
    if figures is None:
        data, counters, _ = merged.buffers.stored(merged, code)
        return data, int(counters[0]), None
    plan = _Plan(merged, code, group)
    roles = {role: plan.role(group, role, *pair, figures.scores.get(role)) for role, pair in pairs.items()}
    data, counters, energies = merged.buffers.stored(merged, code, plan.sinks)
    part = {
        "elements": group.length,
        "unchanged": int(counters[plan.same]),
        "roles": {role: one(counters.tolist(), energies.tolist()) for role, one in roles.items()},
    }
    return data, int(counters[0]), part


class _Plan:
    """The counts that a tally takes."""

    def __init__(self, merged: Any, code: str, group: Any) -> None:
        self.sinks: list[Sink] = []
        self._at, self._energies = FIRST, {}
        rounded = merged.buffers.rounded
        same = merged.made(c.SAME, rounded(merged, code), rounded(group.base, code))
        self._changed, self.same = ~same, self._counted(same)

    def role(self, group: Any, role: str, mask: Any, before: Any, score: str | None) -> Any:
        """What is counted of a role; called with counters and energies it gives the tally."""
        delta = group.deltas[role]
        selected = self._counted(mask)
        others = {
            "before": None if before is None else self._counted(before),
            "zero_gradient": None if score is None else self._counted(mask, group.scores[score] == 0),
        }
        moved, changed = self._counted(mask, delta.bool()), self._counted(mask, self._changed)
        kept, whole = self._energy(delta.masked(mask)), self._energy(delta)

        def tally(counters: list[int], energies: list[list[float]]) -> dict[str, Any]:
            return {
                "selected": counters[selected],
                "zero_delta": counters[selected] - counters[moved],
                "unchanged": counters[selected] - counters[changed],
                "energy": [energies[kept], energies[whole]],
                **{name: None if at is None else counters[at] for name, at in others.items()},
            }

        return tally

    def _counted(self, mask: Any, other: Any = None) -> int:
        """The number of the counter that will hold how many elements the mask (and the other) selects."""
        self._at += 1
        both = c.COUNT if other is None else c.COUNT_BOTH
        self.sinks.append((both, mask.node, 0 if other is None else other.node, self._at, 0, 0))
        return self._at

    def _energy(self, values: Any) -> int:
        """The number of the energy of these values."""
        if values.node not in self._energies:
            self._energies[values.node] = len(self._energies)
            self.sinks.append((c.ENERGY, values.node, 0, self._energies[values.node], 0, 0))
        return self._energies[values.node]
