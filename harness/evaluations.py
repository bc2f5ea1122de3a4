"""The steps that ask models: evaluations, probes, judgements. Reads files; computes nothing."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import tasks as tasks_of
from harness.checkpoint.sources import Source
from harness.checkpoint.template import has_template
from harness.evaluate import choice
from harness.evaluate.decoding import samples
from harness.evaluate.judged import JudgeFile
from harness.evaluate.task_file import TaskFile
from harness.family import Family
from harness.judging import decisive, spec_of
from harness.plan import EvalStep, JudgeStep, RowStep
from harness.recipe import EvalRecipe, JudgeRecipe, key
from harness.store import Store, digest, slug


@dataclass(frozen=True)
class Numerics:
    """What answers, as far as it changes an answer: the engine's name, and `EvalRecipe.numerics`."""

    engine: str
    settings: dict[str, Any]

    @classmethod
    def of(cls, family: Family, engine: str, gpu: bool | None = None) -> Numerics:
        """Of `auto`, `hf` or `vllm` here, or on a machine with or without a `gpu`."""
        name = choice.resolve(engine, family)
        settings = choice.numerics(name, family.engine)
        del settings["engine"]
        if settings["dtype"] == "auto":  # the same rule as `EngineSettings`
            gpu = bool(choice.visible_gpus()) if gpu is None else gpu
            settings["dtype"] = "checkpoint" if gpu else "float32"
        return cls(name, settings)


class Asking:
    """Makes the steps that ask models: evaluations, probes, judgements."""

    def __init__(
        self,
        family: Family,
        store: Store,
        limit: int | None,
        sources: dict[str, Source],
        numerics: Numerics,
        base: Path | None = None,
    ) -> None:
        self.family, self.store, self.limit = family, store, limit
        self.sources, self.numerics = sources, numerics
        self.context = _context(base) if base else 0

    def evaluation(self, row: RowStep, task: TaskFile, *, probe: bool = False) -> EvalStep:
        family, own = self.family, task.config.get("generation_kwargs") or {}
        role = {} if task.own_decoding or not task.uses_generation else family.generation_for(row.decodes_as)
        if probe and task.uses_generation:
            role |= self._cheap(own, role)
        choice.refuse(task, self.numerics.engine, role)
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
            engine=self.numerics.engine,
            numerics=self.numerics.settings,
        )
        shown = {"limit": limit} if probe else {}
        folder = self.store.evaluation(row.folder, slug(task.name, shown, key(recipe)))
        return EvalStep(folder, recipe, row, task, probe)

    def _templated(self, row: RowStep) -> bool:
        """Whether prompts to a row go through its chat template; merges have their donor's."""
        if self.family.chat_template != "auto":
            return self.family.chat_template
        return has_template(self.sources[self.family.donor if row.is_merge else source_of(row)])

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


def _context(base: Path) -> int:
    """The positions that the base's config has; 0 where it does not say."""
    try:
        config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # what is wrong with it is told when the models are opened
        return 0
    return int(config.get("max_position_embeddings") or 0)


def source_of(row: RowStep) -> str:
    """The name of a reference's or an existing checkpoint's source."""
    return f"row {row.label}" if row.role == "checkpoint" else row.role
