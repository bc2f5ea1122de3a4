"""lm-eval's own tasks and groups, found without its index (which takes seconds) and given a header. Light."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import threading
from collections.abc import Iterator
from difflib import get_close_matches
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from harness import hub
from harness.data.fetch import published
from harness.data.source import local_files, repository
from harness.errors import HarnessError, nearest
from harness.evaluate.task_file import Column, TaskFile
from harness.evaluate.task_yaml import read

PREFIX = "lm_eval:"
# What the usual columns of these tasks are called; of any other task the first metric is shown.
KNOWN: dict[str, tuple[str, str, str]] = {
    "arc_challenge": ("ARC-C (likelihood)", "Knowledge", "acc_norm"),
    "arc_easy": ("ARC-E (likelihood)", "Knowledge", "acc_norm"),
    "mmlu": ("MMLU (likelihood)", "Knowledge", "acc"),
    "medqa_4options": ("MedQA (likelihood)", "Biomedicine", "acc_norm"),
    "wikitext": ("ppl", "Perplexity", "word_perplexity"),
}
NAMED = re.compile(r"""^["']?(?:task|group)["']?:\s*["']?([\w.+-]+)["']?\s*$""", re.MULTILINE)
BUILDERS = {"json", "csv", "parquet", "text", "arrow"}  # readers of files, not data sets of the hub
LOWER = ("perplexity", "bits_per_byte", "brier_score", "ter")


def root() -> Path:
    """The folder of lm-eval's tasks."""
    spec = importlib.util.find_spec("lm_eval")
    if spec is None or spec.origin is None:
        raise HarnessError("lm-eval is not installed", "`pip install lm_eval`")
    return Path(spec.origin).parent / "tasks"


def lm_eval_task(name: str) -> TaskFile:
    """The task or group that lm-eval calls `name`. Raises HarnessError when it has none."""
    path = _find(name)
    config = read(path)
    members = tuple(_members(config, path)) if "group" in config else ()
    title, group, metric = KNOWN.get(name, (name, "lm-eval", ""))
    first = members[0].config if members else config
    metrics = [
        entry["metric"] for entry in first.get("metric_list") or () if isinstance(entry.get("metric"), str)
    ]
    metric = metric or (metrics[0] if metrics else "acc")
    columns = (Column(metric, title, _higher(first, metric), _kind(metric), group),)
    where = first.get("dataset_path") or "lm-eval"
    revision = (first.get("dataset_kwargs") or {}).get("revision")
    header = {"title": title, "group": group, "paper": "see lm-eval", "licence": "see lm-eval",
              "revision": f"{where} @ {revision}" if revision else f"{where}, not pinned",
              "profile": "lm_eval", "chat_template": False}  # fmt: skip
    config = {**config, "metadata": {"lm_eval": version("lm_eval")}}
    return TaskFile(PREFIX + name, path, header, columns, config, None, members)


def local_folder(dataset: str) -> Path:
    """Where a local copy of a hub data set lies that lm-eval's own tasks read."""
    return repository(dataset).folder


def datasets_of(file: TaskFile) -> list[str]:
    """The hub data sets that lm-eval itself loads for a task."""
    configs = [member.config for member in file.members] or [file.config]
    named = {c["dataset_path"] for c in configs if isinstance(c.get("dataset_path"), str)}
    return sorted(named - BUILDERS)


@contextlib.contextmanager
def local_data(file: TaskFile) -> Iterator[None]:
    """While this thread builds a task of lm-eval's own, a local copy of its data stands in for the hub's."""
    import datasets

    real, wanted, thread = datasets.load_dataset, datasets_of(file), threading.get_ident()

    def load_dataset(path: str, *args: Any, **given: Any) -> Any:
        if path not in wanted or threading.get_ident() != thread:
            return real(path, *args, **given)
        source = repository(path)
        if local_files(source, "all"):
            return real(str(source.folder), *args, **given)
        if not hub.offline():
            published(source)  # says in seconds that it cannot be reached; the loader tries for half a minute
        return real(path, *args, **given)

    datasets.load_dataset = load_dataset
    try:
        yield
    finally:
        datasets.load_dataset = real


def own_hint(file: TaskFile) -> str:
    """What to do where a task of lm-eval's own cannot be built; "" for a task that is not."""
    if not file.name.startswith(PREFIX):
        return ""
    where = ", ".join(str(local_folder(name)) for name in datasets_of(file))
    return f"its data is the hub's; `harness data fetch {file.name}` where there is network fills {where}"


def _members(config: dict[str, Any], path: Path) -> Iterator[TaskFile]:
    for entry in config.get("task") or ():
        name = entry if isinstance(entry, str) else entry.get("task") or entry.get("group")
        for found in _named_or_tagged(name, path.parent):
            member = lm_eval_task(found)
            yield from member.members or (member,)


def _named_or_tagged(name: str, folder: Path) -> list[str]:
    """The task or group of that name, or all tasks under the tag, which lie near the group that uses it."""
    if _in(folder, name):
        return [name]
    tagged = []
    for path in sorted(folder.rglob("*.yaml")):
        config = read(path)
        tags = config.get("tag") or ()
        if name in ([tags] if isinstance(tags, str) else tags) and isinstance(config.get("task"), str):
            tagged.append(config["task"])
    return sorted(tagged) or [name]


def _find(name: str) -> Path:
    base = root()
    stem = re.split(r"[_\d]", name)[0]
    near = [path for path in base.iterdir() if path.is_dir() and path.name.startswith(stem)]
    for folder in (*sorted(near, key=lambda p: len(p.name)), base):
        if found := _in(folder, name):
            return found
    hint = (
        nearest(name, _index(base))
        if get_close_matches(name, _index(base), 1)
        else "`lm-eval ls tasks` lists them"
    )
    raise HarnessError(f"lm-eval has no task called `{name}`", hint)


def _in(folder: Path, name: str) -> Path | None:
    return _index(folder).get(name)


@lru_cache
def _index(folder: Path) -> dict[str, Path]:
    """Name -> file of every task and group under a folder, by the line that names it."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.yaml")):
        for name in NAMED.findall(path.read_text(encoding="utf-8", errors="replace")):
            found.setdefault(name, path)
    return found


def _higher(config: dict[str, Any], metric: str) -> bool:
    for entry in config.get("metric_list") or ():
        if entry.get("metric") == metric and isinstance(entry.get("higher_is_better"), bool):
            return entry["higher_is_better"]
    return not metric.endswith(LOWER)


def _kind(metric: str) -> str:
    return "perplexity" if metric.endswith(LOWER) else "accuracy"
