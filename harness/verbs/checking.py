"""`harness check FAMILY`: everything that is wrong or odd about a family, in one go. Computes but lineage."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from harness import asked, contamination, inputs, lacking, lock, registry
from harness import family as families
from harness.checkpoint import compat
from harness.costs.draft import Draft, drafted
from harness.errors import HarnessError
from harness.evaluate.decoding import samples
from harness.evaluate.task_file import TaskFile
from harness.family import Family, Row
from harness.family import files as family_files
from harness.method import configure, parameters
from harness.screen import Screen
from harness.store import Store
from harness.verbs.examples import Example, example

MUCH = 8 << 30  # bytes of weights above which lineage, which reads them all, is measured only when asked for


@dataclass(frozen=True)
class Finding:
    """`level` is `error` or `warning`; `about` says which part of the family."""

    level: str
    about: str
    fact: str
    hint: str = ""


@dataclass
class Report:
    """All findings, the first calibration row of every role as it is read, and what lineage was measured."""

    findings: list[Finding] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    lineage: dict[str, Any] | None = None

    def error(self, about: str, error: HarnessError) -> None:
        self.findings.append(Finding("error", about, error.message, error.hint))

    def warn(self, about: str, fact: str, hint: str = "") -> None:
        if fact not in (one.fact for one in self.findings):
            self.findings.append(Finding("warning", about, fact, hint))

    @property
    def errors(self) -> int:
        return sum(one.level == "error" for one in self.findings)


def is_family(name: str) -> bool:
    """Whether `harness check NAME` means a family (the rest are methods)."""
    return name.endswith((".yaml", ".yml")) or name in registry.find("families")


def check_family(name: str, results: Path, deep: bool = False, as_json: bool = False) -> int:
    """Print the report; 2 with errors, else 0. `deep` measures the lineage of large models too."""
    with Screen() as screen:
        found = report(registry.get("families", name).path, results, deep, screen)
        screen.close()
    if as_json:
        click.echo(json.dumps({**asdict(found), "errors": found.errors}, indent=1, ensure_ascii=False))
    else:
        _print(name, found)
    return 2 if found.errors else 0


def report(path: Path, results: Path, deep: bool, screen: Screen) -> Report:
    """Everything that can be said of the family in the file."""
    found = Report()
    family = _schema(path, found)
    if family is None:
        return found
    unpinned = family
    family = _try(found, "lock", lambda: lock.pinned(unpinned, Store(results, unpinned.name))) or unpinned
    screen.now("check", "methods and tasks")
    chosen = [pair for row in family.rows() if (pair := _row(family, row, found))]
    files = _tasks(family, found)
    _idle(family, chosen, files, found)
    screen.now("check", "what can be reached")
    _reach(family, files, [method for _, method in chosen], found)
    methods = [row.label for row, _ in chosen] if len(chosen) < len(family.rows()) else None
    tasks = [file.name.removesuffix("_paper") for file in files]
    try:
        with drafted(family, Store(results, family.name), methods=methods, tasks=tasks, ask=False) as draft:
            _rows(draft, found)
            _models(draft, deep, screen, found)
            known = {role for role in draft.missing}
            for sentence in contamination.sentences(contamination.of_plan(draft.plan, known)):
                found.warn("contamination", sentence)
    except HarnessError as error:
        found.error("plan", error)
    return found


def _schema(path: Path, found: Report) -> Family | None:
    try:
        return families.parse_family(path)
    except HarnessError as error:
        if not isinstance(error.__cause__, ValidationError):
            found.error("schema", error)
            return None
        _, where = family_files.read(path)
        for one in error.__cause__.errors():
            single = ValidationError.from_exception_data("Family", [_again(one)])
            found.error("schema", families.explain(single, path, where))
        return None


def _again(one: dict[str, Any]) -> Any:
    """One of several errors, as pydantic takes it back."""
    from pydantic_core import InitErrorDetails, PydanticCustomError

    kind: Any = one["type"]
    if kind == "value_error":
        kind = PydanticCustomError("value_error", "{text}", {"text": one["msg"]})
    return InitErrorDetails(type=kind, loc=one["loc"], input=one["input"], ctx=one.get("ctx", {}))


def _row(family: Family, row: Row, found: Report) -> tuple[Row, Any] | None:
    try:
        method = configure(registry.method(row.method), row.settings)
        needs = method.needs(family.roles) if hasattr(method, "needs") else ()
        reads = method.reads_rows(family.roles) if hasattr(method, "reads_rows") else ()
        for role in (*(need.role for need in needs), *reads):
            if role not in family.calibration:
                hint = f"add `calibration: {{{role}: {{data: ..., text: ...}}}}`"
                raise HarnessError(f"it needs calibration data of `{role}`, and there is none", hint)
    except HarnessError as error:
        found.error(f"row `{row.label}`", error)
        return None
    return row, method


def _tasks(family: Family, found: Report) -> list[TaskFile]:
    files: list[TaskFile] = []
    for name in family.tasks:
        try:
            files += [file for file in asked.tasks(family, [name]) if file not in files]
        except HarnessError as error:
            found.error("tasks", error)
    if not family.tasks:
        found.warn("tasks", "the family names no tasks", "add `tasks: [...]`, or give --tasks")
    return files


def _idle(family: Family, chosen: list[tuple[Row, Any]], files: list[TaskFile], found: Report) -> None:
    """Settings that change nothing."""
    for row, method in chosen:
        known = parameters(type(method))
        for key, value in row.settings.items():
            noop = known[key][2].noop
            if noop is not None and value == noop and type(value) is not bool:
                found.warn(f"row `{row.label}`", f"`{key}` is {value!r}, at which it changes nothing")
        for sentence in method.degenerate(family.roles) if hasattr(method, "degenerate") else ():
            found.warn(f"row `{row.label}`", sentence)
    for kind, given in family.generation.items():
        settings = given.settings()
        idle = [key for key in ("temperature", "top_p") if key in settings]
        if idle and settings.get("do_sample") is False:
            found.warn("generation", f"`{kind}` sets {', '.join(idle)} with do_sample false: greedy decoding")
    for name, count in family.repeats.items():
        task = next((f for f in files if f.name.removesuffix("_paper") == name), None)
        if task is None:
            found.warn("repeats", f"`{name}` is not among the family's tasks")
        elif count > 1 and not any(_draws(family, task, role) for role in (*family.roles, "base", "merge")):
            found.warn("repeats", f"`{name}` is decoded greedily, so it is asked once and not {count} times")
    for role in family.calibration:
        if not any(role in _roles_read(family, method) for _, method in chosen):
            found.warn("calibration", f"no row reads the calibration data of `{role}`")


def _draws(family: Family, task: TaskFile, role: str) -> bool:
    settings = {} if task.own_decoding else family.generation_for(role)
    return samples(task.config.get("generation_kwargs") or {}, settings)


def _roles_read(family: Family, method: Any) -> set[str]:
    needs = method.needs(family.roles) if hasattr(method, "needs") else ()
    reads = method.reads_rows(family.roles) if hasattr(method, "reads_rows") else ()
    return {*reads, *(need.role for need in needs), *(need.against for need in needs if need.against)}


def _reach(family: Family, files: list[TaskFile], methods: list[Any], found: Report) -> None:
    try:
        lacking.check(family, files, methods)
    except lacking.Missing as missing:
        for lack in missing.lacks:
            found.findings.append(Finding("error", lack.kind, f"{lack.spelled}: {lack.why}", lack.how))
        return
    for file in files:
        _try(found, f"task `{file.name}`", file.load)


def _rows(draft: Draft, found: Report) -> None:
    """The first calibration row of every role as its model's tokenizer reads it."""
    for role, spec in draft.family.calibration.items():
        model = draft.models.get(role)
        if f"calibration of {role}" in draft.missing or model is None or model.path is None:
            continue
        step = next((s for s in draft.plan.scores if s.need.role == role), None)
        loss_on = step.recipe.loss_on if step else "all"
        if made := _try(found, f"calibration of {role}", lambda r=role, s=spec, m=model, on=loss_on: example(
            r, s, draft.family.folder, m.path, on
        )):  # fmt: skip
            found.examples.append(made)
            if made.cut:
                found.warn(
                    f"calibration of {role}",
                    f"{made.cut} of {made.rows} rows are cut at {spec.max_tokens} tokens",
                )


