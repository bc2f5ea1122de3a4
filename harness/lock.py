"""`family.lock.yaml`: what every model and data set of a family is, by revision and content.

A run writes what it finds there first, adds what is new, and says what moved since; `harness lock` writes
everything anew. What is not known (a hub's revision without network, the content of what is not here) is
null: it is unlocked until a later run or lock knows it. Hub ids without a revision are read at the locked
one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import yaml
from rich.console import Console
from rich.table import Table

from harness import hub
from harness.costs.draft import Draft, Model, drafted
from harness.data.identity import identity
from harness.data.source import local_files
from harness.errors import HarnessError
from harness.evaluate.task_file import TaskFile
from harness.family import Family, load_family
from harness.plan import Plan
from harness.scores.calibration import load_rows
from harness.store import Store, digest, reachable, write_text

FILE = "family.lock.yaml"
PARTS = ("models", "calibration", "benchmarks", "judges")
COMMIT = re.compile(r"^[0-9a-f]{40}$")
Lock = dict[str, Any]


def lock(family: str, results: Path, to: Path | None = None, as_json: bool = False) -> int:
    """Pin what can be pinned, write it, and print it; 0."""
    loaded = load_family(family)
    store = Store(results, loaded.name)
    with drafted(loaded, store, tasks=None if loaded.tasks else []) as draft:
        found = {**_of(draft.plan, set(draft.missing)), "models": _models(loaded, draft)}
        for role, spec in loaded.calibration.items():
            found["calibration"][role]["data"] = _bare(spec.data)
    _ask(found)
    file = to or store.root / FILE
    before = read(file)
    with reachable(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        _write(file, found)
    if as_json:
        click.echo(json.dumps(found, indent=1, ensure_ascii=False))
        return 0
    for line in moved(before, found):
        click.echo(line)
    _print(found, file)
    return 0


def keep(plan: Plan) -> list[str]:
    """Hold a run against the lock in its store; sentences about what moved. What the lock lacks is added,
    what moved stays as it was locked."""
    file, found = plan.store.root / FILE, _of(plan)
    before = read(file)
    _write(file, _extended(before, found))
    said = moved(before, found)
    return [*said, f"`harness lock -f {plan.family.name}` accepts what is there now"] if said else []


def footnotes(plan: Plan) -> list[str]:
    """The lines under the table: what is not as it was locked."""
    return moved(read(plan.store.root / FILE), _of(plan))


def pinned(family: Family, store: Store) -> Family:
    """The family with the locked revision for every hub id that has none of its own."""
    held = read(store.root / FILE).get("models", {})

    def at(ref: str | None, use: str) -> str | None:
        entry = held.get(use) or {}
        if not ref or "@" in ref or entry.get("model") != ref or not entry.get("revision"):
            return ref
        return f"{ref}@{entry['revision']}"

    experts = {
        role: expert.model_copy(update={"model": at(expert.model, role), "on": at(expert.on, f"{role} (on)")})
        for role, expert in family.experts.items()
    }
    checkpoints = {label: at(ref, f"row {label}") for label, ref in family.checkpoints.items()}
    update = {"base": at(family.base, "base"), "experts": experts, "checkpoints": checkpoints}
    return family.model_copy(update=update)


def read(file: Path) -> Lock:
    """A lock file; {} where there is none. Raises HarnessError for one that cannot be read."""
    try:
        held = yaml.safe_load(file.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise HarnessError(
            f"{file} cannot be read: {reason}", "mend it, or remove it and lock anew"
        ) from error
    if not isinstance(held, dict):
        raise HarnessError(f"{file} holds no lock", "remove it and lock anew")
    return held


def moved(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What both know and tell differently: which, from what, to what."""
    said = []
    for part in PARTS:
        held = before.get(part) or {}
        for name, entry in (now.get(part) or {}).items():
            old = held.get(name)
            if not isinstance(old, dict):
                continue
            changes = [
                f"{key} {_short(old[key])} → {_short(value)}"
                for key, value in entry.items()
                if value is not None and old.get(key) is not None and old[key] != value
            ]
            if changes:
                ref = entry.get("model") or entry.get("data") or entry.get("at") or name
                said.append(
                    f"{part}: `{name}` ({_bare(str(ref))}) moved since it was locked: {', '.join(changes)}"
                )
    return said


def revision_of(ref: str, path: Path | None) -> str | None:
    """The commit that a hub id stands for here: the one it names, or the one whose files are in the cache."""
    _, named = hub.split(ref)
    if named and COMMIT.match(named):
        return named
    parts = path.parts if path else ()
    at = next((parts[i + 1] for i, part in enumerate(parts[:-1]) if part == "snapshots"), "")
    return at if COMMIT.match(at) else None


