"""Which judge, with which parameters. Light at import."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.errors import HarnessError, nearest


class JudgeError(HarnessError):
    """A judge did not answer; what it had answered before is stored."""


def _positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _number(value: Any) -> bool:
    return value == 0 or _positive(value)


def _variable(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[A-Z_][A-Z0-9_]*", value) is not None


def _address(value: Any) -> bool:
    # Names and passwords in an address would be stored with it.
    return isinstance(value, str) and re.fullmatch(r"https?://[^@?#\s]+", value) is not None


def _price(value: Any) -> bool:
    return (
        isinstance(value, Mapping) and set(value) == {"input", "output"} and all(map(_number, value.values()))
    )


@dataclass(frozen=True)
class Parameter:
    """A parameter of a kind of judge. `secret`: a wrong value is not repeated in the error."""

    default: Any
    right: Callable[[Any], bool]
    wanted: str
    secret: bool = False


ENGINES = ("hf", "vllm")
COUNT = (_count, "a whole number from 1")
NUMBER = (_number, "a number from 0")
PARAMETERS: dict[str, dict[str, Parameter]] = {
    "reward": {"max_tokens": Parameter(512, *COUNT)},
    "classifier": {
        "max_gen_toks": Parameter(1, *COUNT),
        "clip_tokens": Parameter(None, *COUNT),
        "engine": Parameter("hf", lambda v: v in ENGINES, "`hf` or `vllm`"),
    },
    "chat": {
        "base_url": Parameter(None, _address, "http(s)://host/path without user, password or query", True),
        "key_env": Parameter(None, _variable, "the NAME of a variable of the environment", True),
        "reasoning": Parameter(None, lambda v: isinstance(v, bool), "true or false"),
        "max_tokens": Parameter(None, *COUNT),
        "temperature": Parameter(None, *NUMBER),
        "top_p": Parameter(None, *NUMBER),
        "seed": Parameter(None, lambda v: isinstance(v, int), "a whole number"),
        "reasoning_effort": Parameter(None, lambda v: isinstance(v, str), "such as `low`, `medium`, `high`"),
        "extra_body": Parameter({}, lambda v: isinstance(v, Mapping), "further fields of the request"),
        "requests_per_minute": Parameter(None, _positive, "a number above 0"),
        "concurrency": Parameter(4, *COUNT),
        "retries": Parameter(6, lambda v: v == 0 or _count(v), "a whole number from 0"),
        "backoff": Parameter(1.0, *NUMBER),
        "backoff_max": Parameter(60.0, *NUMBER),
        "longest_wait": Parameter(300.0, *NUMBER),
        "timeout": Parameter(120.0, _positive, "seconds above 0"),
        "price": Parameter(None, _price, "{input: , output: }, US dollars per million tokens"),
    },
    "rules": {},
}
KINDS = tuple(PARAMETERS)


@dataclass(frozen=True)
class Spec:
    """A judge. `model`: for `reward` and `classifier` a folder or hub id (at `revision`, null where it is not
    pinned), for `chat` the API's name of a model, for `rules` the name of a rule.

    Raises HarnessError for an unknown kind or parameter, or a parameter's wrong value.
    """

    kind: str
    model: str
    revision: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise HarnessError(f"no kind of judge is called `{self.kind}`", nearest(str(self.kind), KINDS))
        if not isinstance(self.model, str) or not self.model.strip():
            raise HarnessError(f"the judge's `model` is {self.model!r}", "name a folder, hub id or API model")
        known = PARAMETERS[self.kind]
        for name, value in self.parameters.items():
            if name not in known:
                hint = nearest(name, known) if known else "it takes none"
                raise HarnessError(f"a judge of kind `{self.kind}` has no parameter `{name}`", hint)
            rule = known[name]
            if value is not None and not rule.right(value):
                shown = "is not one" if rule.secret else f"is {value!r}"
                raise HarnessError(f"the judge's parameter `{name}` {shown}", f"it must be {rule.wanted}")

    def setting(self, name: str) -> Any:
        """A parameter, or its default."""
        given = self.parameters.get(name)
        return PARAMETERS[self.kind][name].default if given is None else given
