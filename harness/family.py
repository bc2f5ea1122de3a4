"""The Family schema: a base, its experts, their calibration data, their benchmarks, the rows to merge."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from harness import registry, yamlfile
from harness.errors import HarnessError, nearest
from harness.values import HUB_ID


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Expert(Strict):
    """One expert: a hub id, `id@revision` or path, and the name its row carries (default: its role). A LoRA
    adapter is applied to the base, or to the model `on`."""

    model: str
    on: str | None = None
    label: str | None = None


class Calibration(Strict):
    """Rows whose gradients rank an expert's parameters. `text` is a format string over a row's columns;
    `completion`, where given, is the part of it that carries the loss under `loss_on: completion`."""

    data: str
    name: str | None = None
    split: str = "train"
    text: str
    completion: str | None = None
    n: int = Field(100, ge=1)
    max_tokens: int = Field(512, ge=2)
    seed: int = 0


class Generation(Strict):
    """Decoding settings; what is left out stays as the task says."""

    max_gen_toks: int | None = Field(None, ge=1)
    do_sample: bool | None = None
    temperature: float | None = Field(None, ge=0)
    top_p: float | None = Field(None, gt=0, le=1)

    def settings(self) -> dict[str, Any]:
        return self.model_dump(exclude_none=True)


class Collapse(Strict):
    """When a merge counts as broken: word perplexity above `ppl_ratio` times the base's, or a mean share
    of unfinished or repetitive responses above the limit."""

    ppl_ratio: float = Field(3.0, gt=1)
    unfinished: float = Field(0.5, gt=0, le=1)
    repetition: float = Field(0.5, gt=0, le=1)


class Row(Strict):
    """One merge row: a method, its settings, and the label the table shows."""

    label: str
    method: str
    settings: dict[str, Any] = {}


class Family(Strict):
    """A family file. Only `title`, `base` and `experts` are required."""

    name: str = ""
    folder: Path = Path(".")
    title: str
    note: str = ""
    base: str
    experts: dict[str, Expert] = Field(min_length=1)
    tokenizer: str | None = None
    vocab: Literal["error", "base", "intersect", "union"] = "error"
    calibration: dict[str, Calibration] = {}
    tasks: list[str] = []
    split: str = "test"
    chat_template: bool = True
    generation: dict[Literal["base", "task", "reasoning", "merge"], Generation] = {}
    methods: dict[str, dict[str, Any] | None] = {}
    collapse: Collapse = Collapse()
    seed: int = 0

    @field_validator("experts", mode="before")
    @classmethod
    def _short_form(cls, experts: Any) -> Any:
        if not isinstance(experts, dict):
            return experts
        return {
            role: {"model": value} if isinstance(value, str) else value for role, value in experts.items()
        }

    @model_validator(mode="after")
    def _roles_known(self) -> Family:
        donors = ["base", *self.experts]
        if "base" in self.experts:
            raise ValueError("a role cannot be called `base`")
        if self.tokenizer is not None and self.tokenizer not in donors:
            raise ValueError(f"tokenizer is {self.tokenizer!r}; choose one of {', '.join(donors)}")
        for role in self.calibration:
            if role not in self.experts:
                raise ValueError(
                    f"calibration names the role {role!r}; the experts are {', '.join(self.experts)}"
                )
        return self

    @property
    def roles(self) -> tuple[str, ...]:
        """Expert roles in the order methods see them."""
        return tuple(self.experts)

    @property
    def donor(self) -> str:
        """`base` or the role that gives merges their tokenizer, chat template and generation config."""
        return self.tokenizer or ("reasoning" if "reasoning" in self.experts else self.roles[0])

    def label(self, role: str) -> str:
        return "base" if role == "base" else self.experts[role].label or role

    def generation_for(self, role: str) -> dict[str, Any]:
        """Settings of a role; a role of its own beyond `reasoning` counts as `task`, a merge as `merge`."""
        kind = role if role in ("base", "reasoning", "merge") else "task"
        return self.generation.get(kind, Generation()).settings()

    def model_path(self, role: str) -> Path:
        """The folder of the base or of an expert's checkpoint, fetched from the hub when it is an id."""
        return model_path(self.base if role == "base" else self.experts[role].model, self.folder)

    def on_path(self, role: str) -> Path | None:
        """The folder of the model that an expert's adapter is applied to; None for the base."""
        on = self.experts[role].on
        return None if on is None else model_path(on, self.folder)

    def rows(self) -> list[Row]:
        """The merge rows in file order; without `methods:`, every streaming method."""
        rows = []
        for label, settings in self.methods.items():
            settings = dict(settings or {})
            rows.append(Row(label=label, method=settings.pop("method", label), settings=settings))
        return rows or [Row(label=name, method=name) for name in registry.streaming_methods()]


