"""The steps of a run: what each makes, of what, and in which folder it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.checkpoint.sources import Source
from harness.evaluate.judged import JudgeFile
from harness.evaluate.task_file import TaskFile
from harness.family import Family
from harness.method import Need
from harness.recipe import EvalRecipe, JudgeRecipe, MergeRecipe, ReferenceRecipe, ScoreRecipe
from harness.store import Folder, Store


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
    `merge`, or `checkpoint` for one that the family does not name. `seed_of`: the label of the row that this
    one repeats with another seed."""

    folder: Folder
    recipe: ReferenceRecipe | MergeRecipe
    label: str
    role: str
    checkpoint: Path
    method: Any = None
    scores: dict[str, ScoreStep] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    seed_of: str | None = None

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
    """Evaluate one row on one task; a `probe` asks a few items of it right after the merge."""

    folder: Folder
    recipe: EvalRecipe
    row: RowStep
    task: TaskFile
    probe: bool = False

    @property
    def label(self) -> str:
        return f"{self.row.label} / {self.task.name}" + " (probe)" * self.probe


@dataclass(frozen=True)
class JudgeStep:
    """Let a judge read what an evaluation's responses say."""

    folder: Folder
    recipe: JudgeRecipe
    evaluation: EvalStep
    judge: JudgeFile

    @property
    def label(self) -> str:
        return f"{self.evaluation.label} by {self.judge.model}"


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
    probes: tuple[EvalStep, ...] = ()
    judges: tuple[JudgeStep, ...] = ()
    hashed: bool = True  # False: `prints` are of the files' size and time, and nothing is stored under them
    engine: str = "hf"  # what evaluates: `hf` or `vllm`

    def named(self) -> dict[str, ScoreStep | RowStep | EvalStep | JudgeStep]:
        """Every step by the name of its folder in the store (`models/ties--52873946/evals/gsm8k--2b77d0aa`):
        another process that made the same plan finds it by that."""
        steps = (*self.scores, *self.rows, *self.probes, *self.evals, *self.judges)
        return {step.folder.path.relative_to(self.store.root).as_posix(): step for step in steps}

    def probes_of(self, row: RowStep) -> list[EvalStep]:
        return [step for step in self.probes if step.row is row]

    def judge_of(self, evaluation: EvalStep) -> JudgeStep | None:
        return next((step for step in self.judges if step.evaluation is evaluation), None)

    def evals_of(self, row: RowStep) -> list[EvalStep]:
        return [step for step in self.evals if step.row is row]

    def merges_to_make(self) -> list[RowStep]:
        """Merges never finished, and those whose weights are gone while an evaluation needs them."""
        wanted: dict[Path, RowStep] = {}
        for row in self.rows:
            asked = (*self.probes_of(row), *self.evals_of(row))
            missing = any(not step.folder.complete for step in asked)
            if row.is_merge and (not row.folder.complete or (missing and not row.has_weights)):
                wanted.setdefault(row.folder.path, row)
        return list(wanted.values())

    def scores_to_make(self, merges: Sequence[RowStep]) -> list[ScoreStep]:
        """Statistics that these merges read and the store lacks, each behind those that it reads."""
        lacking = [s for row in merges for s in row.scores.values() if not s.folder.complete]
        wanted = {s.folder.path: s for step in lacking for s in (*step.after, step) if not s.folder.complete}
        return list(wanted.values())

    def evals_to_make(self) -> list[EvalStep]:
        """Evaluations that the store lacks; a row's probes come before the rest of it."""
        asked = (step for row in self.rows for step in (*self.probes_of(row), *self.evals_of(row)))
        wanted = {step.folder.path: step for step in asked if not step.folder.complete}
        return list(wanted.values())

    def judges_to_make(self) -> list[JudgeStep]:
        """Judgements that the store lacks, of evaluations that it has."""
        wanted = {
            s.folder.path: s for s in self.judges if not s.folder.complete and s.evaluation.folder.complete
        }
        return list(wanted.values())
