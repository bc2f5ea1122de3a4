"""lm-eval's result files as rows of a table."""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.board.cells import headings_of, interval_of
from harness.board.lm_eval_file import OURS, THEIRS, ResultFile
from harness.board.model import BoardRow, Cell, Heading
from harness.errors import HarnessError
from harness.evaluate.task_file import TaskFile
from harness.store import Store, digest, lies_at, made, reachable, slug, write_text

IMPORTED = "imported"  # the folder of the store where the rows lie
LOCK = ".lock"  # in it: held while a row is written or deleted, shared by those that read
BOX, NEW = ".importing-", "new"  # an import's own folder, and in it the row that is being written


@dataclass(frozen=True)
class Imported:
    """What was taken in: the row's label, its cells, those of them with samples, what of the file was left
    out, and the file whose row it replaced."""

    label: str
    columns: tuple[Heading, ...]
    sampled: tuple[str, ...]
    left_out: tuple[str, ...]
    replaced: str | None = None


@dataclass
class _Taken:
    """A task of the file as it is kept; `samples` None where there are none."""

    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    samples: list[dict[str, Any]] | None = None


def import_results(
    path: Path, store: Store, tasks: Sequence[TaskFile], label: str | None = None, taken: Collection[str] = ()
) -> Imported:
    """Take the columns of `tasks` from a `results_*.json` of lm-eval into the store as a row. Samples written
    beside it (`--log_samples`) come along, so that the row can be tested item by item. The row of an earlier
    import of the same model under the same label is replaced.

    Raises HarnessError, before anything is written, for a file that is none of lm-eval's or holds what is no
    result, one with no column of `tasks`, and a label that another row (`taken`) has."""
    file = ResultFile(path)
    name = _label(file, label, taken)
    columns, found = _columns(file, headings_of(tuple(tasks)))
    if not columns:
        known = ", ".join(_theirs(task.name) for task in tasks)
        raise HarnessError(
            f"{path} has none of the family's tasks, but {_metrics_of(file)}",
            f"they are asked of lm-eval as {known}; `--tasks` names others",
        )
    record = {
        "label": name,
        "file": path.name,
        "model": file.model,
        "tasks": {task: {"metrics": kept.metrics, "settings": kept.settings} for task, kept in found.items()},
    }
    folder = store.root / IMPORTED / slug(name, {}, digest(name))
    with writing(folder.parent):
        before = _record(folder / "row.json") if (folder / "row.json").is_file() else None
        if before is not None and before.get("model", file.model) != file.model:
            raise HarnessError(
                f"`{name}` is the row of {before['model']}, imported from {before['file']}",
                "choose another name with `--as LABEL`",
            )
        _write(folder, record, found)
    ours = {_theirs(task) for task in found}
    return Imported(
        name,
        tuple(columns),
        tuple(task for task, kept in found.items() if kept.samples is not None),
        tuple(task for task in file.tasks if task not in ours),
        before and before["file"],
    )


def _label(file: ResultFile, given: str | None, taken: Collection[str]) -> str:
    if given is not None and not given.strip():
        raise HarnessError(f"--as {given!r} is no label", "name the row, as in `--as 'our fine-tune'`")
    name = " ".join((given or file.model).split())
    if name in taken:
        raise HarnessError(f"another row is called `{name}`", "choose another name with `--as LABEL`")
    return name


def _theirs(task: str) -> str:
    """What lm-eval calls one of our tasks."""
    return task.removeprefix(THEIRS) if task.startswith(THEIRS) else OURS + task


def _columns(file: ResultFile, headings: Sequence[Heading]) -> tuple[list[Heading], dict[str, _Taken]]:
    """The columns that the file has numbers for, and what of the file they show, by task."""
    columns, found = [], {}
    for heading in headings:
        task = _theirs(heading.task)
        key = file.metric_key(task, heading.metric) if task in file.tasks else None
        if key is None:
            continue
        if heading.task not in found:
            found[heading.task] = _Taken({}, file.settings(task), file.samples(task))
        found[heading.task].metrics[heading.metric] = file.metric(task, key, heading.kind)
        columns.append(heading)
    return columns, found


