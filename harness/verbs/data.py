"""`harness data`: fetch the benchmarks' data, and say what of it is here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from harness import registry, tasks
from harness.data.fetch import changed
from harness.data.fetch import fetch as fetch_source
from harness.data.parse import MEND
from harness.data.read import count
from harness.data.record import fetched, sha256
from harness.data.source import Source, fetch_hint, home, how_to_obtain, lacking, local_files, repository
from harness.errors import HarnessError
from harness.evaluate.lm_eval_tasks import PREFIX, datasets_of
from harness.evaluate.task_file import TaskFile

WIDTH = 100


@dataclass(frozen=True)
class Wanted:
    """The data of a task. `maker` is what `@benchmark` made of its function; None for lm-eval's own."""

    task: str
    source: Source
    maker: Any = None


def fetch(names: Sequence[str]) -> int:
    """Fill the local copies; 1 when some could not be had, and the rest was."""
    failed = 0
    for one in _wanted(_files(names)):
        try:
            told = fetch_source(one.source)
        except HarnessError as error:
            failed += 1
            click.echo(f"✗ {one.task}: {error}", err=True)
            continue
        commit = f" @ {told.revision[:12]}" if told.revision else ""
        files = f"{len(told.files)} file{'s' * (len(told.files) != 1)}"
        click.echo(f"✓ {one.task}: {told.how}{commit}, {files} in {one.source.folder}")
    return int(failed > 0)


def check(names: Sequence[str], as_json: bool) -> int:
    """Print what is here; 1 when something that was named is not here, malformed, or changed."""
    found = [_state(one) for one in _wanted(_files(names or sorted(registry.find("tasks"))))]
    if as_json:
        click.echo(json.dumps(found, indent=1, ensure_ascii=False))
    else:
        _print(found, bool(names))
    return int(bool(names) and any(entry["state"] != "here" for entry in found))


def _files(names: Sequence[str]) -> list[TaskFile]:
    """Tasks in both profiles, whose data may differ. A name may also be a benchmark's, as errors name it."""
    wanted: list[str] = []
    for name in names:
        wanted += _of_benchmark(name) or [name]
    found = (*tasks.named(wanted), *tasks.named(wanted, "paper"))
    return list({file.name: file for file in found}.values())


def _of_benchmark(name: str) -> list[str]:
    known = registry.find("tasks")
    if name in known or name in registry.find("suites") or name.startswith(PREFIX) or "/" in name:
        return []
    sources = {task: tasks.named([task])[0].source for task in sorted(known)}
    return [task for task, source in sources.items() if source and source.benchmark == name]


def _wanted(files: Sequence[TaskFile]) -> Iterator[Wanted]:
    """What these tasks read, each once."""
    seen: list[Source] = []
    for file in files:
        made = [Wanted(file.name, file.source, file.dataset())] if file.source else []
        if file.name.startswith(PREFIX):
            made = [Wanted(file.name, repository(name)) for name in datasets_of(file)]
        for one in made:
            if one.source not in seen:
                seen.append(one.source)
                yield one


def _state(one: Wanted) -> dict[str, Any]:
    source = one.source
    told: dict[str, Any] = {
        "task": one.task,
        "benchmark": source.benchmark,
        "at": source.place,
        "revision": source.commit,
        "folder": str(source.folder),
        "fetched": sorted({str(e["revision"]) for e in fetched(source.folder).values() if e.get("revision")}),
        "state": "here",
        "problem": "",
        "hint": "",
    }
    told["splits"] = {split: _split(one, split, told) for split in source.files}
    return told


def _split(one: Wanted, split: str, told: dict[str, Any]) -> dict[str, Any]:
    source = one.source
    entry: dict[str, Any] = {"expected": source.rows.get(split), "rows": None, "files": {}}
    try:
        files = local_files(source, split)
    except HarnessError as error:
        _worse(told, "incomplete", error.message, error.hint)
        return entry
    if not files:
        _worse(told, "missing", lacking(source, split), how_to_obtain(source))
        return entry
    try:
        entry["files"] = {str(path.relative_to(source.folder)): sha256(path) for path in files}
        if one.maker is not None:
            entry["rows"] = count(source, split, files, one.maker.row, one.maker.whole)
        if others := changed(source, split):
            names = ", ".join(path.name for path in others)
            _worse(told, "changed", f"{names} changed since it was fetched", f"{fetch_hint(source)} mends it")
    except HarnessError as error:
        _worse(told, "malformed", error.message, error.hint)
    except OSError as error:
        _worse(told, "malformed", f"{error.filename} cannot be read: {error.strerror}", MEND)
    return entry


def _worse(told: dict[str, Any], state: str, problem: str, hint: str) -> None:
    if told["state"] == "here":
        told |= {"state": state, "problem": problem, "hint": hint}


def _print(found: Sequence[dict[str, Any]], details: bool) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("task", "state", "rows", "sha256"):
        table.add_column(title, no_wrap=True)
    table.add_column("published at", overflow="fold")
    for entry in found:
        parts = entry["splits"].items()
        rows = ", ".join(told for split, part in parts if (told := _rows(split, part)))
        sums = [value for _, part in parts for value in part["files"].values()]
        shown = sums[0][:8] + (f" +{len(sums) - 1}" if len(sums) > 1 else "") if sums else "–"
        table.add_row(entry["task"], entry["state"], rows or "–", shown, _place(entry))
    console = Console(highlight=False, width=WIDTH, markup=False)
    console.print(table)
    loose = Console(highlight=False, soft_wrap=True, markup=False)
    for entry in found:
        if entry["state"] not in ("here", "missing") or (details and entry["state"] == "missing"):
            loose.print(f"{entry['task']}: {entry['problem']}\nhint: {entry['hint']}")
    here = sum(entry["state"] == "here" for entry in found)
    more = "" if details or here == len(found) else "; `harness data check TASK` says how to obtain one"
    loose.print(f"{here} of {len(found)} here, in {home()}{more}")


def _place(entry: dict[str, Any]) -> str:
    if not entry["at"]:
        return "no address; see the hint" if entry["state"] == "missing" else "laid there by hand"
    pinned = entry["revision"]
    if pinned and pinned in entry["at"]:
        return entry["at"]
    return f"{entry['at']} @ {pinned[:8]}" if pinned else f"{entry['at']}, not pinned"


def _rows(split: str, part: dict[str, Any]) -> str:
    if part["rows"] is None:
        return ""
    wanted = part["expected"]
    return f"{split} {part['rows']}" + (f" of {wanted}" if wanted not in (None, part["rows"]) else "")
