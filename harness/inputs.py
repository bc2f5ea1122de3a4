"""The models that a plan names, made readable, matched row by row, compared with each other."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.checkpoint import Checkpoint, check_fit, compat, sources
from harness.checkpoint.align import Aligned, align, align_scores
from harness.errors import HarnessError
from harness.plan import Plan, ScoreStep
from harness.store import write_text

REPORT = "compat.json"


def make(
    plan: Plan,
    progress: Callable[[str], None] = lambda what: None,
    failed: Callable[[Path, HarnessError], None] | None = None,
) -> list[str]:
    """Write what the store lacks of converted models (`.bin`, adapters); warnings.

    Raises `HarnessError` for a model that cannot be converted; one that is merely a row of its own goes to
    `failed` instead, with the folder it should have been in."""
    said: list[str] = []
    for name, source in plan.sources.items():
        if not source.ready:
            plan.store.prepare()
            progress(source.label)
        try:
            said += sources.make(source)
        except HarnessError as error:
            if failed is None or name in plan.inputs:
                raise
            failed(source.path, error)
    return said


def opened(plan: Plan) -> Aligned:
    """Base and experts, their embeddings' rows matched as the family's `vocab` says."""
    models = {
        role: dataclasses.replace(Checkpoint.open(path), name=plan.sources[role].label)
        for role, path in plan.inputs.items()
    }
    if plan.family.vocab != "error":
        plan.store.prepare()
    return align(models, plan.family.vocab, plan.donor, plan.prints, plan.store.root / "converted")


def statistic(plan: Plan, models: Aligned, step: ScoreStep) -> Checkpoint:
    """A gradient statistic, its rows matched as those of the model it is of."""
    role = step.need.role if step.need.model == "expert" else "base"
    name = step.folder.path.name
    return align_scores(models, role, Checkpoint.open(step.folder.path), name, plan.store.root / "converted")


def check(plan: Plan, progress: Callable[[int, int], None] | None = None) -> list[str]:
    """Stop on models that do not fit together; sentences about what is merely odd.

    All that was compared is written to `compat.json` in the store, if there is one. With `progress`,
    lineage is measured too, which reads the models once (`compat.json` keeps it)."""
    models = opened(plan)
    _check_votes(plan, models)
    found = {"made_of": _made_of(plan), **compat.report(models.base, models.experts), "lineage": None}
    known = _stored(plan)
    try:
        said = [*check_fit(models.base, models.experts), *models.notes]
        if plan.family.vocab == "error":
            said += compat.token_warnings(found)
        found["lineage"] = known.get("lineage")
        if found["lineage"] is None and progress:
            from harness.checkpoint.lineage import lineage

            found["lineage"] = lineage(models.base, models.experts, progress)
        if found["lineage"]:
            said += compat.lineage_warnings(found["lineage"], models.base.label)
        found["warnings"] = [*said, *(w for source in plan.sources.values() for w in _of_source(source))]
    finally:  # what does not fit at all is in the file as well
        file = plan.store.root / REPORT
        if plan.store.root.is_dir() and (plan.hashed or not file.is_file()):
            text = json.dumps(found, indent=1, ensure_ascii=False, default=list)
            write_text(file, text + "\n")
    return said


def footnotes(plan: Plan) -> list[str]:
    """What the report says of the models, as `check` left it."""
    return list(_stored(plan).get("warnings", ()))


def _of_source(source: sources.Source) -> list[str]:
    made = source.folder.done().get("warnings", ()) if source.folder else ()
    return [*source.warnings, *made]


def _made_of(plan: Plan) -> dict[str, Any]:
    return {"sha256": plan.prints, "vocab": plan.family.vocab, "donor": plan.donor}


def _stored(plan: Plan) -> dict[str, Any]:
    """The report of an earlier check of exactly these models; {} if there is none."""
    with contextlib.suppress(OSError, ValueError):
        held = json.loads(Path(plan.store.root / REPORT).read_text("utf-8"))
        if isinstance(held, dict) and held.get("made_of") == _made_of(plan):
            return held
    return {}


def _check_votes(plan: Plan, models: Aligned) -> None:
    """Votes compare two models element by element while they are counted: there is nothing to match
    afterwards."""
    for step in plan.scores:
        against = getattr(step.need, "against", None)
        odd = {step.need.role, against} & set(models.arrangement.sources) if against else ()
        if odd:
            raise HarnessError(
                f"the statistic `{step.label}` compares `{step.need.role}` and `{against}` row by "
                f"row, and vocab: "
                f"{plan.family.vocab} moves the rows of {', '.join(f'`{role}`' for role in sorted(odd))}",
                "leave that row out, or use models of one vocabulary",
            )
