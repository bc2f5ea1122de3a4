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
from harness.store import Folder, Store, digest, reachable, write_text

FILE = "family.lock.yaml"
PARTS = ("models", "calibration", "benchmarks", "judges")
COMMIT = re.compile(r"^[0-9a-f]{40}$")
Lock = dict[str, Any]


def lock(family: str, results: Path, to: Path | None = None, as_json: bool = False) -> int:
    """Pin what can be pinned, write it, and print it; 0."""
    loaded = load_family(family)
    store = Store(results, loaded.name)
    with drafted(loaded, store, tasks=None if loaded.tasks else []) as draft:
        found = {**_of(draft.plan, set(draft.missing), every=True), "models": _models(loaded, draft)}
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
    whole = read(store.root / FILE)
    held, data = whole.get("models") or {}, whole.get("calibration") or {}

    def at(ref: str | None, use: str) -> str | None:
        entry = held.get(use) or {}
        if not ref or "@" in ref or entry.get("model") != ref or not entry.get("revision"):
            return ref
        return f"{ref}@{entry['revision']}"

    def made(role: str, expert: Any) -> Any:
        update = {"model": at(expert.model, role), "on": at(expert.on, f"{role} (on)")}
        if expert.train is not None:
            base = at(expert.train.base, f"{role} (trained on)")
            update["train"] = expert.train.model_copy(update={"base": base})
        return expert.model_copy(update=update)

    def read_at(role: str, spec: Any) -> Any:
        entry = data.get(role) or {}
        if "@" in spec.data or entry.get("data") != spec.data or not entry.get("revision"):
            return spec
        return spec.model_copy(update={"data": f"{spec.data}@{entry['revision']}"})

    experts = {role: made(role, expert) for role, expert in family.experts.items()}
    calibration = {role: read_at(role, spec) for role, spec in family.calibration.items()}
    checkpoints = {label: at(ref, f"row {label}") for label, ref in family.checkpoints.items()}
    update = {
        "base": at(family.base, "base"),
        "experts": experts,
        "checkpoints": checkpoints,
        "calibration": calibration,
    }
    return family.model_copy(update=update)


def read(file: Path) -> Lock:
    """A lock file; {} where there is none. Raises HarnessError for one that cannot be read."""
    try:
        held = yaml.safe_load(file.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        hint = "mend it, or remove it and lock anew"
        raise HarnessError(f"{file} cannot be read: {reason}", hint) from error
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


def _of(plan: Plan, missing: frozenset[str] | set[str] = frozenset(), every: bool = False) -> Lock:
    """The lock of a plan; null for the content of what is `missing`, and of calibration rows that the plan
    does not read, unless `every`."""
    family = plan.family
    refs = {"base": family.base, **{role: expert.model for role, expert in family.experts.items()}}
    refs |= {f"row {label}": ref for label, ref in family.checkpoints.items()}
    models = {}
    for role, source in plan.sources.items():
        if role not in refs:  # a checkpoint that the family does not name (`harness eval`)
            continue
        here = role not in missing
        path = source.origin if here else None
        made = _made_of(plan.store, refs[role])
        ref = refs[role] if made is None else "trained"
        models[role] = _entry(ref, revision_of(ref, path), source.mark if here else None)
        if made:
            models[f"{role} (trained on)"] = made
    reads = {step.need.role for step in plan.scores}
    reads |= {role for row in plan.rows if row.is_merge for role in row.recipe.rows}
    reads = set(family.calibration) if every else reads
    calibration = {}
    for role, spec in family.calibration.items():
        known = role in reads and f"calibration of {role}" not in missing
        revision = revision_of(spec.data, None) if hub.HUB_ID.match(spec.data) else None
        sha256 = _rows(spec, family.folder) if known else None
        calibration[role] = {"data": _bare(spec.data), "revision": revision, "sha256": sha256}
    judges = {step.evaluation.task.name: _judge(step) for step in plan.judges if step.judge.kind != "rules"}
    benchmarks = {task.name: _benchmark(task) for task in plan.tasks if task.source is not None}
    return {"family": family.name, "models": models, "calibration": calibration, "benchmarks": benchmarks,
            "judges": judges}  # fmt: skip


def _rows(spec: Any, folder: Path) -> str | None:
    try:
        return digest(load_rows(spec, folder))
    except HarnessError:  # told where the rows are read for use
        return None


def _made_of(store: Store, ref: str | None) -> Lock | None:
    """What an expert in the store was trained on, {} where that is not written; None for other models."""
    path = Path(ref or "")
    if not path.is_absolute() or path.resolve().parent.parent != (store.root / "experts").resolve():
        return None
    try:
        written = Folder(path.parent).recipe()
        base, mark = written["train"]["base"], written["base"]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return {}
    return _entry(base, revision_of(base, hub.cached(base) if hub.HUB_ID.match(base) else None), mark)


def _models(family: Family, draft: Draft) -> Lock:
    """The models of a draft as the family names them, at the revision that the hub says where it does."""
    held = _of(draft.plan, set(draft.missing))["models"]

    def entry(use: str, model: Model) -> Lock:
        commit = revision_of(model.ref, model.path) or (model.repository and model.repository.commit)
        return _entry(model.ref, commit or None, held.get(use, {}).get("sha256"))

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
    return {"at": source.place or None, "revision": source.commit,
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
