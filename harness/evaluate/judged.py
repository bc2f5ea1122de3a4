"""The judge that a task's header names: what it is asked, how its answer is read. Light."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.checkpoint.identity import fingerprint
from harness.errors import HarnessError, nearest
from harness.evaluate.syntax import load_module, source
from harness.evaluate.task_yaml import wrong

KINDS = ("reward", "classifier", "chat", "rules")
PARTS = ("answer", "thinking")
NEEDED = ("kind", "model", "metric", "ask", "read")


@dataclass(frozen=True)
class JudgeFile:
    """`metadata.harness.judge` of the task at `path`.

    `ask` and `read` are `file.function` beside it: ask(row, text) -> prompt, read(answer, row) -> Score.
    `parts` of a response are judged apart: `metric` is the answer's, `metric_thinking` the thinking's; `also`
    are further metrics that `read` gives.
    """

    path: Path
    kind: str
    model: str
    metric: str
    ask: str
    read: str
    revision: str | None = None
    higher_is_better: bool = False
    parts: tuple[str, ...] = ("answer",)
    parameters: dict[str, Any] = field(default_factory=dict)
    also: tuple[str, ...] = ()

    @property
    def metrics(self) -> tuple[str, ...]:
        """Metrics that the judge gives, in the order of `parts`."""
        names = (self.metric, *self.also)
        return tuple(n if part == "answer" else f"{n}_{part}" for part in self.parts for n in names)

    def functions(self) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """`ask` and `read`."""
        return self._function(self.ask), self._function(self.read)

    def code(self) -> str:
        """The source of `ask` and `read`, without comments and docstrings."""
        return "\n".join(source(self.path.parent, name, self.path) for name in (self.ask, self.read))

    def but(self, given: Mapping[str, Any]) -> JudgeFile:
        """With a family's settings over the task's; `parameters` are merged key by key."""
        known = ("kind", "model", "revision", "parts", "parameters")
        for key in given:
            if key not in known:
                raise HarnessError(f"`judges.{self.path.stem}.{key}` is not known", nearest(key, known))
        changed = dict(given)
        if "model" in given and "revision" not in given:
            changed["revision"] = None  # the task's revision is another model's
        if "parts" in given:
            changed["parts"] = tuple(given["parts"])
        return replace(
            self, **{**changed, "parameters": self.parameters | dict(given.get("parameters") or {})}
        )

    def resolved(self, folder: Path, cache: Path | None = None) -> tuple[str, str]:
        """(the model to load, what it is: a content hash, `id@revision`, or an API's name). Paths are under
        `folder`."""
        path = folder / Path(self.model).expanduser()
        if self.kind in ("chat", "rules"):
            return self.model, self.model
        if path.is_dir():
            return str(path.resolve()), fingerprint(path, cache)
        return self.model, f"{self.model}@{self.revision}" if self.revision else self.model

    def _function(self, name: str) -> Callable[..., Any]:
        module, _, function = name.rpartition(".")
        found = getattr(load_module(self.path.parent / f"{module}.py"), function, None)
        if found is None:
            raise HarnessError(
                f"{self.path}: the judge's `{name}` does not exist", f"define it in {module}.py"
            )
        return found


def judge_of(path: Path, header: Mapping[str, Any]) -> JudgeFile | None:
    """The judge of a task's header, checked; None where it names none."""
    given = header.get("judge")
    if given is None:
        return None
    at, known = "metadata.harness.judge", {f for f in JudgeFile.__dataclass_fields__ if f != "path"}
    for key in given:
        if key not in known:
            raise wrong(path, f"{at}.{key}", "is not known", nearest(str(key), known))
    for key in NEEDED:
        if not isinstance(given.get(key), str):
            raise wrong(path, f"{at}.{key}", f"is {given.get(key)!r}", "write text", at)
    if given["kind"] not in KINDS:
        raise wrong(path, f"{at}.kind", f"is {given['kind']!r}", nearest(given["kind"], KINDS))
    parts = tuple(given.get("parts") or ("answer",))
    for part in parts:
        if part not in PARTS:
            raise wrong(path, f"{at}.parts", f"names {part!r}", nearest(str(part), PARTS))
    rest = {key: value for key, value in given.items() if key not in ("parts", "parameters", "also")}
    also, parameters = tuple(given.get("also") or ()), dict(given.get("parameters") or {})
    return JudgeFile(path, **rest, parts=parts, parameters=parameters, also=also)
