"""A named study: rows of settings of a method, and the sentences they should support. Read from YAML."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from harness import paper, registry, yamlfile
from harness.errors import HarnessError, nearest
from harness.family import Calibration, Family
from harness.method import configure
from harness.sweep.grid import MOST, label

OWN = "family's own"
BASE = "base"
ROW = "row"  # of a grid's point: which of the `rows:`


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Claim(Strict):
    """A sentence and what would show it: in the columns of `group`, `row` is better than `than`; with
    `within`, no pair differs by more than that; with `steadier_over`, `row` has the smaller standard
    deviation over that axis. A row is named by its label, or by settings, which stand for every pair of rows
    that agree in all else. `than` may be `base`; `row: any` is each row but `than`."""

    sentence: str
    row: str | dict[str, Any]
    than: str | dict[str, Any]
    group: str = "all"
    within: float | None = Field(None, gt=0)
    steadier_over: str | None = None

    @model_validator(mode="after")
    def _one_question(self) -> Claim:
        if self.within is not None and self.steadier_over is not None:
            raise ValueError("a claim is `within:` or `steadier_over:`, not both")
        return self


class Sets(Strict):
    """Other calibration data than the family's own, one change at a time: `sets` of `calibration_sets` (by
    role and name, or `all`), numbers of rows `n`, and draws by `seed`."""

    sets: Literal["all"] | dict[str, list[str]] = {}
    n: list[int] = []
    seed: list[int] = []


class Study(Strict):
    """See docs/studies.md."""

    name: str
    title: str
    paper: str = ""
    method: str | None = None
    settings: dict[str, Any] = {}
    rows: Literal["family"] | dict[str, dict[str, Any]] = {}
    grid: dict[str, list[Any]] = {}
    calibration: Sets | None = None
    families: Literal["all"] | None = None
    published: dict[str, str] = {}
    seeds: int = Field(1, ge=1)
    spread: str | None = None
    measure: Literal["tasks", "cost"] = "tasks"
    claims: list[Claim] = []
    figure: Literal["bars", "surface", "cost"] = "bars"

    @model_validator(mode="after")
    def _one_kind(self) -> Study:
        kinds = [bool(self.rows or self.grid), self.calibration is not None]
        if sum(kinds) != 1 or (self.grid and self.rows == "family"):
            raise ValueError("a study has `rows:` or `grid:` or both, or else `calibration:`")
        for key, values in self.grid.items():
            if not values:
                raise ValueError(f"`grid` gives no values of `{key}`")
        if (count := self._points()) > MOST:
            raise ValueError(f"rows and grid make {count} points; the most is {MOST}")
        if BASE in self.rows:
            raise ValueError("a row is called `base`, as the base is")
        if self.method is None and self.rows != "family":
            bare = [f"row {name!r}" for name, row in self.rows.items() if "method" not in row]
            if bare or not self.rows:
                raise ValueError(f"{(bare or ['the study'])[0]} names no `method:`")
        if self.measure == "cost" and (self.calibration or self.claims or self.seeds > 1):
            raise ValueError("`measure: cost` goes with `rows:` or `grid:` alone")
        for axis in [self.spread, *(claim.steadier_over for claim in self.claims)]:
            if axis is not None and axis not in self.grid:
                raise ValueError(f"a spread over {axis!r}, which is no axis of the grid")
        return self

    @field_validator("published")
    @classmethod
    def _in_paper(cls, published: dict[str, str]) -> dict[str, str]:
        known = {row["variant"] for row in paper.selection_ablations()}
        for name in published.values():
            if name not in known:
                raise ValueError(f"tables 15 to 17 have no {name!r}; {nearest(name, known)}")
        return published

    def printed(self) -> str:
        """What the paper prints for these rows, in a sentence; empty where it has no such table."""
        rows = {row["variant"]: row for row in paper.selection_ablations()}
        told = [f"{label} {rows[name]['gsm8k']}" for label, name in self.published.items()]
        references = [f"{name} {rows[name]['gsm8k']}" for name in ("base", "reasoning")]
        where = f"GSM8K of qwen7b-safety in {paper.SOURCE}, {self.paper.lower()}"
        return f"{where}: {', '.join([*told, *references])}" if told else ""

    def _points(self) -> int:
        return math.prod(map(len, self.grid.values())) * max(1, len(self.rows))


@dataclass(frozen=True)
class Variant:
    """One row of a study: a method's settings on a family, whose calibration may be another."""

    label: str
    method: str
    settings: Mapping[str, Any]
    family: Family
    point: Mapping[str, Any]  # what of the settings this row is about; claims select by it


def load_study(name: str) -> Study:
    """The study called `name`, or the one in the file at that path; errors name file, line and key."""
    path = registry.get("studies", name).path
    data, places = yamlfile.read(path)
    try:
        return Study.model_validate({**data, "name": path.stem})
    except ValidationError as error:
        raise _explained(error, path, places) from error


