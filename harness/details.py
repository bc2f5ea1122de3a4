"""What a paper's paragraph on implementation details tells, as plain data: `Board.details`.

    models       [{row, role, model, hub, revision, sha256, training}], `training` of an expert made here
    tokenizer    the row that gives merges theirs; `vocab` says what is done where vocabularies differ
    merges       [{row, method, title, paper, settings, statistics, seeds}], settings given or not the default
    calibration  [{role, row, data, hub, config, split, n, max_tokens, seed, revision, for}], for which rows
    tasks        [{name, title, paper, split, place, revision, profile, repeats, decoding, judge}]
    decoding     [{rows, settings}], {} where each task's own settings hold
    engines      [{engine, dtype, ...}]
    versions     {library: versions that computed what is stored}
    seed, limit, split, chat_template

What is not known is None or left out.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import yaml

from harness import hub, lock
from harness.evaluate.decoding import decoding
from harness.plan import Plan, RowStep
from harness.store import Folder


def details_of(plan: Plan) -> dict[str, Any]:
    """The details of a plan, from it, the lock and the recipes in its store."""
    family, held = plan.family, lock.read(plan.store.root / lock.FILE)
    return {
        "models": [_model(plan, row, held) for row in _rows(plan) if not row.is_merge],
        "tokenizer": family.label(family.donor),
        "vocab": family.vocab,
        "merges": [_merge(plan, row) for row in _rows(plan) if row.is_merge],
        "calibration": _calibration(plan, held),
        "tasks": [_task(plan, task) for task in plan.tasks],
        "decoding": _decoding(plan),
        "engines": _engines(plan),
        "versions": _versions(plan),
        "seed": family.seed,
        "limit": plan.limit,
        "split": family.split,
        "chat_template": family.chat_template,
    }


def _rows(plan: Plan) -> list[RowStep]:
    """The rows of the table; those that repeat one with another seed are behind it."""
    return [row for row in plan.rows if row.seed_of is None]


def _model(plan: Plan, row: RowStep, held: dict[str, Any]) -> dict[str, Any]:
    family, use = plan.family, f"row {row.label}" if row.role == "checkpoint" else row.role
    entry = (held.get("models") or {}).get(use) or {}
    refs = {"base": family.base, **{role: expert.model for role, expert in family.experts.items()}}
    ref = entry.get("model") or refs.get(use) or family.checkpoints.get(row.label) or row.checkpoint.name
    name, named = hub.split(str(ref)) if hub.HUB_ID.match(str(ref)) else (str(ref), None)
    made = _training(row) if row.role in family.experts else None
    if made:
        made["revision"] = ((held.get("models") or {}).get(f"{row.role} (trained on)") or {}).get("revision")
    return {
        "row": row.label,
        "role": row.role,
        "model": None if made else name,
        "hub": not made and _on_hub(plan, name),
        "revision": entry.get("revision") or named,
        "sha256": entry.get("sha256"),
        "training": made,
    }


def _on_hub(plan: Plan, name: str) -> bool:
    return bool(hub.HUB_ID.match(name)) and not (plan.family.folder / name).exists()


def _training(row: RowStep) -> dict[str, Any] | None:
    """The recipe of an expert that was trained here."""
    if row.checkpoint.parent.parent.name != "experts":
        return None
    try:
        return dict(Folder(row.checkpoint.parent).recipe()["train"])
    except (OSError, yaml.YAMLError, KeyError, TypeError):  # a folder of the user's with that name
        return None


def _merge(plan: Plan, row: RowStep) -> dict[str, Any]:
    method, label = row.method, row.recipe.label
    named = next((r.settings for r in plan.family.rows() if r.label == label), {})
    settings = {}
    for field in dataclasses.fields(method):
        value = getattr(method, field.name)
        if field.name in named or value != _default(field):
            settings[field.name] = value
    statistics = sorted({step.need.kind for step in row.scores.values()})
    return {
        "row": row.label,
        "method": type(method).method_name,
        "title": type(method).title,
        "paper": type(method).paper,
        "settings": settings,
        "statistics": statistics,
        "seeds": [r.recipe.seed for r in (row, *(r for r in plan.rows if r.seed_of == row.label))],
    }


def _default(field: dataclasses.Field) -> Any:
    made = field.default_factory
    return field.default if made is dataclasses.MISSING else made()


def _calibration(plan: Plan, held: dict[str, Any]) -> list[dict[str, Any]]:
    """Every calibration set that is read, with the rows that read it."""
    found: dict[tuple, dict[str, Any]] = {}
    for row in _rows(plan):
        steps = row.scores.values() if row.is_merge else ()
        read = [(s.need.role, plan.family.calibration[s.need.role].in_profile(s.need.profile)) for s in steps]
        read += [(role, plan.family.calibration[role]) for role in (row.recipe.rows if row.is_merge else ())]
        for role, spec in read:
            entry = (held.get("calibration") or {}).get(role) or {}
            data, named = hub.split(spec.data) if hub.HUB_ID.match(spec.data) else (spec.data, None)
            revision = named or (entry.get("revision") if entry.get("data") == data else None)
            told = found.setdefault(
                (role, spec.model_dump_json()),
                {
                    "role": role, "row": plan.family.label(role), "data": data, "config": spec.name,
                    "split": spec.split, "n": spec.n, "max_tokens": spec.max_tokens, "seed": spec.seed,
                    "hub": _on_hub(plan, data), "revision": revision, "for": [],
                },
            )  # fmt: skip
            if row.label not in told["for"]:
                told["for"].append(row.label)
    return list(found.values())


def _task(plan: Plan, task: Any) -> dict[str, Any]:
    steps = [step for step in plan.evals if step.task is task]
    judges = [step.judge for step in plan.judges if step.evaluation.task is task]
    source = task.source
    own = decoding(task.config.get("generation_kwargs") or {}, {}) if task.uses_generation else None
    return {
        "name": task.name,
        "title": task.header.get("title", task.name),
        "paper": task.header.get("paper"),
        "split": None if task.members else task.split(plan.family.split),
        "place": source.place if source is not None else None,
        "revision": source.commit if source is not None else None,
        "profile": task.profile,
        "repeats": max((step.recipe.repeats for step in steps), default=1),
        "decoding": own and {key: value for key, value in own.items() if key != "until"},
        "own_decoding": task.own_decoding,
        "judge": {"kind": judges[0].kind, "model": judges[0].model, "revision": judges[0].revision}
        if judges
        else None,
    }


def _decoding(plan: Plan) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for row in _rows(plan):
        settings = plan.family.generation_for(row.decodes_as)
        who = "merges" if row.is_merge else row.label
        told = next((one for one in found if one["settings"] == settings), None)
        if told is None:
            found.append({"rows": [who], "settings": settings})
        elif who not in told["rows"]:
            told["rows"].append(who)
    return found


def _engines(plan: Plan) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for step in plan.evals:
        one = {"engine": step.recipe.engine, **step.recipe.numerics}
        found += [one] * (one not in found)
    return found


def _versions(plan: Plan) -> dict[str, list[str]]:
    """Of every library that the stored evaluations name, the versions that computed them."""
    found: dict[str, set[str]] = {}
    for step in plan.evals:
        if not step.folder.complete:
            continue
        for name, version in (step.folder.recipe().get("made_with") or {}).items():
            if name != "host" and version:
                found.setdefault(name, set()).add(str(version))
    return {name: sorted(versions) for name, versions in found.items()}
