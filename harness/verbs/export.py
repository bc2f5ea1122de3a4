"""`harness export`: one zip with what a reviewer needs to check every number without the weights."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import platform
import shlex
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import click

from harness import __version__, registry
from harness.board import Board, read_board
from harness.board.places import relative
from harness.errors import HarnessError
from harness.family import Family
from harness.store import Store, reachable
from harness.verbs import packing
from harness.verbs.locked import locked_family
from harness.verbs.portable import Places, family_file, places_of
from harness.verbs.rendering import MADE, rendered

# Of a run folder; weights, responses' database and statistics stay behind (the samples hold every response).
KEPT = ("recipe.yaml", "done.json", "error.txt", "masks.json", "samples.parquet", "judged.parquet", "log.txt",
        "row.json", "loss.jsonl", packing.METHOD)  # fmt: skip
BESIDE = ("family.lock.yaml", "compat.json")
DRAWN = ("figures", "terminal")  # reports that tell no path: what lies there is packed
MOMENT = (1980, 1, 1, 0, 0, 0)  # of every entry, so that equal contents give an equal zip
TOLD = """\
# {title}

Written by harness {version}. `report/` holds the tables (open `report/index.html`), `models/` what was merged
and measured: `recipe.yaml` identifies a step, `done.json` is its record, `samples.parquet` (in `evals/`) has
every question, response and score. `family.yaml` is the family, `methods/` and `tasks/` the files that do not
come with harness, `environment.txt` has the versions. Paths of the author's machine are left out.

Recompute every number of the table from the samples, here in this folder:

    harness explain --all --board report/board.json

Make it again: `harness check family.yaml` tells what is missing (models that the family names by a path are
not packed; `family.lock.yaml` has the hash of each), `commands.sh` has the command of every row.
"""


def export(family: str, results: Path, to: Path | None) -> int:
    """Write the zip; the exit code."""
    loaded, store = locked_family(family, results)
    path = store.report / "board.json"
    if not path.is_file():
        raise HarnessError(
            f"family `{loaded.name}` has no report in {results}",
            "run `harness compare` or `harness report` first",
        )
    to = _target(to or Path(f"{loaded.name}.zip"))
    try:
        board = relative(read_board(path), store.root)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise HarnessError(
            f"{path} cannot be read: {error}", f"`harness report -f {family}` writes it anew"
        ) from error
    temporary = to.with_name(f".{to.name}.part")
    with tempfile.TemporaryDirectory() as folder:
        stage = Path(folder) / loaded.name
        with reachable(stage):
            warnings = _stage(stage, board, store, loaded)
        try:
            count = _zip(stage, temporary)
            temporary.replace(to)
        except OSError as error:
            raise HarnessError(
                f"cannot write {to}: {error.strerror}",
                "choose another file with `--to FILE`, or free some space",
            ) from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"{to}  {count} files, {to.stat().st_size / 2**20:.1f} MiB")
    return 0


def _target(to: Path) -> Path:
    """The file to write, or a HarnessError before any work."""
    to = to.expanduser()
    if to.is_dir():
        raise HarnessError(f"--to {to} is a folder", f"name the file: `--to {to / 'tables.zip'}`")
    if not to.parent.is_dir():
        raise HarnessError(f"--to {to}: there is no folder {to.parent}", "make it, or choose another one")
    if to.exists() and not to.is_file():
        raise HarnessError(f"--to {to} is no regular file", f"name another one: `--to {to.name}.zip`")
    return to


def _stage(stage: Path, board: Board, store: Store, family: Family) -> list[str]:
    """Lay out everything in the folder `stage` without this machine's paths; what could not be packed."""
    checkpoints = {
        key: str(row.recipe["checkpoint"])
        for row in board.rows
        if row.recipe.get("checkpoint")
        for key in (row.label, row.role)
    }
    places = places_of(family, store.root, checkpoints)
    for row in board.rows:
        row.command = _command(row.command, places)
    for name, path in sorted(_files(board, store).items()):
        target = stage / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".parquet":  # of samples: what was asked and answered
            target.symlink_to(path.absolute())
        else:
            target.write_bytes(places.content(name, path.read_bytes()))
    plugins, warnings = packing.plugins(board, store, family)
    told = {
        **plugins,
        "family.yaml": family_file(family, places),
        "README.md": TOLD.format(title=board.title, version=__version__),
        "commands.sh": _commands(board),
        "environment.txt": _environment(),
        "report/board.json": json.dumps(places.within(json.loads(board.to_json()))),
    }
    for name, text in told.items():
        (stage / name).parent.mkdir(parents=True, exist_ok=True)
        (stage / name).write_text(places.text(text), encoding="utf-8")
    _render(stage / "report", store.report, places)
    return warnings