def _models(draft: Draft, deep: bool, screen: Screen, found: Report) -> None:
    """Whether the models fit, and how far the experts are from the base."""
    plan = draft.plan
    if absent := [role for role in plan.inputs if role in draft.missing]:
        found.warn(
            "models", f"not compared: {', '.join(absent)} {'is' if len(absent) == 1 else 'are'} not here"
        )
        return
    if open_ := [role for role, source in plan.sources.items() if not source.ready]:
        found.warn("models", f"not compared: {', '.join(open_)} must be converted first, as a run does")
        return
    for sentence in _try(found, "models", lambda: inputs.check(plan)) or ():
        found.warn("models", sentence)
    nbytes = sum(model.size.nbytes for model in draft.models.values() if model.size)
    if nbytes > MUCH and not deep:
        found.warn("lineage", f"not measured: it reads {nbytes / 1e9:.0f} GB", "`--deep` measures it")
    elif not any(one.level == "error" and one.about == "models" for one in found.findings):
        from harness.checkpoint.lineage import lineage

        models = inputs.opened(plan)
        show = lambda i, n: screen.now("check", "the models", i, n)  # noqa: E731
        found.lineage = lineage(models.base, models.experts, show)
        for sentence in compat.lineage_warnings(found.lineage, models.base.label):
            found.warn("lineage", sentence)


def _try(found: Report, about: str, work: Callable[[], Any]) -> Any:
    try:
        return work()
    except HarnessError as error:
        found.error(about, error)
        return None


def _print(name: str, found: Report) -> None:
    for line in _lines(found):
        click.echo(line)
    warnings = len(found.findings) - found.errors
    click.echo(f"{name}: {found.errors} errors, {warnings} warnings")


def _lines(found: Report) -> Iterator[str]:
    for one in sorted(found.findings, key=lambda one: one.level != "error"):
        yield f"{one.level}: {one.about}: {one.fact}"
        if one.hint:
            yield f"  hint: {one.hint}"
    for made in found.examples:
        yield from made.lines()
    if found.lineage:
        ratios = ", ".join(
            f"{role} {ratio:.3g}" for role, ratio in found.lineage["relative_norm"].items() if ratio
        )
        yield f"lineage: |tau|/|theta0| {ratios}"
        for pair, cosine in found.lineage["cosine"].items():
            shown = "–" if cosine is None else f"{cosine:.3f}"
            yield f"lineage: cosine of the task vectors of {pair}: {shown}"
