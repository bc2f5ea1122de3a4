"""family x methods x tasks -> steps with keys and inputs. Reads and hashes; computes nothing."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import registry
from harness.checkpoint.sources import Source, resolve_family, resolve_one
from harness.errors import HarnessError, nearest
from harness.evaluate.task_file import TaskFile, load_task
from harness.family import Calibration, Family, Row
from harness.method import Need, configure, reads_data
from harness.recipe import EvalRecipe, MergeRecipe, ReferenceRecipe, ScoreRecipe, code_hash, file_of, key
from harness.scores.calibration import load_rows
from harness.store import Folder, Store, digest, slug


@dataclass(frozen=True)
class ScoreStep:
    """Compute one gradient statistic into `folder`; `after` are the statistics that it reads itself."""

    folder: Folder
    recipe: ScoreRecipe
    need: Need
    after: tuple[ScoreStep, ...] = ()

    @property
    def label(self) -> str:
        on_base, official = self.need.model == "base", self.need.profile == "official"
        return f"{self.need.kind} {self.need.role}" + " (on base)" * on_base + " (official)" * official


@dataclass(frozen=True)
class RowStep:
    """One row of the table: a reference checkpoint, or a merge to make. `role` is `base`, an expert's role,
    `merge`, or `checkpoint` for one that the family does not name."""

    folder: Folder
    recipe: ReferenceRecipe | MergeRecipe
    label: str
    role: str
    checkpoint: Path
    method: Any = None
    scores: dict[str, ScoreStep] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def is_merge(self) -> bool:
        return self.role == "merge"

    @property
    def decodes_as(self) -> str:
        """The role whose generation settings apply."""
        return "merge" if self.role == "checkpoint" else self.role

    @property
    def has_weights(self) -> bool:
        return (self.checkpoint / "config.json").is_file()


@dataclass(frozen=True)
class EvalStep:
    """Evaluate one row on one task."""

    folder: Folder
    recipe: EvalRecipe
    row: RowStep
    task: TaskFile


@dataclass(frozen=True)
class Plan:
    """All steps of a run, in the order they are carried out."""

    family: Family
    store: Store
    inputs: dict[str, Path]
    prints: dict[str, str]
    donor: str
    scores: tuple[ScoreStep, ...]
    rows: tuple[RowStep, ...]
    tasks: tuple[TaskFile, ...]
    evals: tuple[EvalStep, ...]
    limit: int | None = None
    sources: dict[str, Source] = field(default_factory=dict)
    hashed: bool = True  # False: `prints` are of the files' size and time, and nothing is stored under them

    def evals_of(self, row: RowStep) -> list[EvalStep]:
        return [step for step in self.evals if step.row is row]

    def merges_to_make(self) -> list[RowStep]:
        """Merges never finished, and those whose weights are gone while an evaluation needs them."""
        wanted: dict[Path, RowStep] = {}
        for row in self.rows:
            missing = any(not step.folder.complete for step in self.evals_of(row))
            if row.is_merge and (not row.folder.complete or (missing and not row.has_weights)):
                wanted.setdefault(row.folder.path, row)
        return list(wanted.values())

    def scores_to_make(self, merges: Sequence[RowStep]) -> list[ScoreStep]:
        """Statistics that these merges read and the store lacks, each behind those that it reads."""
        lacking = [s for row in merges for s in row.scores.values() if not s.folder.complete]
        wanted = {s.folder.path: s for step in lacking for s in (*step.after, step) if not s.folder.complete}
        return list(wanted.values())

    def evals_to_make(self) -> list[EvalStep]:
        wanted = {step.folder.path: step for step in self.evals if not step.folder.complete}
        return list(wanted.values())


def checkpoint_plan(
    family: Family, store: Store, path: Path, *, tasks: Sequence[str] | None = None, limit: int | None = None
) -> Plan:
    """The plan of `harness eval`: one checkpoint on the family's tasks, decoded as its merges are."""
    files = _tasks(family, tasks)
    store.prepare()
    converted, cache = store.root / "converted", store.fingerprints
    source = resolve_one(path, lambda: family.model_path("base"), converted, cache)
    recipe = ReferenceRecipe(role="checkpoint", model=source.mark, checkpoint=str(source.path))
    row = RowStep(store.model(slug(path.name, {}, key(recipe))), recipe, path.name, "checkpoint", source.path)
    evals = tuple(_evaluation(family, store, row, task, limit) for task in files)
    return Plan(family, store, {}, {}, family.donor, (), (row,), files, evals, limit, {"checkpoint": source})


