"""What has to be fetched before a plan can be carried out: models, judges, calibration sets, benchmarks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness import hub
from harness.costs.draft import Draft, Model, described
from harness.costs.sizes import BY_NAME
from harness.data.source import Source, home, local_files, matching
from harness.errors import HarnessError
from harness.family.obtain import data_cached
from harness.plan import Plan


@dataclass(frozen=True)
class Download:
    """`nbytes` into `folder`, None where nobody says how many; `about` qualifies them in a word."""

    what: str
    ref: str
    nbytes: int | None
    folder: Path
    about: str = ""


def cache() -> Path:
    """Where the hub's client keeps what it fetches."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def judges(plan: Plan, ask: bool) -> dict[str, Model]:
    """The judges of the plan's open steps that run on this machine, by the name that the plan gives them."""
    wanted = {
        step.judge.model: step.judge
        for step in plan.judges
        if not step.folder.complete and step.judge.kind not in ("chat", "rules")
    }
    refs = {
        name: f"{name}@{judge.revision}" if judge.revision and not Path(name).is_dir() else name
        for name, judge in wanted.items()
    }
    found = described({f"judge {name}": ref for name, ref in refs.items()}, plan.family.folder, ask)
    return {name: found[f"judge {name}"] for name in wanted}


def downloads(draft: Draft, judging: dict[str, Model], ask: bool) -> list[Download]:
    """Everything that is not here, each once."""
    found = {}
    for model in (*draft.models.values(), *judging.values()):
        if model.path is None:
            about = "about" if model.size and model.size.how == BY_NAME else ""
            found.setdefault(model.ref, Download(model.use, model.ref, model.download, cache(), about))
    for one in (*_calibration(draft, ask), *_benchmarks(draft.plan, ask)):
        found.setdefault(one.ref, one)
    return list(found.values())


def _calibration(draft: Draft, ask: bool) -> Iterator[Download]:
    for role, spec in draft.family.calibration.items():
        if not hub.HUB_ID.match(spec.data) or data_cached(spec.data):
            continue
        told = hub.look(spec.data, "dataset") if ask else None
        nbytes = sum(size or 0 for size in told.files.values()) if told and told.known else None
        yield Download(f"calibration of {role}", spec.data, nbytes, cache(), "at most")


def _benchmarks(plan: Plan, ask: bool) -> Iterator[Download]:
    for task in {step.task.name: step.task for step in plan.evals_to_make()}.values():
        if task.source is not None and not _here(task.source, task.split(plan.family.split)):
            yield Download(task.name, task.source.address or task.source.benchmark,
                           _published(task.source) if ask else None, home())  # fmt: skip


def _here(source: Source, split: str) -> bool:
    try:
        return bool(local_files(source, split))
    except HarnessError:  # part of it is missing
        return False


def _published(source: Source) -> int | None:
    """Bytes of the files that the task reads, where the hub says."""
    if not source.hub:
        return None
    ref = f"{source.hub}@{source.commit}" if source.commit else source.hub
    told = hub.look(ref, "dataset")
    if not told.known:
        return None
    total = 0
    for patterns in source.files.values():
        names = next((found for p in patterns if (found := matching(p, told.files))), [])
        total += sum(told.files[name] or 0 for name in names)
    return total
