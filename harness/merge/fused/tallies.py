"""Lazy blocks stored and counted in one go, for all outputs together: their bytes, and their parts of
`masks.json`. What several outputs have in common is computed once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.merge.fused import codes as c
from harness.merge.fused.graph import Sink

TOGETHER = 16  # outputs at most: each holds a block


def carry_out(outputs: Sequence[Stored]) -> list[tuple[memoryview, int, Any]]:
    """By output: its bytes (valid until the next call), how many values its dtype cannot hold, and the tally
    that `Figures.part` gives (None without figures)."""
    counters, energies, _, _ = outputs[0].buffers.run([sink for one in outputs for sink in one.sinks])
    return [one.result(counters.tolist(), energies.tolist()) for one in outputs]


class Stored:
    """What is stored and counted of one output's block; `others` are those of the same call, before it."""

    def __init__(
        self, merged: Any, code: str, group: Any, figures: Any, pairs: Any, others: Sequence[Stored]
    ) -> None:
        self.buffers, self.code, self.elements = merged.buffers, code, group.length
        self._at = others[-1]._at + 1 if others else 0
        self._energies = others[-1]._energies if others else 0
        self._bad, self._place = self._at, len(others)
        node, row = self.buffers.rounded(merged, code), self.buffers.output(self._place)
        store = c.STORE16 if code == "BF16" else c.STORE32
        self.sinks: list[Sink] = [(store, node, row, self._bad, 0, 0)]
        self._roles: dict[str, Any] | None = None
        if figures is not None:
            before = self.buffers.rounded(group.base, code)
            same = merged.made(c.SAME, node, before)
            self._changed, self._same = ~same, self._counted(same)
            self._roles = {
                role: self._role(group, role, *pair, figures.scores.get(role)) for role, pair in pairs.items()
            }

    def result(self, counters: list[int], energies: list[list[float]]) -> tuple[memoryview, int, Any]:
        """See `carry_out`."""
        data, part = self.buffers.data(self._place, self.code), None
        if self._roles is not None:
            roles = {role: tally(counters, energies) for role, tally in self._roles.items()}
            part = {"elements": self.elements, "unchanged": counters[self._same], "roles": roles}
        return data, counters[self._bad], part

    def _role(self, group: Any, role: str, mask: Any, before: Any, score: str | None) -> Any:
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
        self.sinks.append((c.ENERGY, values.node, 0, self._energies, 0, 0))
        self._energies += 1
        return self._energies - 1
