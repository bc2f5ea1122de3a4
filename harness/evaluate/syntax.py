"""The code behind a task's `!function` references: run it, and say what it is apart from its layout.

Light: imports neither torch nor lm-eval.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import harness
from harness.errors import HarnessError, nearest
from harness.recipe import code_hash
from harness.store import digest


def source(folder: Path, reference: str, origin: Path) -> str:
    """The code that `!function reference` stands for: the function and all it uses in its file, without
    comments and docstrings."""
    module, _, name = reference.rpartition(".")
    path = folder / f"{module}.py"
    if not path.exists():
        return f"import {reference}"  # a function of an installed package
    try:
        body = ast.parse(path.read_text(encoding="utf-8")).body
    except SyntaxError as error:
        raise HarnessError(f"{path}:{error.lineno}: {error.msg}", f"{origin.name} uses it") from error
    defines: dict[str, ast.stmt] = {}
    for statement in body:
        for bound in _binds(statement):
            defines[bound] = statement
    if name not in defines:
        raise HarnessError(f"{origin}: `!function {reference}` does not exist", nearest(name, defines))
    wanted, used = [name], {}
    while wanted:
        current = wanted.pop()
        if current in defines and current not in used:
            used[current] = defines[current]
            wanted += [node.id for node in ast.walk(defines[current]) if isinstance(node, ast.Name)]
    kept = [statement for statement in body if any(statement is part for part in used.values())]
    text = [ast.unparse(_without_docstrings(statement)) for statement in kept]
    return "\n".join(text + [f"# {room}: {_hash(room)}" for room in sorted(_rooms(kept))])


def _rooms(kept: list[ast.stmt]) -> set[str]:
    """Our rooms that a scorer imports from (`harness.answers`): what they do is part of what it does. Data
    that a program makes (`harness.families`) is told by its rows instead."""
    froms = {node.module or "" for node in kept if isinstance(node, ast.ImportFrom)}
    return {".".join(m.split(".")[:2]) for m in froms if m.startswith("harness.")} - {"harness.families"}


@lru_cache
def _hash(room: str) -> str:
    """Hash of a room's syntax trees."""
    at = Path(harness.__file__).parent / room.partition(".")[2]
    files = sorted(at.rglob("*.py")) if at.is_dir() else [at.with_suffix(".py")]
    return digest({str(file.relative_to(at.parent)): code_hash(file) for file in files})


def _binds(statement: ast.stmt) -> list[str]:
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
        return [statement.name]
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        return [(alias.asname or alias.name).partition(".")[0] for alias in statement.names]
    return [n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]


def _without_docstrings(tree: ast.stmt) -> ast.stmt:
    for node in ast.walk(tree):
        documented = (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)
        if isinstance(node, documented) and ast.get_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
    return tree


def load_module(path: Path) -> ModuleType:
    """A task's Python file, run once under a name of its own. HarnessError when it does not run."""
    name = "harness_task_" + hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    stamp = path.stat().st_mtime_ns if path.exists() else None
    known = sys.modules.get(name)
    if known is not None and known.__stamp__ == stamp:
        return known
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    module.__stamp__ = stamp
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        fact = f"{path} does not run: {type(error).__name__}: {error}"
        raise HarnessError(fact, "mend the task's file") from error
    return module
