"""The Family schema: a base, its experts, their calibration data, their benchmarks, the rows to merge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator

from harness import registry
from harness.errors import HarnessError, nearest
from harness.family import files as family_files
from harness.family.members import (
    Calibration,
    Collapse,
    EngineSettings,
    Expert,
    Generation,
    Official,
    Row,
    Strict,
)
from harness.family.obtain import model_path
from harness.paper import FAMILIES as IN_PAPER
from harness.train.recipe import Train

PARTS = {
    "experts": Expert,
    "calibration": Calibration,
    "calibration_sets": Calibration,
    "official": Official,
    "train": Train,
    "generation": Generation,
    "collapse": Collapse,
    "engine": EngineSettings,
}


class Family(Strict):
    """A family file. Only `title`, `base` and `experts` are required."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_by_name=True, validate_by_alias=True)

    name: str = ""
    folder: Path = Path(".")
    title: str
    note: str = ""
    paper: str | None = None
    base: str
    experts: dict[str, Expert] = Field(min_length=1)
    checkpoints: dict[str, str] = Field({}, alias="rows")
    tokenizer: str | None = None
    vocab: Literal["error", "base", "intersect", "union"] = "error"
    calibration: dict[str, Calibration] = {}
    calibration_sets: dict[str, dict[str, Calibration]] = {}
    tasks: list[str] = []
    profile: Literal["standard", "paper"] = "standard"
    repeats: dict[str, Annotated[int, Field(ge=1)]] = {}
    judges: dict[str, dict[str, Any]] = {}
    split: str = "test"
    chat_template: bool | Literal["auto"] = True
    generation: dict[Literal["base", "task", "reasoning", "merge"], Generation] = {}
    methods: dict[str, dict[str, Any] | Literal[False] | None] = {}
    tune: dict[str, dict[str, Any]] = {}
    baseline: str = "base"
    collapse: Collapse = Collapse()
    engine: EngineSettings = EngineSettings()
    seed: int = 0
    seeds: int = Field(1, ge=1)

    @field_validator("experts", mode="before")
    @classmethod
    def _short_form(cls, experts: Any) -> Any:
        if not isinstance(experts, dict):
            return experts
        return {
            role: {"model": value} if isinstance(value, str) else value for role, value in experts.items()
        }

    @field_validator("checkpoints", mode="before")
    @classmethod
    def _without_dropped(cls, rows: Any) -> Any:
        return {k: v for k, v in rows.items() if v is not None} if isinstance(rows, dict) else rows

    @field_validator("paper")
    @classmethod
    def _in_paper(cls, paper: str | None) -> str | None:
        if paper is not None and paper not in IN_PAPER:
            raise ValueError(f"the paper has no numbers of {paper!r}; it has {', '.join(IN_PAPER)}")
        return paper

    @model_validator(mode="after")
    def _roles_known(self) -> Family:
        donors = ["base", *self.experts]
        if "base" in self.experts:
            raise ValueError("a role cannot be called `base`")
        if self.tokenizer is not None and self.tokenizer not in donors:
            raise ValueError(f"tokenizer is {self.tokenizer!r}; choose one of {', '.join(donors)}")
        for key in ("calibration", "calibration_sets"):
            for role in getattr(self, key):
                if role not in self.experts:
                    raise ValueError(
                        f"{key} names the role {role!r}; the experts are {', '.join(self.experts)}"
                    )
        taken = {*donors, *(self.label(role) for role in self.experts), *(row.label for row in self.rows())}
        known = {*taken, *self.checkpoints, *(row.method for row in self.rows())}
        if self.baseline not in known:
            hint = nearest(self.baseline, known)
            raise ValueError(f"baseline is {self.baseline!r}, which is no row; {hint}")
        for label in self.checkpoints:
            if label in taken:
                raise ValueError(f"`rows` has a {label!r}, which is another row's label; choose a new one")
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
        ref = self.base if role == "base" else self.experts[role].model
        if ref is None:
            raise HarnessError(
                f"expert `{role}` of `{self.name}` is not trained yet", "`harness compare` trains it first"
            )
        return model_path(ref, self.folder)

    def on_path(self, role: str) -> Path | None:
        """The folder of the model that an expert's adapter is applied to; None for the base."""
        on = self.experts[role].on
        return None if on is None else model_path(on, self.folder)

    def rows(self) -> list[Row]:
        """The merge rows in file order; without `methods:`, every streaming method."""
        rows = []
        for label, settings in self.methods.items():
            if settings is False:  # an inherited row that is left out
                continue
            settings = dict(settings or {})
            rows.append(Row(label=label, method=settings.pop("method", label), settings=settings))
        return rows or [Row(label=name, method=name) for name in registry.streaming_methods()]

    def with_calibration(self, role: str, name: str) -> Family:
        """This family with the role's set `name` of `calibration_sets` as its calibration data."""
        known = self.calibration_sets.get(role, {})
        if name not in known:
            raise HarnessError(f"`{role}` has no calibration set called `{name}`", nearest(name, known))
        return self.model_copy(update={"calibration": {**self.calibration, role: known[name]}})


def load_family(name: str) -> Family:
    """The family called `name`, or the one in the file at that path."""
    plugin = registry.get("families", name)
    return parse_family(plugin.path)


def parse_family(path: Path) -> Family:
    """A family file with all that it extends, checked; errors name file, line and key."""
    data, where = family_files.read(path)
    try:
        return Family.model_validate({**data, "name": path.stem, "folder": path.parent})
    except ValidationError as error:
        raise explain(error, path, where) from error


def explain(error: ValidationError, path: Path, where: family_files.Where) -> HarnessError:
    """The first of the schema's errors, with file, line and key."""
    # a misspelt key also makes the right one missing: tell the cause
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    loc = tuple(first["loc"])
    at = family_files.place(where, loc, path)
    key = ".".join(str(part) for part in loc)
    if first["type"] == "extra_forbidden":
        return HarnessError(f"{at}: unknown key `{key}`", nearest(str(loc[-1]), _known(loc[:-1])))
    if first["type"] == "missing":
        return HarnessError(
            f"{at}: key `{key}` is missing",
            "a family needs `title`, `base` and `experts`" if len(loc) == 1 else f"add `{loc[-1]}:`",
        )
    message = first["msg"].removeprefix("Value error, ")
    given = "" if not key else f"`{key}` is {first['input']!r}: "
    return HarnessError(
        f"{at}: {given}{message}", "`harness show family tiny-safety` prints a complete example"
    )


def _known(loc: tuple) -> list[str]:
    """The keys that may stand at a place."""
    model: Any = Family
    for part in loc:
        model = PARTS.get(part, model)
    fields = {name: field.alias or name for name, field in model.model_fields.items()}
    hidden = family_files.RESERVED if model is Family else ()
    known = [shown for name, shown in fields.items() if name not in hidden]
    return [*known, "extends"] if model is Family else known