def _tasks(family: Family, names: Sequence[str] | None) -> tuple[TaskFile, ...]:
    wanted = family.tasks if names is None else names
    if names is None and not wanted:
        raise HarnessError(
            f"family `{family.name}` names no tasks", "add `tasks: [...]` to it, or give --tasks"
        )
    return tuple(load_task(registry.get("tasks", name).path) for name in wanted)


def make_plan(
    family: Family,
    store: Store,
    *,
    methods: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    limit: int | None = None,
    references: bool = True,
    prepare: bool = False,
    lone: bool = False,
) -> Plan:
    """The plan of `harness compare`. `methods` selects rows by label or method, or adds files. `prepare`
    creates the store, once everything that was asked for is known to exist. `lone`: nothing is stored by the
    models' content, so they are hashed only if a method reads what is."""
    rows = _select(family, methods)
    chosen = [(row, configure(registry.method(row.method), row.settings)) for row in rows]
    for _, method in chosen:  # before the inputs are read: whatever does not suit the family's roles
        if hasattr(method, "needs"):
            method.needs(family.roles)
    files = _tasks(family, tasks)
    experts = {role: (family.model_path(role), family.on_path(role)) for role in family.roles}
    base = family.model_path("base")
    if prepare:
        store.prepare()
    hashed = not lone or family.vocab != "error" or any(reads_data(m, family.roles) for _, m in chosen)
    sources = resolve_family(base, experts, store.root / "converted", store.fingerprints, hashed)
    inputs = {role: source.path for role, source in sources.items()}
    prints = {role: source.mark for role, source in sources.items()}
    made = _Builder(family, store, inputs, prints)
    steps = [made.reference(role) for role in inputs] if references else []
    steps += [made.merge(row, method) for row, method in chosen]
    evals = tuple(_evaluation(family, store, step, task, limit) for step in steps for task in files)
    scores = tuple(made.scores.values())
    rows = tuple(steps)
    found = (family, store, inputs, prints, family.donor, scores, rows, files, evals, limit, sources)
    return Plan(*found, hashed)


def _select(family: Family, methods: Sequence[str] | None) -> list[Row]:
    rows = family.rows()
    if methods is None:
        return rows
    chosen: list[Row] = []
    for name in methods:
        found = [r for r in rows if name in (r.label, r.method)]
        if not found:
            known = registry.find("methods")
            stem = name.partition(":")[0]
            if stem not in known and not stem.endswith(".py") and "/" not in name:
                raise HarnessError(
                    f"no method or row is called `{name}`", nearest(name, {*known, *(r.label for r in rows)})
                )
            found = [Row(label=registry.get("methods", name).name, method=name)]
        chosen += [r for r in found if r not in chosen]
    return chosen


