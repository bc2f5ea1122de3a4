"""Models of different vocabularies made to fit: their embeddings and heads are read from copies in the
store whose rows lie as the merged model's do. Imports torch only when a copy has to be written."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.checkpoint import fit
from harness.checkpoint.read import EMBEDDING, FLOATS, HEAD, Checkpoint, TensorInfo
from harness.checkpoint.sources import complete
from harness.checkpoint.vocabulary import Arrangement, Rule, Vocabulary, arrange, read_tokens
from harness.errors import HarnessError
from harness.store import Folder, digest, slug


@dataclass(frozen=True)
class Aligned:
    """Models whose embeddings have the same rows; `notes` say what has no counterpart."""

    base: Checkpoint
    experts: dict[str, Checkpoint]
    notes: tuple[str, ...] = ()
    arrangement: Arrangement = field(default_factory=lambda: Arrangement(0))
    key: str = ""


def align(
    models: Mapping[str, Checkpoint], rule: Rule, donor: str, prints: Mapping[str, str], converted: Path
) -> Aligned:
    """`models` (by role, `base` first) under a rule of `harness.checkpoint.vocabulary`. `prints` are their
    content hashes, `converted` the store's folder for what is made, `donor` the role that gives the
    tokenizer.

    Raises `HarnessError` where a vocabulary cannot be read, or the rule cannot be carried out."""
    base, experts = models["base"], {role: model for role, model in models.items() if role != "base"}
    if rule == "error":
        return Aligned(base, experts)
    vocabularies = {role: _vocabulary(role, model, rule) for role, model in models.items()}
    others = {role: vocabularies[role] for role in experts}
    found = arrange(rule, vocabularies["base"], others, donor, vocabularies[donor].ids)
    key = digest({"rule": rule, "donor": donor, "models": [[role, prints[role]] for role in models]})
    if not found.sources:
        return Aligned(base, experts, found.notes, found, key)
    base = _with(base, _base_rows(base, experts, found, Place(converted, rule, "base", key)), found.rows)
    for role, model in experts.items():
        if role in found.sources:
            made = _expert_rows(base, model, found.sources[role], Place(converted, rule, role, key))
            experts[role] = _with(_without_copy(base, model), made, found.rows)
    return Aligned(base, experts, found.notes, found, key)


def align_scores(aligned: Aligned, role: str, scores: Checkpoint, key: str, converted: Path) -> Checkpoint:
    """A statistic of the model `role` (`key` identifies it) with the rows of the merged model: zero for
    tokens that the model lacks."""
    rows = aligned.arrangement.sources.get(role)
    if rows is None:
        return scores
    parts = {name: scores.tensors[name] for name in (EMBEDDING, HEAD) if name in scores.tensors}
    place = Place(converted, "scores", role, digest([aligned.key, key]))

    def write(part: Path) -> dict[str, Any]:
        from harness.checkpoint.rows import Part, Plan, write_rows

        return {"bytes_written": write_rows(part, {n: Plan(Part(info, rows)) for n, info in parts.items()})}

    return dataclasses.replace(scores, tensors={**scores.tensors, **place.made(write)})


@dataclass(frozen=True)
class Place:
    """Where the copies of one model are kept."""

    converted: Path
    rule: str
    role: str
    key: str

    def made(self, write: Any) -> dict[str, TensorInfo]:
        """The copies, written by `write(part)` unless they are there."""
        name = slug(f"vocab-{self.rule}--{self.role}", {}, digest([self.key, self.role]))
        folder = Folder(self.converted / name)
        path = folder.path / "model"
        if not (folder.complete and path.is_dir()):
            recipe = {"recipe": "Rows", "kind": f"vocab {self.rule}", "role": self.role, "key": self.key}
            with folder.working(recipe):
                if not (folder.complete and path.is_dir()):
                    complete(folder, path, write)
        from harness.checkpoint.rows import infos

        return infos(path)


def _vocabulary(role: str, model: Checkpoint, rule: str) -> Vocabulary:
    who = "the base" if role == "base" else f"expert `{role}`"
    tokens = read_tokens(model.path)
    if tokens is None:
        raise HarnessError(
            f"vocab: {rule} matches tokens, and {who} ({model.label}) has no tokenizer.json",
            "save its tokenizer with `save_pretrained` (fast tokenizers write tokenizer.json)",
        )
    info = model.tensors.get(EMBEDDING)
    if info is None or len(info.shape) != 2 or info.dtype not in FLOATS:
        held = "no such tensor" if info is None else f"{info.dtype} {list(info.shape)}"
        raise HarnessError(f"vocab: {rule} needs `{EMBEDDING}` of {who}: {held}", "use `vocab: error`")
    return Vocabulary(tokens, info.shape[0])


def _with(model: Checkpoint, tensors: Mapping[str, TensorInfo], rows: int) -> Checkpoint:
    """`model` with replaced tensors and a config that says how many rows its embedding has."""
    if not tensors:
        return model
    config = {**model.config, "vocab_size": rows}
    if isinstance(inner := config.get("text_config"), dict):
        config["text_config"] = {**inner, "vocab_size": rows}
    return dataclasses.replace(model, tensors={**model.tensors, **tensors}, config=config)


def _without_copy(base: Checkpoint, model: Checkpoint) -> Checkpoint:
    """`model` without a stored head that only repeats its embedding, where the base's head is tied."""
    if HEAD in fit.outputs(base) or HEAD not in model.tensors or not fit.redundant(model):
        return model
    return dataclasses.replace(model, tensors={n: info for n, info in model.tensors.items() if n != HEAD})


def _matrices(base: Checkpoint, model: Checkpoint) -> dict[str, TensorInfo]:
    """Which matrix of `model` has the rows of the base's embedding and, where it has one of its own, head."""
    embedding = model.tensors[EMBEDDING]
    head = embedding if model.tied else model.tensors.get(HEAD, embedding)
    return {EMBEDDING: embedding, HEAD: head} if HEAD in fit.outputs(base) else {EMBEDDING: embedding}


def _base_rows(
    base: Checkpoint, experts: Mapping[str, Checkpoint], found: Arrangement, place: Place
) -> dict[str, TensorInfo]:
    if "base" not in found.sources:
        return {}

    def write(part: Path) -> dict[str, Any]:
        from harness.checkpoint.rows import Part, Plan, write_rows

        plans, dtypes = {}, {}
        held = {role: _matrices(base, model) for role, model in experts.items()}
        for name, info in _matrices(base, base).items():
            others = [
                Part(held[role][name], found.sources.get(role) or range(found.rows)) for role in experts
            ]
            plans[name], dtypes[name] = Plan(Part(info, found.sources["base"]), tuple(others)), info.dtype
        return {"bytes_written": write_rows(part, plans, dtypes)}

    return place.made(write)


def _expert_rows(base: Checkpoint, model: Checkpoint, rows: list[int], place: Place) -> dict[str, TensorInfo]:
    """The expert's rows, and the base's (as it will be merged) for tokens that the expert lacks: no task
    vector."""

    def write(part: Path) -> dict[str, Any]:
        from harness.checkpoint.rows import Part, Plan, write_rows

        whole = range(len(rows))
        plans = {
            name: Plan(Part(info, rows), (Part(base.tensors[name], whole),))
            for name, info in _matrices(base, model).items()
        }
        return {"bytes_written": write_rows(part, plans)}

    return place.made(write)
