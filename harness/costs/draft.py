"""The plan of a family whose models or calibration rows may not be here yet. Downloads nothing.

What is missing gets a stand-in: an empty checkpoint, blank rows. The plan then has every step; those that
follow from a stand-in are not in the store under its name, so they count as to do.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness import hub
from harness.costs import sizes
from harness.errors import HarnessError
from harness.family import Family
from harness.family.obtain import data_cached
from harness.plan import Plan
from harness.planner import make_plan
from harness.store import Store

UNREAD = 4 << 30  # bytes of weights that are not hashed just to know whether their results are stored


@dataclass(frozen=True)
class Model:
    """A model that a family names. `use` says what for; `path` is where it is here, None where it is not;
    `fault` and `hint` say why it cannot be had (a path that does not exist, no access)."""

    ref: str
    use: str
    path: Path | None = None
    repository: hub.Repository | None = None
    size: sizes.Size | None = None
    fault: str = ""
    hint: str = ""

    @property
    def download(self) -> int | None:
        """Bytes to fetch; 0 for what is here, None where neither the hub nor the name says."""
        if self.path is not None:
            return 0
        if self.repository is None or not self.repository.known:
            return self.size.nbytes if self.size else None
        files = hub.weights(self.repository)
        total = sum(size or 0 for size in files.values())
        return max(0, total - _fetched(self.repository, files)) if total else None


def _fetched(repository: hub.Repository, files: Mapping[str, int | None]) -> int:
    """Bytes of `files` that an interrupted fetch has left in the hub's cache."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE) / f"models--{repository.name.replace('/', '--')}"
    whole = folder / "snapshots" / (repository.commit or "")
    done = sum(size or 0 for name, size in files.items() if (whole / name).is_file())
    return done + sum(file.stat().st_blocks * 512 for file in (folder / "blobs").glob("*.incomplete"))


@dataclass
class Draft:
    """`plan` with stand-ins for what `missing` names (role or use -> why); `pending` are the trainings to do,
    by role: their `Train`; `begun` their steps, where their rows are here."""

    family: Family
    plan: Plan
    models: dict[str, Model]
    missing: dict[str, str] = field(default_factory=dict)
    pending: dict[str, Any] = field(default_factory=dict)
    begun: dict[str, Any] = field(default_factory=dict)

    def size(self, role: str) -> sizes.Size | None:
        """Of a role's model; of one that is not known, the base's."""
        own = self.models.get(role)
        if own is not None and own.size is not None:
            return own.size
        base = self.models["base"].size
        return base or sizes.largest(model.size for model in self.models.values())


def blank(n: int, seed: int) -> list[dict[str, str]]:
    """Rows that stand for calibration rows that are not here."""
    return [{"text": f"row {i}"} for i in range(n)]


@contextlib.contextmanager
def drafted(
    family: Family,
    store: Store,
    *,
    methods: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    limit: int | None = None,
    ask: bool = True,
    **how: Any,
) -> Iterator[Draft]:
    """The draft of a family's plan. `ask`: ask the hub for sizes and access; `how` are further keywords of
    `make_plan`. The stand-ins are gone when the block ends."""
    models = find_models(family, ask)
    with tempfile.TemporaryDirectory(prefix="harness-draft-") as folder:
        missing: dict[str, str] = {}
        with network_off():
            given = _with_models(family, models, store, Path(folder), missing)
            given, pending, begun = _with_experts(given, store)
            given = _with_rows(given, missing)
            for role in pending:
                missing[role] = "it is trained first"
                pending[role] = family.experts[role].train  # with the base that it names
            plan = make_plan(given, store, methods=methods, tasks=tasks, limit=limit, **how)
        yield Draft(family, plan, models, missing, pending, begun)


def find_models(family: Family, ask: bool = True) -> dict[str, Model]:
    """Role, or `role (…)` for what a role is made of -> model."""
    named = {"base": family.base}
    for role, expert in family.experts.items():
        if expert.model is not None:
            named[role] = expert.model
        if expert.on is not None:
            named[f"{role} (on)"] = expert.on
        if expert.train is not None:
            named[f"{role} (trained on)"] = expert.train.base
    named |= {f"row {label}": ref for label, ref in family.checkpoints.items()}
    return described(named, family.folder, ask)


def described(named: dict[str, str], folder: Path, ask: bool) -> dict[str, Model]:
    """use -> model for use -> path (relative to `folder`) or hub id."""
    found = {use: _local(ref, use, folder) for use, ref in named.items()}
    wanted = [(m.ref, "model") for m in found.values() if ask and m.path is None and not m.fault]
    told = hub.look_all(wanted)
    known = {use: _told(model, told.get((model.ref, "model"))) for use, model in found.items()}
    return {
        use: model
        if model.size or not hub.HUB_ID.match(model.ref)
        else replace(model, size=sizes.of_name(model.ref))
        for use, model in known.items()
    }


