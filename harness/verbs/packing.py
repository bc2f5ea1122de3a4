"""The files behind a board that do not come with harness: of methods and tasks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from harness import asked, registry
from harness.board import Board
from harness.errors import HarnessError
from harness.family import Family
from harness.recipe import code_hash
from harness.steps import METHOD
from harness.store import Store

USED = re.compile(r"!function\s+['\"]?(\w+)\.\w+")
INCLUDED = re.compile(r"^include:\s*(\S+\.yaml)\s*$", re.MULTILINE)


def plugins(board: Board, store: Store, family: Family) -> tuple[dict[str, str], list[str]]:
    """(name in the zip -> text, what is not at hand) of the users' methods and tasks."""
    found, lacking = _methods(board, store, family)
    tasks, unknown = _tasks(board, family)
    return {**found, **tasks}, [*lacking, *unknown]


def _methods(board: Board, store: Store, family: Family) -> tuple[dict[str, str], list[str]]:
    found: dict[str, str] = {}
    lacking = []
    for row in board.rows:
        mark = row.recipe.get("plugin")
        if not row.method or mark is None:
            continue
        stem = row.method.partition(":")[0]
        kept = store.root / row.folder / METHOD
        file = kept if kept.is_file() else _at_hand(row.method, mark, family)
        name = f"methods/{stem}.py"
        if file is None:
            why = f"the file of method `{stem}` that made `{row.label}` is not here, so it is not packed"
            lacking.append(f"{why}; put it into ./methods/ and export again")
        elif found.setdefault(name, text := file.read_text("utf-8")) != text:
            lacking.append(f"`{row.label}` was made by other code than {name}: see {row.folder}/{METHOD}")
    return found, list(dict.fromkeys(lacking))


def _at_hand(method: str, mark: str, family: Family) -> Path | None:
    """The method's file in the working folder, or where the family names it, if it is the one that ran."""
    named = [str(row.method) for row in family.rows() if str(row.method).endswith(".py")]
    for name in [method, *(n for n in named if Path(n).stem == method)]:
        try:
            path = registry.get("methods", name).path
        except HarnessError:
            continue
        if code_hash(path) == mark:
            return path
    return None


def _tasks(board: Board, family: Family) -> tuple[dict[str, str], list[str]]:
    paths = {plugin.name: plugin.path for plugin in registry.find("tasks").values()}
    if any("/" in name or name.endswith(".yaml") for name in family.tasks):
        paths |= {task.name: task.path for task in asked.tasks(family, None)}
    found: dict[str, str] = {}
    lacking = []
    for name in dict.fromkeys(heading.task for heading in board.headings):
        if name.startswith("lm_eval:"):
            continue
        if name not in paths:
            lacking.append(f"the file of task `{name}` is not here, so it is not packed")
        elif not paths[name].is_relative_to(registry.BUILT_IN / "tasks"):
            found |= {f"tasks/{file.name}": file.read_text("utf-8") for file in _with_parts(paths[name])}
    return found, lacking


def _with_parts(path: Path) -> Iterator[Path]:
    """A task's file, what it includes, and the modules of its functions."""
    yield path
    text = path.read_text("utf-8")
    for name in INCLUDED.findall(text):
        yield from _with_parts(path.parent / name)
    modules = (path.parent / f"{module}.py" for module in USED.findall(text))
    yield from (module for module in modules if module.is_file())