def load_family(name: str) -> Family:
    """The family called `name`, or the one in the file at that path."""
    plugin = registry.get("families", name)
    return parse_family(plugin.path)


def parse_family(path: Path) -> Family:
    """A family file, checked; errors name file, line and key."""
    data, lines = yamlfile.read(path)
    for reserved in ("name", "folder"):
        if reserved in data:
            raise HarnessError(
                f"{path}:{lines[(reserved,)]}: key `{reserved}` is not yours to set",
                "the file's name is the family's name",
            )
    try:
        return Family.model_validate({**data, "name": path.stem, "folder": path.parent})
    except ValidationError as error:
        raise _explain(error, path, lines, data) from error


def _explain(error: ValidationError, path: Path, lines: yamlfile.Lines, data: dict) -> HarnessError:
    # a misspelt key also makes the right one missing: tell the cause
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    loc = tuple(first["loc"])
    where = f"{path}:{yamlfile.line_of(lines, loc)}"
    key = ".".join(str(part) for part in loc)
    if first["type"] == "extra_forbidden":
        model: Any = Family
        for part in loc[:-1]:
            model = {
                "experts": Expert,
                "calibration": Calibration,
                "generation": Generation,
                "collapse": Collapse,
            }.get(part, model)
        known = [k for k in model.model_fields if not (model is Family and k in ("name", "folder"))]
        return HarnessError(f"{where}: unknown key `{key}`", nearest(str(loc[-1]), known))
    if first["type"] == "missing":
        return HarnessError(
            f"{where}: key `{key}` is missing",
            "a family needs `title`, `base` and `experts`" if len(loc) == 1 else f"add `{loc[-1]}:`",
        )
    message = first["msg"].removeprefix("Value error, ")
    given = "" if not key else f"`{key}` is {first['input']!r}: "
    return HarnessError(
        f"{where}: {given}{message}", "`harness show family tiny-safety` prints a complete example"
    )


def model_path(ref: str, folder: Path) -> Path:
    """The folder of a checkpoint: a path (relative to `folder`), or a hub id, fetched or cached."""
    path = Path(os.path.expanduser(ref))
    path = path if path.is_absolute() else folder / path
    if path.is_dir():
        return path.resolve()
    if ref.startswith((".", "/", "~")) or not HUB_ID.match(ref):
        raise HarnessError(
            f"no checkpoint at {path}", "a folder with config.json and *.safetensors, or a hub id `org/name`"
        )
    name, _, revision = ref.partition("@")
    try:
        found = _fetched(name, revision, "*.safetensors")
        # only then: repositories that have both hold the same weights twice
        return found if any(found.glob("*.safetensors")) else _fetched(name, revision, "pytorch_model*.bin")
    except Exception as error:  # the hub client has many exception types; all mean: not obtained
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise HarnessError(
            f"cannot fetch `{ref}` from the hub: {type(error).__name__}: {reason}",
            f"check the network and `hf auth login`, or give a local path; {path} does not exist",
        ) from error


def _fetched(name: str, revision: str, weights: str) -> Path:
    from huggingface_hub import snapshot_download

    patterns = [weights, "*.json", "*.jinja", "*.model", "*.txt"]
    return Path(snapshot_download(name, revision=revision or None, allow_patterns=patterns))