def _render(folder: Path, written: Path, places: Places) -> None:
    """The reports that lie in `written`, of the board that is packed; those whose code is not here as they
    are."""
    made = _made(written / MADE)
    board, known = read_board(folder / "board.json"), registry.find("reports")
    again = [name for name in {**made, "json": []} if name in known and name not in DRAWN]
    for name, files in made.items():
        for file in [] if name in again else files:
            if (written / file).is_file():
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                (folder / file).write_bytes(places.content(file, (written / file).read_bytes()))
    for name in again:
        rendered(name, board, folder)


def _made(record: Path) -> dict[str, list[str]]:
    """The files of every report that was rendered, from `rendered.json`."""
    try:
        made = {name: told["files"] for name, told in json.loads(record.read_text("utf-8")).items()}
        if any(
            Path(file).is_absolute() or ".." in Path(file).parts for files in made.values() for file in files
        ):
            raise ValueError("a file lies outside")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise HarnessError(
            f"{record} cannot be read: {why}", "`harness report --again` writes the reports anew"
        ) from error
    return made


def _zip(stage: Path, to: Path) -> int:
    """Pack the folder in the order of names; how many files."""
    files = sorted(str(path.relative_to(stage)) for path in stage.rglob("*") if path.is_file())
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as out:
        for name in files:
            out.writestr(zipfile.ZipInfo(name, MOMENT), (stage / name).read_bytes(), zipfile.ZIP_DEFLATED)
    return len(files)


def _files(board: Board, store: Store) -> dict[str, Path]:
    """What is packed as it lies in the store but for paths: name in the zip -> file."""
    found = {
        f"{folder.relative_to(store.root)}/{name}": folder / name
        for folder in _folders(board, store)
        for name in KEPT
        if (folder / name).is_file()
    }
    return found | {name: store.root / name for name in BESIDE if (store.root / name).is_file()}


def _folders(board: Board, store: Store) -> Iterator[Path]:
    """Run folders behind the board: of rows, of cells, of judgements; and the statistics and experts."""
    used = {row.folder for row in board.rows}
    used |= {f for row in board.rows for cell in row.cells.values() for f in (cell.folder, *cell.folders)}
    inside = {store.root / folder for folder in used if folder and not Path(folder).is_absolute()}
    inside |= {folder.parent.parent for folder in inside if folder.parent.name == "evals"}
    inside |= {folder for model in inside for folder in model.glob("evals/*--judge--*")}
    yield from inside
    for kind in ("scores", "experts"):
        yield from (folder for folder in (store.root / kind).glob("*") if folder.is_dir())


def _command(command: str, places: Places) -> str:
    """A row's command with the packed family."""
    parts = shlex.split(command)
    if "--family" in parts[:-1]:
        parts[parts.index("--family") + 1] = "family.yaml"
    return shlex.join(map(places.text, parts))


def _commands(board: Board) -> str:
    """Every command once."""
    rows: dict[str, list[str]] = {}
    for row in board.rows:
        if row.command:
            rows.setdefault(row.command, []).append(" ".join(row.label.split()))
    lines = [f"# {', '.join(labels)}\n{command}" for command, labels in rows.items()]
    return "\n".join(["#!/bin/sh", "# in the folder of family.yaml", *lines]) + "\n"


def _environment() -> str:
    versions = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
    lines = [f"{name}=={version}" for name, version in versions.items() if name]
    head = f"# python {platform.python_version()} · {platform.platform()}"
    return "\n".join([head, *sorted(lines, key=str.lower)]) + "\n"
