"""What a family names and cannot be had: models, data, judges, the sandbox.

All of it is told at once, in seconds, and nothing is downloaded before it is known that the rest can be had.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from harness import hub
from harness.data import Source, local_files, missing
from harness.data.fetch import published
from harness.errors import HarnessError
from harness.evaluate.lm_eval_tasks import PREFIX, datasets_of, local_folder
from harness.evaluate.task_file import TaskFile
from harness.family import Family, obtain
from harness.family.members import Calibration
from harness.judging import spec_of
from harness.train.rows import FILE, GITHUB

NETWORK = " where there is network"
SECONDS = 5  # until a server that does not answer is given up


@dataclass(frozen=True)
class Lack:
    """One thing that is missing: of which kind, its name, what it is for, why, and how to get it."""

    kind: str
    name: str
    use: str
    why: str
    how: str

    @property
    def spelled(self) -> str:
        return f"`{self.name}`" + (f" ({self.use})" if self.use else "")


class Missing(HarnessError):
    """Everything that is missing, printed as a list where it is more than one thing."""

    def __init__(self, family: str, lacks: Sequence[Lack]) -> None:
        self.family, self.lacks = family, tuple(lacks)
        groups: dict[tuple[str, str], list[str]] = {}
        for lack in lacks:
            groups.setdefault((lack.kind, lack.why), []).append(lack.spelled)
        self.lines = [f"{kind} {', '.join(names)}: {why}" for (kind, why), names in groups.items()]
        self.head, hows = f"{len(lacks)} things are missing", _together(lacks)
        if len(lacks) == 1:
            super().__init__(*self.lines, *hows)
            return
        own = f"local copies are named in a file of your own: `extends: {family}`, then `base: ./folder`"
        super().__init__(f"{self.head}: {'; '.join(self.lines)}", "; ".join([*hows, own]))

    def __str__(self) -> str:
        if len(self.lacks) == 1:
            return super().__str__()
        return "\n".join([self.head, *(f"  {line}" for line in self.lines), f"hint: {self.hint}"])

    def __reduce__(self):
        return type(self), (self.family, self.lacks)


def _together(lacks: Sequence[Lack]) -> list[str]:
    """What to do, each once; what needs a network in one."""
    hows = list(dict.fromkeys(lack.how for lack in lacks if lack.how))
    fetched = [how.removesuffix(NETWORK) for how in hows if how.endswith(NETWORK)]
    told = [f"{', '.join(fetched)}{NETWORK}"] if fetched else []
    return [*told, *(how for how in hows if not how.endswith(NETWORK))]


def check(family: Family, files: Sequence[TaskFile], methods: Sequence[Any], existing: bool = True) -> None:
    """Raise one error that lists what is missing. The data and judges of `files` are looked at too if a model
    or calibration set of the family is missing, or a model would be downloaded; else `ready.check` does that.
    `methods` are configured methods, `existing` says whether the family's `rows:` count."""
    rows = family.checkpoints if existing else {}
    lacks = [*_models(family, rows), *_calibration(family, methods), *_training(family)]
    if lacks or _downloads(family, rows):
        lacks += [*_benchmarks(files), *_judges(family, files), *_sandbox(files)]
    if lacks:
        raise Missing(family.name, list(dict.fromkeys(lacks)))


def _downloads(family: Family, rows: Mapping[str, str]) -> bool:
    """Whether a model of a family whose models can all be had is not on this machine yet."""
    refs = [ref for ref, _ in _named(family, rows)]
    refs += [expert.train.base for expert in family.experts.values() if expert.train]
    return any(obtain.local(ref, family.folder) is None and hub.cached(ref) is None for ref in refs)


def _named(family: Family, rows: Mapping[str, str]) -> list[tuple[str, str]]:
    """(model, what it is for)"""
    wanted = [(family.base, "base")]
    for role, expert in family.experts.items():
        wanted += [(expert.model, role)] if expert.model else []
        wanted += [(expert.on, f"under the adapter of {role}")] if expert.on else []
    return wanted + [(ref, f"row {label}") for label, ref in rows.items()]


def _models(family: Family, rows: Mapping[str, str]) -> Iterator[Lack]:
    for ref, use in _named(family, rows):
        yield from _model("model", ref, use, family.folder)


def _model(kind: str, ref: str, use: str, folder: Path) -> Iterator[Lack]:
    try:
        held = obtain.local(ref, folder)
    except HarnessError as error:  # neither a folder nor a hub id
        yield Lack(kind, ref, use, error.message, error.hint)
        return
    if held is None:
        yield from _hub(kind, ref, use, "model")


def _hub(kind: str, ref: str, use: str, what: str) -> Iterator[Lack]:
    try:
        obtain.check(ref, what)
    except HarnessError as error:
        why = error.message.removeprefix(f"cannot fetch `{ref}` from the hub: ")
        yield Lack(kind, ref, use, why, error.hint.removesuffix(obtain.OR_LOCAL))


