"""family x methods x tasks -> the plan. Reads and hashes; computes nothing."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import asked, registry
from harness import tasks as tasks_of
from harness.checkpoint.sources import Source, resolve, resolve_family, resolve_one
from harness.checkpoint.template import has_template
from harness.errors import HarnessError
from harness.evaluate.decoding import samples
from harness.evaluate.judged import JudgeFile
from harness.evaluate.task_file import TaskFile
from harness.family import Calibration, Family, Row
from harness.family.obtain import model_path
from harness.judging import decisive, spec_of
from harness.method import Need, reads_data
from harness.plan import EvalStep, JudgeStep, Plan, RowStep, ScoreStep
from harness.recipe import (
    EvalRecipe,
    JudgeRecipe,
    MergeRecipe,
    ReferenceRecipe,
    ScoreRecipe,
    code_hash,
    file_of,
    key,
)
from harness.scores.calibration import load_rows
from harness.store import Store, digest, slug


def checkpoint_plan(
    family: Family, store: Store, path: Path, *, tasks: Sequence[str] | None = None, limit: int | None = None
) -> Plan:
    """The plan of `harness eval`: one checkpoint on the family's tasks, decoded as its merges are."""
    files = asked.tasks(family, tasks)
    store.prepare()
    converted, cache = store.root / "converted", store.fingerprints
    source = resolve_one(path, lambda: family.model_path("base"), converted, cache)
    recipe = ReferenceRecipe(role="checkpoint", model=source.mark, checkpoint=str(source.path))
    row = RowStep(store.model(slug(path.name, {}, key(recipe))), recipe, path.name, "checkpoint", source.path)
    asking = _Asked(family, store, limit, {_source_of(row): source})
    evals = tuple(asking.evaluation(row, task) for task in files)
    judges = tuple(asking.judges(evals))
    sources = {_source_of(row): source}
    return Plan(family, store, {}, {}, family.donor, (), (row,), files, evals, limit, sources, judges=judges)


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
    chosen, files = asked.everything(family, methods, tasks, references)
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
    if references:
        for label, ref in family.checkpoints.items():
            steps.append(made.existing(label, model_path(ref, family.folder), sources))
    steps += [made.merge(row, method) for row, method in chosen]
    asking, rows = _Asked(family, store, limit, sources, _context(inputs["base"])), tuple(steps)
    evals = tuple(asking.evaluation(step, task) for step in rows for task in files)
    return Plan(
        family,
        store,
        inputs,
        prints,
        family.donor,
        tuple(made.scores.values()),
        rows,
        files,
        evals,
        limit,
        sources,
        tuple(asking.probes(rows) if files else ()),
        tuple(asking.judges(evals)),
        hashed,
    )


def _context(base: Path) -> int:
    """The positions that the base's config has; 0 where it does not say."""
    try:
        config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # what is wrong with it is told when the models are opened
        return 0
    return int(config.get("max_position_embeddings") or 0)


def _source_of(row: RowStep) -> str:
    """The name of a reference's or an existing checkpoint's source."""
    return f"row {row.label}" if row.role == "checkpoint" else row.role


class _Builder:
    """Makes score and row steps; equal statistics become one step."""

    def __init__(self, family: Family, store: Store, inputs: dict[str, Path], prints: dict[str, str]) -> None:
        self.family, self.store, self.inputs, self.prints = family, store, inputs, prints
        self.scores: dict[str, ScoreStep] = {}
        self._rows: dict[tuple[str, str], str] = {}

    def reference(self, role: str) -> RowStep:
        path = self.inputs[role]
        recipe = ReferenceRecipe(role=role, model=self.prints[role], checkpoint=str(path))
        folder = self.store.model(slug(role, {}, key(recipe)))
        return RowStep(folder, recipe, self.family.label(role), role, path)

    def existing(self, label: str, path: Path, sources: dict[str, Source]) -> RowStep:
        """A checkpoint of the family's `rows:`, shown beside the merges and decoded as they are."""
        base, store = sources["base"], self.store
        source = resolve(path, store.root / "converted", store.fingerprints, base)
        recipe = ReferenceRecipe(role="checkpoint", model=source.mark, checkpoint=str(source.path))
        row = RowStep(store.model(slug(label, {}, key(recipe))), recipe, label, "checkpoint", source.path)
        sources[_source_of(row)] = source
        return row

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
        return {role: self._rows_hash(role, self._calibration(role, row, "trains on")) for role in roles}

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
        spec = self._calibration(need.role, row, "needs gradients on").in_profile(need.profile)
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
            rows=self._rows_hash(need.role, spec),
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

    def _rows_hash(self, role: str, spec: Calibration) -> str:
        read = (role, spec.model_dump_json())
        if read not in self._rows:
            self._rows[read] = digest(load_rows(spec, self.family.folder))
        return self._rows[read]