def _local(ref: str, use: str, folder: Path) -> Model:
    from harness.family.obtain import local

    try:
        path = local(ref, folder) or hub.cached(ref)
        size = sizes.of_folder(path) if path else None
    except HarnessError as error:
        return Model(ref, use, fault=error.message, hint=error.hint)
    return Model(ref, use, path, size=size)


def _told(model: Model, repository: hub.Repository | None) -> Model:
    if repository is None:
        return model
    faulty = repository.state not in ("open",)
    return Model(
        model.ref,
        model.use,
        repository=repository,
        size=sizes.of_repository(model.ref, repository),
        fault=repository.reason if faulty else "",
        hint=repository.hint if faulty else "",
    )


def _with_models(
    family: Family, models: dict[str, Model], store: Store, folder: Path, missing: dict[str, str]
) -> Family:
    """The family with a path for every model; what is not here is an empty checkpoint in `folder`."""

    def place(use: str) -> str:
        model = models[use]
        if model.path is not None and not _unread(model, store):
            return str(model.path)
        missing[use] = "not read yet" if model.path else "not here yet"
        return str(_stand_in(folder / f"model-{len(missing)}", model))

    experts = {}
    for role, expert in family.experts.items():
        changed: dict[str, Any] = {}
        if expert.model is not None:
            changed = {"model": place(role), "on": None}
            if expert.on is not None and role not in missing:
                changed["on"] = place(f"{role} (on)")
        if expert.train is not None:
            changed = {"train": expert.train.model_copy(update={"base": place(f"{role} (trained on)")})}
        experts[role] = expert.model_copy(update=changed)
    checkpoints = {label: place(f"row {label}") for label in family.checkpoints}
    return family.model_copy(update={"base": place("base"), "experts": experts, "checkpoints": checkpoints})


def _unread(model: Model, store: Store) -> bool:
    """Whether its results can be told from others' only after hours of reading: no run was here before."""
    return store.fingerprints is None and model.size is not None and model.size.nbytes > UNREAD


def _stand_in(folder: Path, model: Model) -> Path:
    folder.mkdir()
    config = {"stands_for": model.ref, "max_position_embeddings": model.size.context if model.size else 0}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    return folder


def _with_experts(family: Family, store: Store) -> tuple[Family, dict[str, Any], dict[str, Any]]:
    """The family with trained experts for those that have been trained; the trainings that are to do; the
    steps of those whose rows are here."""
    if not any(expert.train for expert in family.experts.values()):
        return family, {}, {}
    from harness.train import experts

    done, pending, begun = {}, {}, {}
    for role, expert in family.experts.items():
        if expert.train is None:
            continue
        only = family.model_copy(update={"experts": {role: expert}})
        model = expert.train.base
        try:
            (begun[role],) = experts.steps(only, store)
        except HarnessError:  # its rows are not here, so it was not trained here either
            pending[role] = expert.train
        else:
            if begun[role].ready:
                model = str(begun.pop(role).model)
            else:
                pending[role] = expert.train
        done[role] = expert.model_copy(update={"model": model, "train": None})
    return family.model_copy(update={"experts": {**family.experts, **done}}), pending, begun


def _with_rows(family: Family, missing: dict[str, str]) -> Family:
    """The family with blank rows for the calibration sets that are not here."""
    from harness.scores.calibration import load_rows

    changed = {}
    for role, spec in family.calibration.items():
        try:
            for data in {spec.data, spec.in_profile("official").data}:
                if hub.HUB_ID.match(data) and not data_cached(data):
                    raise HarnessError("not here yet")
            for profile in ("paper", "official"):
                load_rows(spec.in_profile(profile), family.folder)
        except HarnessError as error:
            missing[f"calibration of {role}"] = error.message
            update = {"data": f"{__name__}:blank", "name": None, "text": "{text}", "official": None}
            changed[role] = spec.model_copy(update={**update, "completion": None, "completion_after": None})
    return family.model_copy(update={"calibration": {**family.calibration, **changed}})


@contextlib.contextmanager
def network_off() -> Iterator[None]:
    """Let the hub's client and `datasets` use what is cached, and nothing else."""
    import sys

    from huggingface_hub import constants

    held = [(constants, "HF_HUB_OFFLINE", constants.HF_HUB_OFFLINE)]
    if (config := sys.modules.get("datasets.config")) is not None:
        held.append((config, "HF_HUB_OFFLINE", config.HF_HUB_OFFLINE))
    for module, name, _ in held:
        setattr(module, name, True)
    try:
        yield
    finally:
        for module, name, value in held:
            setattr(module, name, value)