def _of(plan: Plan, missing: frozenset[str] | set[str] = frozenset()) -> Lock:
    """The lock of a plan; null for the content of what is `missing`."""
    family = plan.family
    refs = {"base": family.base, **{role: expert.model for role, expert in family.experts.items()}}
    refs |= {f"row {label}": ref for label, ref in family.checkpoints.items()}
    models = {}
    for role, source in plan.sources.items():
        here = role not in missing
        path = source.origin if here else None
        models[role] = _entry(refs[role], revision_of(refs[role], path), source.mark if here else None)
    calibration = {
        role: {
            "data": _bare(spec.data),
            "revision": revision_of(spec.data, None) if hub.HUB_ID.match(spec.data) else None,
            "sha256": None if f"calibration of {role}" in missing else digest(load_rows(spec, family.folder)),
        }
        for role, spec in family.calibration.items()
    }
    judges = {step.evaluation.task.name: _judge(step) for step in plan.judges if step.judge.kind != "rules"}
    benchmarks = {task.name: _benchmark(task) for task in plan.tasks if task.source is not None}
    return {"family": family.name, "models": models, "calibration": calibration, "benchmarks": benchmarks,
            "judges": judges}  # fmt: skip


def _models(family: Family, draft: Draft) -> Lock:
    """The models of a draft as the family names them, at the revision that the hub says where it does."""
    held = _of(draft.plan, set(draft.missing))["models"]

    def entry(use: str, model: Model) -> Lock:
        commit = model.repository.commit if model.repository else None
        return _entry(
            model.ref, revision_of(model.ref, model.path) or commit, held.get(use, {}).get("sha256")
        )

    found = {use: entry(use, model) for use, model in draft.models.items()}
    for role in family.experts:
        if role not in found and role in held:  # trained here
            found[role] = held[role] if role not in draft.missing else _entry("trained", None, None)
    return found


def _ask(found: Lock) -> None:
    """Fill in the commits that the hub tells of data sets and judges."""
    wanted = {
        (part, name): (entry[key], kind)
        for part, key, kind in (("calibration", "data", "dataset"), ("judges", "model", "model"))
        for name, entry in found[part].items()
        if hub.HUB_ID.match(entry[key]) and entry["revision"] is None and Path(entry[key]).suffix == ""
    }
    told = hub.look_all(wanted.values())
    for (part, name), repository in wanted.items():
        found[part][name]["revision"] = told[repository].commit


def _entry(ref: str | None, revision: str | None, sha256: str | None) -> Lock:
    return {"model": _bare(ref or ""), "revision": revision, "sha256": sha256}


def _bare(ref: str) -> str:
    """A hub id without its revision; a path as it is."""
    return hub.split(ref)[0] if hub.HUB_ID.match(ref) else ref


def _judge(step: Any) -> Lock:
    mark = step.recipe.model
    sha256 = mark if re.fullmatch(r"[0-9a-f]{64}", mark) else None
    return {"model": step.recipe.given, "revision": step.judge.revision, "sha256": sha256}


def _benchmark(task: TaskFile) -> Lock:
    source = task.source
    here = all(local_files(source, split) for split in source.files)
    return {"at": source.place or None, "revision": source.revision,
            "sha256": digest(identity(source)) if here else None}  # fmt: skip


def _extended(before: Lock, found: Lock) -> Lock:
    """What was locked, with what it did not know."""
    whole: Lock = {"family": found["family"]}
    for part in PARTS:
        whole[part] = dict(before.get(part) or {})
        for name, entry in found[part].items():
            old = whole[part].get(name) or {}
            whole[part][name] = {
                key: old.get(key) if old.get(key) is not None else v for key, v in entry.items()
            }
    return whole


def _write(file: Path, found: Lock) -> None:
    write_text(file, yaml.safe_dump(found, sort_keys=False, allow_unicode=True))


def _short(value: Any) -> str:
    text = str(value)
    return text[:12] if re.fullmatch(r"[0-9a-f]{40,64}", text) else text


def _print(found: Lock, file: Path) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("", "name", "what", "revision", "sha256"):
        table.add_column(title, no_wrap=title in ("revision", "sha256"), overflow="fold")
    open_ = 0
    for part in PARTS:
        for name, entry in found[part].items():
            ref = str(entry.get("model") or entry.get("data") or entry.get("at") or "–")
            remote = bool(hub.HUB_ID.match(ref)) and (part != "judges" or entry["sha256"] is None)
            unlocked = entry["sha256"] is None and (entry["revision"] is None or not remote)
            open_ += unlocked
            known = [_short(entry[key]) if entry[key] else "unlocked" if unlocked else "–"
                     for key in ("revision", "sha256")]  # fmt: skip
            table.add_row(part, name, ref, *known)
    console = Console(highlight=False, width=130, markup=False)
    console.print(table)
    click.echo(f"{file}: " + (f"{open_} unlocked" if open_ else "everything is locked"))