class _Builder:
    """Makes score and row steps; equal statistics become one step."""

    def __init__(self, family: Family, store: Store, inputs: dict[str, Path], prints: dict[str, str]) -> None:
        self.family, self.store, self.inputs, self.prints = family, store, inputs, prints
        self.scores: dict[str, ScoreStep] = {}
        self._rows: dict[str, str] = {}

    def reference(self, role: str) -> RowStep:
        path = self.inputs[role]
        recipe = ReferenceRecipe(role=role, model=self.prints[role], checkpoint=str(path))
        folder = self.store.model(slug(role, {}, key(recipe)))
        return RowStep(folder, recipe, self.family.label(role), role, path)

    def merge(self, row: Row, method: Any) -> RowStep:
        cls, roles = type(method), self.family.roles
        needs = method.needs(roles) if hasattr(method, "needs") else ()
        scores = {need.key: self._score(need, row) for need in needs}
        parameters = {f.name: getattr(method, f.name) for f in dataclasses.fields(method)}
        plugin = registry.get("methods", row.method)
        code = code_hash(file_of(cls))
        recipe = MergeRecipe(
            method=cls.method_name,
            parameters=parameters,
            seed=self.family.seed,
            base=self.prints["base"],
            experts={role: self.prints[role] for role in roles},
            donor=self.family.donor,
            vocab=self.family.vocab,
            scores={name: key(step.recipe) for name, step in scores.items()},
            rows=self._rows_read(row, method),
            plugin=None if plugin.source == "built in" else code,
            code=code,
            label=row.label,
        )
        folder = self.store.model(slug(cls.method_name, row.settings, key(recipe)))
        notes = tuple(method.degenerate(roles)) if hasattr(method, "degenerate") else ()
        label = re.sub(rf"^{re.escape(cls.method_name)}(?=$| )", cls.title, row.label)
        return RowStep(folder, recipe, label, "merge", folder.path / "model", method, scores, notes)

    def _rows_read(self, row: Row, method: Any) -> dict[str, str]:
        roles = method.reads_rows(self.family.roles) if hasattr(method, "reads_rows") else ()
        for role in roles:
            self._calibration(role, row, "trains on")
        return {role: self._rows_hash(role) for role in roles}

    def _calibration(self, role: str, row: Row, use: str) -> Calibration:
        spec = self.family.calibration.get(role)
        if spec is None:
            raise HarnessError(
                f"row `{row.label}` {use} calibration data of `{role}`, "
                f"and family `{self.family.name}` has none",
                f"add `calibration: {{{role}: {{data: ..., text: ...}}}}` to the family file",
            )
        return spec

    def _score(self, need: Need, row: Row) -> ScoreStep:
        spec = self._calibration(need.role, row, "needs gradients on")
        model = need.role if need.model == "expert" else "base"
        data, official, after = spec.model_dump(), need.profile == "official", ()
        against = None
        if need.against is not None:
            after = (self._score(Need(need.against, "snip_squared", loss_on=need.loss_on), row),)
            fisher = key(after[0].recipe)
            against = {"model": self.prints[need.against], "fisher": fisher, "penalty": need.penalty}
        recipe = ScoreRecipe(
            kind=need.kind,
            role=need.role,
            of=need.model,
            model=self.prints[model],
            rows=self._rows_hash(need.role),
            max_tokens=spec.max_tokens,
            loss_on=need.loss_on,
            tokenizer=self.prints["base" if official else model],
            pad=official,
            dtype="bfloat16" if official else "float32",
            accumulate="bfloat16" if official else "float32",
            against=against,
            data=data,
        )
        what = f"{need.kind}--{need.role}" + "--base" * (need.model == "base") + "--official" * official
        name = slug(what, {}, key(recipe))
        return self.scores.setdefault(name, ScoreStep(self.store.scores(name), recipe, need, after))

    def _rows_hash(self, role: str) -> str:
        if role not in self._rows:
            self._rows[role] = digest(load_rows(self.family.calibration[role], self.family.folder))
        return self._rows[role]


def _evaluation(family: Family, store: Store, row: RowStep, task: TaskFile, limit: int | None) -> EvalStep:
    recipe = EvalRecipe(
        task=task.name,
        profile=task.header.get("profile", "standard"),
        prompts=task.prompt_hash,
        scorer=task.score_hash,
        split=family.split,
        generation=family.generation_for(row.decodes_as) if task.uses_generation else {},
        chat_template=family.chat_template,
        limit=limit,
        seed=family.seed,
        engine="hf",
    )
    return EvalStep(store.evaluation(row.folder, slug(task.name, {}, key(recipe))), recipe, row, task)
