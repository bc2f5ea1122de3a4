"""`harness export`: one zip with what a reviewer needs to check every number without the weights."""

from __future__ import annotations

import importlib.metadata
import platform
import zipfile
from collections.abc import Iterator
from pathlib import Path

import click
import yaml

from harness import __version__, registry
from harness.board import Board, read_board
from harness.errors import HarnessError
from harness.family import Family
from harness.store import Store, reachable
from harness.verbs.locked import locked_family

# Of a run folder; weights, responses' database and statistics stay behind (the samples hold every response).
KEPT = ("recipe.yaml", "done.json", "error.txt", "masks.json", "samples.parquet", "judged.parquet", "log.txt")
BESIDE = ("family.lock.yaml", "compat.json")
MOMENT = (1980, 1, 1, 0, 0, 0)  # of every entry, so that equal contents give an equal zip
TOLD = """\
# {title}

Written by harness {version}. `report/` holds the tables (open `report/index.html`), `models/` what was merged
and measured: `recipe.yaml` identifies a step, `done.json` is its record, `samples.parquet` (in `evals/`) has
every question, response and score. `commands.sh` makes each row again, `environment.txt` has the versions.

Recompute every number of the table from the samples:

    harness explain --all --board report/board.json
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
    board, to = read_board(path), to or Path(f"{loaded.name}.zip")
    temporary = to.with_name(f".{to.name}.part")
    with reachable(to):
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as out:
            for name, content in _entries(board, store, loaded):
                out.writestr(zipfile.ZipInfo(name, MOMENT), content, zipfile.ZIP_DEFLATED)
            count = len(out.namelist())
        temporary.replace(to)
    click.echo(f"{to}  {count} files, {to.stat().st_size / 2**20:.1f} MiB")
    return 0


def _entries(board: Board, store: Store, family: Family) -> Iterator[tuple[str, bytes]]:
    """(name in the zip, content) in the order of names."""
    found: dict[str, Path] = {}
    for folder in _folders(board, store):
        found |= {str(f.relative_to(store.root)): f for name in KEPT if (f := folder / name).is_file()}
    for place in ("report", "imported"):
        files = (f for f in (store.root / place).rglob("*") if f.is_file())
        found |= {str(f.relative_to(store.root)): f for f in files if not f.name.startswith(".")}
    found |= {name: store.root / name for name in BESIDE if (store.root / name).is_file()}
    contents = {name: path.read_bytes() for name, path in found.items()}
    contents["report/board.json"] = _relative(board, store.root).to_json().encode()
    described = family.model_dump(mode="json", exclude_defaults=True)
    contents["family.yaml"] = yaml.safe_dump(described, sort_keys=False, allow_unicode=True).encode()
    methods = registry.find("methods")
    for name in {row.method for row in board.rows} & set(methods):
        if methods[name].source != "built in":
            contents[f"methods/{name}.py"] = methods[name].path.read_bytes()
    contents["README.md"] = TOLD.format(title=board.title, version=__version__).encode()
    contents["commands.sh"] = _commands(board).encode()
    contents["environment.txt"] = _environment().encode()
    yield from sorted(contents.items())


def _folders(board: Board, store: Store) -> set[Path]:
    """Run folders behind the board: of rows, of cells, and the statistics that a row's merge read."""
    used = {Path(row.folder) for row in board.rows if row.folder}
    cells = [cell for row in board.rows for cell in row.cells.values()]
    used |= {Path(folder) for cell in cells for folder in (cell.folder, *cell.folders) if folder}
    used |= {folder.parent.parent for folder in used if folder.parent.name == "evals"}
    judged = {folder for model in used for folder in model.glob("evals/*--judge--*")}
    scores = {folder for folder in (store.root / "scores").glob("*") if folder.is_dir()}
    return {folder for folder in used | judged | scores if folder.is_relative_to(store.root)}


def _relative(board: Board, root: Path) -> Board:
    """The board with folders as they are called in the zip. Changes `board`."""

    def inside(folder: str) -> str:
        return str(Path(folder).relative_to(root)) if Path(folder).is_relative_to(root) else folder

    for row in board.rows:
        row.folder = inside(row.folder)
        for cell in row.cells.values():
            cell.folder, cell.folders = inside(cell.folder), [inside(f) for f in cell.folders]
    return board


def _commands(board: Board) -> str:
    lines = [f"# {row.label}\n{row.command}" for row in board.rows if row.command]
    return "\n".join(["#!/bin/sh", *lines]) + "\n"


def _environment() -> str:
    versions = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
    lines = [f"{name}=={version}" for name, version in versions.items() if name]
    head = f"# python {platform.python_version()} · {platform.platform()}"
    return "\n".join([head, *sorted(lines, key=str.lower)]) + "\n"