def _metrics_of(file: ResultFile) -> str:
    named = [f"{task} ({', '.join(k for k in given if ',' in k and '_stderr' not in k)})"
             for task, given in file.tasks.items()]  # fmt: skip
    return ", ".join(sorted(named)[:10]) + f" and {len(named) - 10} more" * (len(named) > 10) or "nothing"


@contextlib.contextmanager
def writing(place: Path) -> Iterator[None]:
    """Keep others out of the imported rows, which lie in `place`, while one is written or deleted. What a
    killed import left is put right first."""
    there = False
    while not there:
        with reachable(place), (made(place) / LOCK).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            there = lies_at(lock, place / LOCK)  # not deleted with the store while this process waited
            if there:
                _put_right(place)
                yield


@contextlib.contextmanager
def _reading(place: Path) -> Iterator[None]:
    """Keep those out that write or delete imported rows, also where nothing can be written."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(FileNotFoundError):  # nothing was imported
            fcntl.flock(stack.enter_context((place / LOCK).open()), fcntl.LOCK_SH)
        yield


def _put_right(place: Path) -> None:
    """Bring back a row that an import moved away without putting the new one there; delete the rest."""
    for box in place.glob(BOX + "*"):
        for row in box.iterdir():
            if row.name != NEW and not (place / row.name).exists():
                row.rename(place / row.name)
        shutil.rmtree(box, ignore_errors=True)


def _write(folder: Path, record: Mapping[str, Any], found: Mapping[str, _Taken]) -> None:
    """Write the row whole or not at all: beside its place, then swapped in."""
    from harness.evaluate.results import write_samples

    box = Path(tempfile.mkdtemp(prefix=BOX, dir=folder.parent))
    new = box / NEW
    try:
        new.mkdir()
        for task, kept in found.items():
            if kept.samples is not None:
                (new / _folder(task)).mkdir()
                write_samples(kept.samples, new / _folder(task) / "samples.parquet")
        write_text(new / "row.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        with contextlib.suppress(FileNotFoundError):
            folder.rename(box / folder.name)
        new.rename(folder)
    finally:
        _put_right(folder.parent)


def _folder(task: str) -> str:
    return task.replace(":", "-").replace("/", "-")


def _record(file: Path) -> dict[str, Any]:
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        return {**told, "label": told["label"], "file": told["file"], "tasks": dict(told["tasks"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HarnessError(
            f"{file} cannot be read: {error}", f"delete {file.parent}, and import again"
        ) from error


def imported_folders(store: Store) -> list[tuple[str, set[Path]]]:
    """The labels of the rows that were imported, and where they lie."""
    return [(told["label"], {folder}) for folder, told in _records(store)]


def _records(store: Store) -> list[tuple[Path, dict[str, Any]]]:
    """The folders of the rows that were imported, with what was written of each."""
    with _reading(store.root / IMPORTED):
        files = sorted((store.root / IMPORTED).glob("*/row.json"))
        return [(file.parent, _record(file)) for file in files]


def imported_rows(store: Store, headings: Sequence[Heading]) -> list[BoardRow]:
    """The rows that were imported, with their cells of these columns; those without any are left out."""
    rows = []
    for folder, told in _records(store):
        cells = {}
        for heading in headings:
            task = told["tasks"].get(heading.task) or {}
            metric = _metric(task.get("metrics", {}), heading.metric)
            if metric is not None:
                cells[heading.task, heading.metric] = _cell(metric, task, heading, folder)
        if cells:
            role, source = "imported", {"file": told["file"]}
            row = BoardRow(told["label"], role, None, {}, str(folder), cells, recipe=source)
            row.imported = True
            rows.append(row)
    return rows


def _cell(metric: Mapping[str, Any], task: Mapping[str, Any], heading: Heading, folder: Path) -> Cell:
    return Cell(
        metric["value"],
        metric["stderr"],
        metric["n"],
        folder=str(folder / _folder(heading.task)),
        interval=interval_of(dict(metric), heading.kind),
        imported=True,
        settings=dict(task["settings"]),
    )


def _metric(metrics: Mapping[str, Any], wanted: str) -> Mapping[str, Any] | None:
    """Under its own name, or the only filter's."""
    if wanted in metrics:
        return metrics[wanted]
    found = [value for key, value in metrics.items() if key.partition(",")[0] == wanted]
    return found[0] if len(found) == 1 else None
