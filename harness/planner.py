"""family x methods x tasks -> the plan. Reads and hashes; computes nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import asked, registry
from harness.checkpoint.sources import Source, resolve, resolve_family, resolve_one
from harness.errors import HarnessError
from harness.evaluations import Asking, Numerics, source_of
from harness.family import Calibration, Family, Row
from harness.family.obtain import model_path
from harness.method import Need, displayed, reads_data
from harness.plan import Plan, RowStep, ScoreStep
from harness.recipe import MergeRecipe, ReferenceRecipe, ScoreRecipe, code_hash, file_of, key
from harness.scores.calibration import load_rows
from harness.seeds import joined
from harness.store import Store, digest, slug


def checkpoint_plan(
    family: Family,
    store: Store,
    path: Path,
    *,
    tasks: Sequence[str] | None = None,
    limit: int | None = None,
    engine: str = "auto",
) -> Plan:
    """The plan of `harness eval`: one checkpoint on the family's tasks, decoded as its merges are."""
    files, numerics = asked.tasks(family, tasks), Numerics.of(family, engine)
    store.prepare()
    converted, cache = store.root / "converted", store.fingerprints
    source = resolve_one(path, lambda: family.model_path("base"), converted, cache)
    recipe = ReferenceRecipe(role="checkpoint", model=source.mark, checkpoint=str(source.path))
    row = RowStep(store.model(slug(path.name, {}, key(recipe))), recipe, path.name, "checkpoint", source.path)
    sources = {source_of(row): source}
    asking = Asking(family, store, limit, sources, numerics)
    evals = tuple(asking.evaluation(row, task) for task in files)
    return Plan(
        family, store, {}, {}, family.donor, (), (row,), files, evals, limit, sources,
        judges=tuple(asking.judges(evals)), engine=numerics.engine,
    )  # fmt: skip


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
    engine: str = "auto",
    on_gpu: bool | None = None,
    known: asked.Everything | None = None,
    seeds: int | None = None,
) -> Plan:
    """The plan of `harness compare`. `methods` selects rows by label or method, or adds files. `prepare`
    creates the store, once everything that was asked for is known to exist. `lone`: nothing is stored by the
    models' content, so they are hashed only if a method reads what is. `engine` is `auto`, `hf` or `vllm`;
    `on_gpu` says whether it runs on one, where that is another machine. `known` is what `asked.everything`
    found for the same words, which is not looked for again. `seeds` (None: the family's) is how many there
    are of what is drawn, from the family's own on."""
    chosen, files = known = known or asked.everything(family, methods, tasks, references)
    if (count := seeds or family.seeds) > 1:
        same = {"limit": limit, "references": references, "prepare": prepare, "engine": engine,
                "on_gpu": on_gpu, "known": known, "seeds": 1}  # fmt: skip
        others = [family.model_copy(update={"seed": family.seed + i}) for i in range(1, count)]
        first = make_plan(family, store, **same)
        return joined(first, [make_plan(other, store, **same) for other in others])
    numerics = Numerics.of(family, engine, on_gpu)
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
    asking, rows = Asking(family, store, limit, sources, numerics, inputs["base"]), tuple(steps)
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
        numerics.engine,
    )


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
        sources[source_of(row)] = source
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
        label = displayed(row.label, cls)
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
