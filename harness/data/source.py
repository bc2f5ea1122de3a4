"""Where a benchmark's rows come from, as its YAML says under `dataset_kwargs`. Light at import."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, nearest

PLACES = ("hub", "github", "url")


@dataclass(frozen=True)
class Source:
    """One benchmark's data.

    `benchmark` names the local folder, `$HARNESS_DATA/<benchmark>/`. `files` lists per split the paths in
    that folder in which the official layouts keep it; the first that exists is read (`*` stands for any
    text; all matches are read, in order of name). `fields` must be in every row, `id` is unique. Elsewhere
    the data is at `hub` (a data set, with its `config`), `github` (owner/repo), or `url` (one file, unpacked
    if it is a zip), at `revision`; null where it is not pinned. `hint` says how to obtain what has no
    address.
    """

    benchmark: str
    files: dict[str, list[str]]
    hub: str | None = None
    config: str | None = None
    github: str | None = None
    url: str | None = None
    revision: str | None = None
    fields: tuple[str, ...] = ()
    id: str | tuple[str, ...] | None = None
    rows: dict[str, int] = field(default_factory=dict)
    hint: str = ""

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Source:
        """From `dataset_kwargs`; lm-eval passes the task's metadata along, which is left aside."""
        known = {f.name for f in fields(cls)}
        data = {key: value for key, value in given.items() if key not in ("harness", "version")}
        for key in data:
            if key not in known:
                raise HarnessError(f"`dataset_kwargs.{key}` is not known", nearest(key, known))
        for key in ("benchmark", "files"):
            if not data.get(key):
                raise HarnessError(f"`dataset_kwargs.{key}` is missing", "see docs/tasks.md")
        if sum(bool(data.get(place)) for place in PLACES) > 1:
            raise HarnessError(
                f"`dataset_kwargs` of `{data['benchmark']}` names two places",
                f"keep one of {', '.join(PLACES)}",
            )
        data["files"] = {split: [names] if isinstance(names, str) else list(names)
                         for split, names in data["files"].items()}  # fmt: skip
        data["fields"] = tuple(data.get("fields") or ())
        if isinstance(data.get("id"), list):
            data["id"] = tuple(data["id"])
        return cls(**data)

    @property
    def folder(self) -> Path:
        """Where a local copy lies."""
        return home() / self.benchmark

    @property
    def address(self) -> str:
        """The place the data is published at, for people; `` when it has none."""
        where = self.hub or (self.github and f"github.com/{self.github}") or self.url or ""
        return where + (f" @ {self.revision[:12]}" if where and self.revision else "")


def home() -> Path:
    """`$HARNESS_DATA`, or `~/.cache/harness/data`."""
    return Path(os.environ.get("HARNESS_DATA") or "~/.cache/harness/data").expanduser()


def local_files(source: Source, split: str) -> list[Path]:
    """The files of a split in the local copy, [] when there is none."""
    for pattern in source.files[split]:
        found = sorted(glob.glob(str(source.folder / glob_safe(pattern))))
        if found:
            return [Path(path) for path in found]
    return []


def glob_safe(pattern: str) -> str:
    """A pattern in which only `*` is special."""
    return "*".join(glob.escape(part) for part in pattern.split("*"))


def missing(source: Source, split: str, reason: str) -> HarnessError:
    """The error that names both ways to the data."""
    wanted = " or ".join(source.files[split])
    elsewhere = f"; {source.address}: {reason}" if source.address else ""
    fetch = f"`harness data fetch {source.benchmark}` where there is network; HARNESS_DATA names the folder"
    how = source.hint or f"{fetch}, now {home()}"
    return HarnessError(f"no data of `{source.benchmark}`: {source.folder} has no {wanted}{elsewhere}", how)