def _calibration(family: Family, methods: Sequence[Any]) -> Iterator[Lack]:
    wanted: dict[tuple[str, str], Calibration] = {}
    for method in methods:
        needs = method.needs(family.roles) if hasattr(method, "needs") else ()
        asked = [(role, need.profile) for need in needs for role in (need.role, need.against) if role]
        if hasattr(method, "reads_rows"):
            asked += [(role, "paper") for role in method.reads_rows(family.roles)]
        for role, profile in asked:
            if role in family.calibration:
                wanted[role, profile] = family.calibration[role].in_profile(profile)
    for (role, _), rows in wanted.items():
        yield from _data("calibration data", rows.data, role, family.folder)


def _data(kind: str, ref: str, use: str, folder: Path) -> Iterator[Lack]:
    if FILE.search(ref):
        path = folder / Path(ref).expanduser()
        if not path.is_file():
            how = "relative paths start at the family file's folder"
            yield Lack(kind, ref, use, f"no file at {path}", how)
    elif hub.HUB_ID.match(ref) and not (folder / ref).is_dir():
        yield from _hub(kind, ref, use, "dataset")


def _training(family: Family) -> Iterator[Lack]:
    for role, expert in family.experts.items():
        if expert.train is None:
            continue
        yield from _model("model", expert.train.base, f"{role} is trained on it", family.folder)
        found = GITHUB.match(expert.train.data)
        if found is None:
            yield from _data("training data", expert.train.data, role, family.folder)
            continue
        owner, repository, path, commit = found.groups()
        source = Source(repository, {"train": [path]}, github=f"{owner}/{repository}", commit=commit)
        how = f"put a clone of github.com/{owner}/{repository} at {source.folder}"
        yield from _source("training data", source, path, role, how)


def _benchmarks(files: Sequence[TaskFile]) -> Iterator[Lack]:
    found = [lack for file in files for lack in _benchmark(file)]
    how = (
        f"`harness data fetch {' '.join(dict.fromkeys(lack.name for lack in found))}` where there is network"
    )
    for lack in found:
        yield Lack(lack.kind, lack.name, lack.use, lack.why, lack.how or how)


def _benchmark(file: TaskFile) -> Iterator[Lack]:
    if file.source is not None:
        yield from _source("benchmark", file.source, file.name, "", file.source.hint)
    elif file.name.startswith(PREFIX):
        for data in datasets_of(file):
            if not local_folder(data).is_dir():
                for lack in _hub("benchmark", data, "", "dataset"):
                    yield Lack(lack.kind, file.name, "", lack.why, "")


def _source(kind: str, source: Source, name: str, use: str, how: str) -> Iterator[Lack]:
    """As `harness.data.read.load` finds data, without reading or fetching any."""
    try:
        if all(local_files(source, split) for split in source.files):
            return
        if not source.address:
            why = "no local copy, and no public address"
        elif not source.commit:
            why = "no local copy, and it is not pinned, so a run does not fetch it"
        elif source.hub:
            published(source)
            return
        elif _answers(urlsplit(source.url).netloc if source.url else "github.com"):
            return
        else:
            raise missing(source, next(iter(source.files)), "it cannot be reached")
    except HarnessError as error:
        why = f"no local copy, and {error.message.rpartition(': ')[2]}"
    yield Lack(kind, name, use, why, how)


@lru_cache
def _answers(host: str) -> bool:
    import requests

    try:
        requests.head(f"https://{host}", timeout=SECONDS)
    except requests.RequestException:
        return False
    return True


def _judges(family: Family, files: Sequence[TaskFile]) -> Iterator[Lack]:
    for file in files:
        if file.judge is None:
            continue
        judge = file.judge.but(family.judges.get(file.name.removesuffix("_paper"), {}))
        if judge.kind == "chat":
            yield from _told("judge", judge.model, lambda judge=judge: _check_judge(spec_of(judge)))
        elif judge.kind != "rules":
            ref = judge.model if judge.revision is None else f"{judge.model}@{judge.revision}"
            yield from _model("judge", ref, "", family.folder)


def _check_judge(spec: Any) -> None:
    from harness.judges import Judge

    with Judge(spec) as one:
        one.check()


def _sandbox(files: Sequence[TaskFile]) -> Iterator[Lack]:
    if any(file.executes_code for file in files):
        from harness import sandbox

        yield from _told("sandbox", "bubblewrap", sandbox.require)


def _told(kind: str, name: str, look: Callable[[], None]) -> Iterator[Lack]:
    try:
        look()
    except HarnessError as error:
        yield Lack(kind, name, "", error.message, error.hint)