class _Asked:
    """Makes the steps that ask models: evaluations, probes, judgements."""

    def __init__(
        self, family: Family, store: Store, limit: int | None, sources: dict[str, Source], context: int = 0
    ) -> None:
        self.family, self.store, self.limit = family, store, limit
        self.sources, self.context = sources, context

    def evaluation(self, row: RowStep, task: TaskFile, *, probe: bool = False) -> EvalStep:
        family, own = self.family, task.config.get("generation_kwargs") or {}
        role = {} if task.own_decoding or not task.uses_generation else family.generation_for(row.decodes_as)
        if probe and task.uses_generation:
            role |= self._cheap(own, role)
        wanted = family.repeats.get(task.name.removesuffix("_paper"), task.config.get("repeats", 1))
        limit = family.collapse.n if probe else self.limit
        recipe = EvalRecipe(
            task=task.name,
            profile=task.profile,
            prompts=task.prompt_hash,
            scorer=task.score_hash,
            split=family.split,
            generation=role,
            chat_template=self._templated(row) and task.chat_template,
            limit=limit,
            # what is decoded greedily gives the same response again: it is asked once
            repeats=1 if probe or not samples(own, role) else wanted,
            seed=family.seed,
            engine="hf",
        )
        shown = {"limit": limit} if probe else {}
        folder = self.store.evaluation(row.folder, slug(task.name, shown, key(recipe)))
        return EvalStep(folder, recipe, row, task, probe)

    def _templated(self, row: RowStep) -> bool:
        """Whether prompts to a row go through its chat template; merges have their donor's."""
        if self.family.chat_template != "auto":
            return self.family.chat_template
        return has_template(self.sources[self.family.donor if row.is_merge else _source_of(row)])

    def _cheap(self, own: dict[str, Any], role: dict[str, Any]) -> dict[str, int]:
        """A probe's responses are short, however long the role may think, and fit the models' context."""
        limits = [given["max_gen_toks"] for given in (own, role) if "max_gen_toks" in given]
        room = [self.context // 2] if self.context else []
        return {"max_gen_toks": min(limits + room)} if limits else {}

    def probes(self, rows: Sequence[RowStep]) -> list[EvalStep]:
        """The collapse probe of the base and of every merge."""
        files = tasks_of.named(self.family.collapse.probe)
        asked = [row for row in rows if row.role in ("base", "merge", "checkpoint")]
        return [self.evaluation(row, task, probe=True) for row in asked for task in files]

    def judges(self, evals: Sequence[EvalStep]) -> list[JudgeStep]:
        return [self._judge(step, step.task.judge) for step in evals if step.task.judge is not None]

    def _judge(self, step: EvalStep, judge: JudgeFile) -> JudgeStep:
        judge = judge.but(self.family.judges.get(step.task.name.removesuffix("_paper"), {}))
        model, mark = judge.resolved(self.family.folder, self.store.fingerprints)
        recipe = JudgeRecipe(
            task=step.task.name,
            evaluation=key(step.recipe),
            kind=judge.kind,
            model=mark,
            parameters=decisive(judge.parameters),
            parts=judge.parts,
            code=digest(judge.code()),
            given=model,
        )
        spec_of(judge)  # wrong parameters are told before any work
        folder = self.store.evaluation(step.row.folder, slug(f"{step.task.name}--judge", {}, key(recipe)))
        return JudgeStep(folder, recipe, step, dataclasses.replace(judge, model=model))