def _explained(error: ValidationError, path: Path, places: yamlfile.Lines) -> HarnessError:
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    loc = tuple(first["loc"])
    at = f"{path}:{yamlfile.line_of(places, loc)}" if loc else str(path)
    if first["type"] == "extra_forbidden":
        own = {"claims": Claim, "calibration": Sets}.get(loc[0] if len(loc) > 1 else "", Study)
        return HarnessError(f"{at}: unknown key `{loc[-1]}`", nearest(str(loc[-1]), own.model_fields))
    named = "".join(f"`{'.'.join(map(str, loc))}`: " for _ in loc[:1])
    message = first["msg"].removeprefix("Value error, ")
    return HarnessError(f"{at}: {named}{message}", "`harness show study selection` is an example")


def variants(study: Study, family: Family) -> list[Variant]:
    """The rows of a study on one family, every setting checked. HarnessError for what does not fit."""
    if study.rows == "family":
        return [Variant(row.label, row.method, row.settings, family, {}) for row in family.rows()]
    if study.calibration is not None:
        if not family.calibration:
            raise HarnessError(
                f"study `{study.name}` varies calibration data, and family `{family.name}` has none",
                "add `calibration: {reasoning: {data: ..., text: ...}}` to the family file",
            )
        configure(registry.method(study.method), study.settings)
        return [
            Variant(name, study.method, study.settings, other, {"calibration": name})
            for name, other in calibrated(study.calibration, family).items()
        ]
    found = []
    for name, own, point in _given(study):
        method = own.get("method", study.method)
        settings = {**study.settings, **{key: value for key, value in own.items() if key != "method"}}
        configure(registry.method(method), settings)
        found.append(Variant(name, method, settings, family, point))
    return found


def _given(study: Study) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """(label, `method` and settings, point) of each row at each point of the grid."""
    grid = [dict(zip(study.grid, values, strict=True)) for values in itertools.product(*study.grid.values())]
    for point in grid if not study.rows else ():
        yield label("", point), point, point
    for name, own in study.rows.items() if study.rows else ():
        if not study.grid:
            yield name, own, {key: value for key, value in own.items() if key != "method"}
            continue
        for point in grid:
            yield f"{name}, {label('', point)}", {**own, **point}, {ROW: name, **point}


def calibrated(wanted: Sets, family: Family) -> dict[str, Family]:
    """The family with other calibration data, by what is other; its own first."""
    found = {OWN: family}
    sets = wanted.sets
    if sets == "all":
        sets = {role: list(known) for role, known in family.calibration_sets.items()}
    for role, names in sets.items():
        for name in names:
            other = family.with_calibration(role, name)
            if other.calibration != family.calibration:
                found[f"{role}: {name}"] = other
    for key, values in (("n", wanted.n), ("seed", wanted.seed)):
        for value in values:
            rows = {role: spec.model_copy(update={key: value}) for role, spec in family.calibration.items()}
            if rows != family.calibration and _enough(rows, family):
                found[f"{key} = {value}"] = family.model_copy(update={"calibration": rows})
    return found


def _enough(rows: Mapping[str, Calibration], family: Family) -> bool:
    """Whether every role has so many rows."""
    from harness.scores.calibration import load_rows

    for spec in rows.values():
        try:
            load_rows(spec, family.folder)
        except HarnessError as error:
            if "rows; n is" in error.message or "at most" in error.message:
                return False
            raise
    return True


def pairs(claim: Claim, found: Sequence[Variant]) -> list[tuple[str, str]]:
    """(row, than) labels that a claim compares; `base` stands for the base."""
    by_label = {variant.label: variant for variant in found}
    if isinstance(claim.row, str) and isinstance(claim.than, str):
        rows = [name for name in by_label if name != claim.than] if claim.row == "any" else [claim.row]
        for name in (*rows, claim.than):
            if name not in by_label and name != BASE:
                raise HarnessError(
                    f"the claim {claim.sentence!r} names the row `{name}`", nearest(name, by_label)
                )
        return [(name, claim.than) for name in rows]
    if isinstance(claim.row, dict) and claim.than == BASE:
        found_pairs = [(one.label, BASE) for one in found if _has(one.point, claim.row)]
    elif isinstance(claim.row, str) or isinstance(claim.than, str):
        raise HarnessError(
            f"the claim {claim.sentence!r} compares a label with settings",
            "name both rows the same way; or `than: base`",
        )
    else:
        found_pairs = [
            (one.label, other.label)
            for one, other in itertools.product(found, found)
            if _has(one.point, claim.row) and _has(other.point, claim.than) and _else_equal(one, other, claim)
        ]
    if not found_pairs:
        raise HarnessError(f"the claim {claim.sentence!r} compares no rows", f"{claim.row} and {claim.than}")
    return found_pairs


def _has(point: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(key in point and point[key] == value for key, value in wanted.items())


def _else_equal(one: Variant, other: Variant, claim: Claim) -> bool:
    named = {*claim.row, *claim.than}
    keys = {*one.point, *other.point} - named
    return all(one.point.get(key) == other.point.get(key) for key in keys)
