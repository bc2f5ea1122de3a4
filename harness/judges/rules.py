"""Rules as judges: no model, the same interface."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from harness import refusals
from harness.errors import HarnessError, nearest
from harness.judges.spec import Spec
from harness.task import Score

RULES = {"refusal-phrases": refusals.advbench, "refusal": refusals.refuses}


def ask(row: dict, text: str) -> str:
    """What a rule is asked about a response: the response."""
    return text


def read(answer: str, row: dict) -> Score:
    return Score(float(answer == "yes"))


class Rules:
    """A judge of kind `rules`: the prompt is the text itself, the answer `yes` (it refuses) or `no`."""

    def __init__(self, spec: Spec) -> None:
        if spec.model not in RULES:
            raise HarnessError(f"no rule is called `{spec.model}`", nearest(spec.model, RULES))
        self.spec = spec

    def identity(self) -> dict[str, Any]:
        return {"kind": "rules", "rule": self.spec.model, "phrases": [refusals.ADVBENCH, refusals.DECLINES]}

    def ask(self, prompts: Sequence[str]) -> Iterator[list[tuple[int, str]]]:
        rule = RULES[self.spec.model]
        yield [(i, "yes" if rule(prompt) else "no") for i, prompt in enumerate(prompts)]

    def plain(self, answer: str) -> str:
        return answer

    def facts(self, answers: list[str]) -> dict[str, Any]:
        return {"malformed": 0}

    def check(self) -> None:
        pass

    def close(self) -> None:
        pass
