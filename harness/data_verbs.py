"""`harness data`: fetch the benchmarks' data, and say what of it is here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from harness import registry, tasks
from harness.data.fetch import fetch as fetch_source
from harness.data.fetch import fetched, sha256
from harness.data.read import count
from harness.data.source import Source, home, local_files
from harness.errors import HarnessError
from harness.evaluate.lm_eval_tasks import PREFIX, datasets_of, local_folder
from harness.evaluate.task_file import TaskFile


def fetch(names: Sequence[str]) -> int:
    """Fill the local copies; 1 when some could not be had, and the rest was."""
    failed = 0
    for title, source in sources(tasks.named(names)):
        try:
            files = fetch_source(source)
        except HarnessError as error:
            failed += 1
            click.echo(f"✗ {title}: {error}", err=True)
            continue
        click.echo(f"✓ {title}: {len(files)} files in {source.folder}")
    return int(failed > 0)


def check(names: Sequence[str], as_json: bool) -> int:
    """Print what is here; 1 when something that was named is missing or malformed."""
    wanted = names or sorted(registry.find("tasks"))
    found = [_state(title, source) for title, source in sources(tasks.named(wanted))]
    if as_json:
        click.echo(json.dumps(found, indent=1, ensure_ascii=False))
    else:
        _print(found)
    return int(bool(names) and any(entry["state"] != "here" for entry in found))


def sources(files: Sequence[TaskFile]) -> Iterator[tuple[str, Source]]:
    """(benchmark, where its data is) of tasks that read data, each once."""
    seen = set()
    for file in files:
        made = [file.source] if file.source else []
        if file.name.startswith(PREFIX):
            made = [_of_hub(name) for name in datasets_of(file)]
        for source in made:
            if source.benchmark not in seen:
                seen.add(source.benchmark)
                yield source.benchmark, source


def _of_hub(dataset: str) -> Source:
    """A data set that lm-eval loads: the whole of it."""
    return Source(local_folder(dataset).name, {"all": ["**"]}, hub=dataset)


def _state(title: str, source: Source) -> dict[str, Any]:
    told = {
        "benchmark": title,
        "at": source.address,
        "revision": source.revision,
        "folder": str(source.folder),
    }
    splits: dict[str, Any] = {}
    state = "here"
    for split in source.files:
        files = local_files(source, split)
        entry: dict[str, Any] = {"expected": source.rows.get(split)}
        try:
            rows = sum(count(path) for path in files) if split != "all" else None
        except HarnessError as error:
            rows, state = None, f"malformed: {error.message}"
        sums = {str(path.relative_to(source.folder)): sha256(path) for path in files if path.is_file()}
        splits[split] = entry | {"rows": rows, "files": sums}
        if not files:
            state = "missing"
    changed = [name for entry in splits.values() for name, value in entry["files"].items()
               if fetched(source).get("files", {}).get(name, value) != value]  # fmt: skip
    if changed and state == "here":
        state = f"changed since it was fetched: {', '.join(changed)}"
    return {**told, "state": state, "splits": splits}


def _print(found: Sequence[dict[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("benchmark", "state", "rows", "sha256", "published at"):
        table.add_column(title)
    for entry in found:
        rows = ", ".join(_rows(split, part) for split, part in entry["splits"].items() if part["files"])
        sums = [value[:12] for part in entry["splits"].values() for value in part["files"].values()]
        shown = " ".join(sums[:2]) + (f" +{len(sums) - 2}" if len(sums) > 2 else "")
        at = (
            entry["at"] or "given by its authors"
            if entry["revision"]
            else f"{entry['at'] or '–'} (not pinned)"
        )
        table.add_row(entry["benchmark"], entry["state"], rows or "–", shown or "–", at)
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    here = sum(entry["state"] == "here" for entry in found)
    console.print(f"{here} of {len(found)} here, in {home()}")


def _rows(split: str, part: dict[str, Any]) -> str:
    if part["rows"] is None:
        return split
    wanted = part["expected"]
    return f"{split} {part['rows']}" + (f" of {wanted}" if wanted not in (None, part["rows"]) else "")
