"""Where a benchmark's rows come from, as its YAML says under `dataset_kwargs`. Light at import."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from harness.data.record import fetched
from harness.errors import HarnessError, nearest

METADATA = ("harness", "version", "config_source")  # of the task, and what lm-eval adds to it
PLACES = ("hub", "github", "url")
EVERYTHING = "**"  # the pattern of a whole repository


@dataclass(frozen=True)
class Source:
    """One benchmark's data.

    `benchmark` names the local folder, `$HARNESS_DATA/<benchmark>/`. `files` lists per split the paths in
    that folder in which the official layouts keep it; the first that exists is read (`*` stands for any
    text but `/`; all matches are read, in order of name). `fields` must be in every row, `id` is unique.
    Elsewhere the data is at `hub` (a data set, with its `config`), `github` (owner/repo), or `url` (one file,
    or a zip that holds them), at `revision`; null where it is not pinned. `hint` says how to obtain what has
    no address or needs a login.
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
        """From `dataset_kwargs`. lm-eval passes the task's metadata along, and the model's arguments with it,
        so what is not known is an error only without them."""
        known = {f.name for f in fields(cls)}
        data = {key: value for key, value in given.items() if key in known}
        for key in given:
            if key not in known and "harness" not in given:
                raise HarnessError(f"`dataset_kwargs.{key}` is not known", nearest(key, known))
        for key in ("benchmark", "files"):
            if not data.get(key):
                raise HarnessError(f"`dataset_kwargs.{key}` is missing", "see docs/data.md")
        name = str(data["benchmark"])
        if sum(bool(data.get(place)) for place in PLACES) > 1:
            raise HarnessError(
                f"`dataset_kwargs` of `{name}` names two places", f"keep one of {', '.join(PLACES)}"
            )
        _inside(name, name)
        data["files"] = {
            split: _patterns(name, split, given) for split, given in _splits(name, data["files"])
        }
        data["fields"] = tuple(data.get("fields") or ())
        data["rows"] = dict(data.get("rows") or {})
        if isinstance(data.get("id"), list):
            data["id"] = tuple(data["id"])
        return cls(**data)

    @property
    def folder(self) -> Path:
        """Where a local copy lies."""
        return home() / self.benchmark

    @property
    def place(self) -> str:
        """Where the data is published, for people; `` when it has no address."""
        return self.hub or (f"github.com/{self.github}" if self.github else self.url or "")

    @property
    def address(self) -> str:
        """`place`, and the revision where it is pinned."""
        pinned = self.place and self.revision and self.revision not in self.place
        return self.place + (f" @ {self.revision[:12]}" if pinned else "")


def repository(dataset: str) -> Source:
    """The whole of a hub data set, as lm-eval's own tasks read it."""
    return Source("hub--" + dataset.replace("/", "--"), {"all": [EVERYTHING]}, hub=dataset)


def _splits(name: str, given: Any) -> Iterable[tuple[str, Any]]:
    if not isinstance(given, dict):
        raise HarnessError(
            f"`dataset_kwargs.files` of `{name}` is {given!r}", "write `files: {test: [test.jsonl]}`"
        )
    return given.items()


def _patterns(name: str, split: str, given: Any) -> list[str]:
    patterns = [given] if isinstance(given, str) else given
    if not isinstance(patterns, list) or not patterns or not all(isinstance(p, str) for p in patterns):
        raise HarnessError(
            f"`dataset_kwargs.files.{split}` of `{name}` is {given!r}",
            "write a list of paths: `[test.jsonl]`",
        )
    for pattern in patterns:
        _inside(name, pattern)
    return list(patterns)


def _inside(name: str, path: str) -> None:
    if not _plain(path):
        raise HarnessError(
            f"`dataset_kwargs` of `{name}` names `{path}`", "paths lie below the benchmark's folder, unhidden"
        )


def home() -> Path:
    """`$HARNESS_DATA`, or `~/.cache/harness/data`."""
    return Path(os.environ.get("HARNESS_DATA") or "~/.cache/harness/data").expanduser().absolute()


def local_files(source: Source, split: str) -> list[Path]:
    """The files of a split in the local copy, [] when there is none.

    Raises HarnessError when some of the files that were fetched together are gone: what is left of several
    parts would pass for the whole.
    """
    kept = fetched(source.folder)
    for pattern in source.files[split]:
        found = _there(source.folder, pattern)
        lost = [name for name in matching(pattern, kept) if not (source.folder / name).exists()]
        if found and lost:
            raise HarnessError(
                f"{source.folder / lost[0]} is missing, which was fetched with {found[0].name}",
                f"{fetch_hint(source)}, or remove {source.folder}",
            )
        if found:
            return found
    return []


def _there(folder: Path, pattern: str) -> list[Path]:
    if "*" not in pattern:
        path = folder / pattern
        return [path] if os.path.lexists(path) else []
    safe = "*".join(glob.escape(part) for part in pattern.split("*"))
    found = map(Path, glob.glob(str(Path(glob.escape(str(folder))) / safe), recursive=True))
    return sorted(path for path in found if os.path.lexists(path) and not path.is_dir())


def matching(pattern: str, names: Iterable[str]) -> list[str]:
    """Those of `names` (relative paths) that a pattern of `files` stands for, sorted, without hidden ones."""
    spelled = re.escape(pattern).replace(r"\*\*", ".*").replace(r"\*", "[^/]*")
    return sorted(name for name in names if re.fullmatch(spelled, name) and _plain(name))


def _plain(path: str) -> bool:
    """Whether a path leads below a folder, to nothing hidden."""
    return all(part and not part.startswith(".") for part in path.split("/"))


def missing(source: Source, split: str, reason: str) -> HarnessError:
    """The error that names both ways to the data."""
    root = home()
    blocked = root.exists() and not root.is_dir()
    here = f"HARNESS_DATA names {root}, which is a file" if blocked else lacking(source, split)
    elsewhere = f"; {source.address}: {reason}" if source.address else ""
    return HarnessError(f"no data of `{source.benchmark}`: {here}{elsewhere}", how_to_obtain(source))


def lacking(source: Source, split: str) -> str:
    """What of a split is not in the local copy."""
    *others, last = source.files[split]
    wanted = f"{', '.join(others)}{' or ' if others else ''}{last}"
    return f"{source.folder} has no {'files' if wanted == EVERYTHING else wanted}"


def how_to_obtain(source: Source) -> str:
    """Both ways to the data, for people."""
    ways = [source.hint] if source.hint else []
    if source.address:
        ways.append(f"{fetch_hint(source)} where there is network")
    ways.append(f"HARNESS_DATA names the folder of all such folders, now {home()}")
    return "; ".join(ways)


def fetch_hint(source: Source) -> str:
    """The command that fetches it."""
    whole = source == repository(source.hub or "")  # of one of lm-eval's tasks, which has another name
    return f"`harness data fetch {'lm_eval:TASK' if whole else source.benchmark}`"
