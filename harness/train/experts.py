"""Experts that a family has trained: which are missing, and how one is made. Torch waits until work is left.

    results/<family>/experts/<role>--<8 hex>/
        recipe.yaml  done.json     as in every run folder; complete exactly when done.json exists
        model/                     the base with the adapter merged into its weights
        adapter/                   the adapter, as PEFT stores it; `model/` is rebuilt from it on demand
        loss.jsonl                 step, rate, loss (nats per learned token), norm of the gradient
        training/                  while it is under way: the checkpoint to resume from

The key is made of the settings, the base's content and the rows' content. A kill at any moment costs at most
the steps since the last checkpoint, and on the CPU the same command ends in the same bytes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from harness.checkpoint import sources
from harness.errors import HarnessError
from harness.store import Folder, Store, digest, slug
from harness.train import rows
from harness.train.recipe import Train


class Family(Protocol):
    """What of a family is read here."""

    folder: Path
    experts: dict[str, Any]

    def model_path(self, role: str) -> Path: ...
    def label(self, role: str) -> str: ...
    def model_copy(self, *, update: dict[str, Any]) -> Any: ...


class Screen(Protocol):
    """What of `harness.screen.Screen` is used here."""

    def now(self, kind: str, what: str, done: int = 0, total: int = 0) -> None: ...
    def done(self, kind: str, what: str, result: str) -> None: ...
    def note(self, text: str) -> None: ...


@dataclass(frozen=True)
class Step:
    """Making one expert; `base` is the model it is trained on, read or converted."""

    role: str
    label: str
    train: Train
    base: sources.Source
    rows: list[rows.Row]
    store: Store

    @cached_property
    def key(self) -> str:
        made_of = {"train": self.train.identity, "base": self.base.mark, "rows": self.rows}
        return digest({"recipe": "Expert", **made_of})

    @property
    def folder(self) -> Folder:
        return Folder(self.store.root / "experts" / slug(self.role, {}, self.key))

    @property
    def model(self) -> Path:
        return (self.folder.path / "model").resolve()

    @property
    def ready(self) -> bool:
        return self.folder.complete and (self.model / "config.json").is_file()

    @property
    def recipe(self) -> dict[str, Any]:
        from harness.recipe import made_with

        given = {
            "base": self.base.mark,
            "rows": digest(self.rows),
            "train": self.train.model_dump(mode="json"),
        }
        return {"recipe": "Expert", "key": self.key, "role": self.role, **given, "made_with": made_with()}


def steps(family: Family, store: Store) -> list[Step]:
    """One for each expert that the family has trained, done or not; [] for a family without.

    Reads the rows and hashes the base, as planning does. Raises `HarnessError` for what cannot be had."""
    return [
        _step(family, store, role, expert.train)
        for role, expert in family.experts.items()
        if getattr(expert, "train", None) is not None
    ]


def pending(family: Family, store: Store) -> list[Step]:
    """Those of `steps` that are not done."""
    return [step for step in steps(family, store) if not step.ready]


def make(family: Family, store: Store, screen: Screen) -> Any:
    """The family with every trained expert replaced by its checkpoint's folder, trained if it is missing.

    All that can be wrong with any of them is told before the first is trained. Raises `HarnessError` for data
    that is missing, too few rows, modules that the base does not have, a disk or memory too small."""
    wanted = steps(family, store)
    if work := [step for step in wanted if not step.ready]:
        from harness.train.making import Making

        store.prepare()
        makings = [Making(step, screen) for step in work]
        for making in makings:
            making.check()
        for making in makings:
            making.carry_out()
    return trained(family, wanted)


def trained(family: Family, made: list[Step]) -> Any:
    """The family with the experts of `made` replaced by the folders that `make` fills."""
    return _replaced(family, {step.role: str(step.model) for step in made})


def stand_in(family: Family) -> Any:
    """The family with every trained expert replaced by the model that is trained: the same shapes and, but
    for the training itself, the same costs. For what must be known before it is spent."""
    return _replaced(
        family,
        {
            role: expert.train.base
            for role, expert in family.experts.items()
            if getattr(expert, "train", None) is not None
        },
    )


def _replaced(family: Family, models: dict[str, str]) -> Any:
    if not models:
        return family
    experts = {
        role: expert.model_copy(update={"model": models[role], "train": None}) if role in models else expert
        for role, expert in family.experts.items()
    }
    return family.model_copy(update={"experts": experts})


def _step(family: Family, store: Store, role: str, train: Train) -> Step:
    with _of(role):
        path = family.model_copy(update={"base": train.base}).model_path("base")
        base = sources.resolve_one(
            path, lambda: family.model_path("base"), store.root / "converted", store.fingerprints
        )
        return Step(role, family.label(role), train, base, rows.load(train, family.folder), store)


@contextlib.contextmanager
def _of(role: str) -> Iterator[None]:
    """Errors of a training say which expert it is of."""
    try:
        yield
    except HarnessError as error:
        raise HarnessError(f"expert `{role}`: {error.message}", error.hint) from error
