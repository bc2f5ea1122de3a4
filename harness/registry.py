"""Finds plugins: methods, tasks, reports and families.

Three places are searched, and all three have the same shape (`methods/*.py`, `tasks/*.yaml`, `reports/*.py`,
`families/*.yaml`, `studies/*.yaml`): what is built in, the working folder, and installed packages that
announce themselves under the entry-point group `harness.plugins`. Being a file in the folder is the
registration.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from harness.errors import HarnessError, nearest

KINDS = {"methods": ".py", "tasks": ".yaml", "suites": ".yaml", "reports": ".py", "families": ".yaml",
         "studies": ".yaml"}  # fmt: skip
FOLDERS = {"suites": "tasks/suites"}  # a kind's files lie in the folder of its name otherwise
PACKAGE = Path(__file__).resolve().parent
BUILT_IN = PACKAGE / "builtin" if (PACKAGE / "builtin").is_dir() else PACKAGE.parent


@dataclass(frozen=True)
class Plugin:
    """One file of one kind. `source` says where it was found: `built in`, `./`, or a package's name."""

    kind: str
    name: str
    path: Path
    source: str


def find(kind: str) -> dict[str, Plugin]:
    """Every plugin of a kind by name. Two different files of one name are an error that shows both paths."""
    found: dict[str, Plugin] = {}
    for source, folder in _places(kind):
        if not folder.is_dir():
            continue
        for path in sorted(folder.glob("*" + KINDS[kind])):
            if path.name.startswith("_"):
                continue
            _add(found, Plugin(kind, path.stem, path.resolve(), source))
    return found


def _places(kind: str) -> list[tuple[str, Path]]:
    folder = FOLDERS.get(kind, kind)
    home = PACKAGE / folder if kind in ("families", "studies") else BUILT_IN / folder
    places = [("built in", home), ("./", Path.cwd() / folder)]
    return places + [(name, root / folder) for name, root in _packages(tuple(sys.path))]


@functools.cache
def _packages(_: tuple[str, ...]) -> list[tuple[str, Path]]:
    """Installed packages that bring plugins, found anew where `sys.path` is another."""
    found = []
    for point in sorted(entry_points(group="harness.plugins"), key=lambda p: p.name):
        spec = importlib.util.find_spec(point.value)
        roots = (spec.submodule_search_locations or []) if spec else []
        found += [(point.name, Path(root)) for root in roots]
    return found


def _add(found: dict[str, Plugin], plugin: Plugin) -> None:
    other = found.get(plugin.name)
    if other is None:
        found[plugin.name] = plugin
    elif other.path != plugin.path and other.path.read_bytes() != plugin.path.read_bytes():
        raise HarnessError(
            f"two {plugin.kind} are called `{plugin.name}`: {other.path} and {plugin.path}",
            "rename one of the two files",
        )


def get(kind: str, name: str) -> Plugin:
    """The plugin called `name`, or the file at the path `name` (`./mine.py`). Of `mergekit:ties`, a variant,
    it is the file of `mergekit`, under the whole name."""
    suffix = KINDS[kind]
    known = find(kind)
    if name in known:
        return known[name]
    stem, colon, variant = name.partition(":")
    if colon and kind == "methods":
        plugin = get(kind, stem)
        return replace(plugin, name=f"{plugin.name}:{variant}")
    if name.endswith(suffix) or "/" in name:
        path = Path(name).expanduser().resolve()
        if not path.is_file():
            raise HarnessError(
                f"no such file: {path}",
                f"a path to a {suffix} file, or one of: " + ", ".join(f"`{n}`" for n in sorted(known)),
            )
        plugin = Plugin(kind, path.stem, path, "./")
        _add(known, plugin)
        return plugin
    raise HarnessError(f"no {_singular(kind)} is called `{name}`", nearest(name, known))


def load(plugin: Plugin) -> ModuleType:
    """The module of a plugin file. Loaded once; registered in `sys.modules` before it runs, so that
    dataclasses and pickling find it."""
    name = f"harness_plugin.{plugin.kind}.{plugin.name.partition(':')[0]}"
    module = sys.modules.get(name)
    if module is not None and module.__file__ == str(plugin.path):
        return module
    spec = importlib.util.spec_from_file_location(name, plugin.path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except HarnessError:
        del sys.modules[name]
        raise
    except Exception as error:  # whatever a user's file may raise is that file's error
        del sys.modules[name]
        line = line_in(error, plugin.path)
        raise HarnessError(
            f"{plugin.path}{line}: {type(error).__name__}: {error}",
            f"the {_singular(plugin.kind)} file does not load; mend it or move it away",
        ) from error
    return module


def method(name: str) -> type:
    """The method class in the file of that name (or at that path). A file of many methods has a function
    `variant(name) -> class` instead of a class, and `variants() -> names`; they are called `file:name`."""
    plugin = get("methods", name)
    stem, colon, variant = plugin.name.partition(":")
    if has_variants(plugin):
        if not variant:
            raise HarnessError(
                f"`{stem}` is many methods", f"name one as `{stem}:NAME`; `harness list methods` lists them"
            )
        return load(plugin).variant(variant)
    if colon:
        raise HarnessError(f"method `{stem}` has no variants, so no `{variant}`", f"write `{stem}`")
    return _only(
        plugin,
        lambda v: isinstance(v, type) and hasattr(v, "method_name"),
        "a class tagged with `@merge_method(...)`",
    )


def has_variants(plugin: Plugin) -> bool:
    """Whether a method file offers many methods instead of one."""
    return callable(getattr(load(plugin), "variant", None))


def streaming_methods() -> list[str]:
    """Methods that merge block by block; those that train or run another program are rows only when named."""
    plain = [name for name, plugin in sorted(find("methods").items()) if not has_variants(plugin)]
    return [name for name in plain if hasattr(method(name), "merge")]


def report(name: str) -> Callable[..., list[Path]]:
    """The `render(board, folder)` function of a report file."""
    plugin = get("reports", name)
    render = getattr(load(plugin), "render", None)
    if not callable(render):
        raise HarnessError(
            f"{plugin.path}: no function `render(board, folder)`",
            "a report file defines `render` and returns the files it wrote",
        )
    return render


def _only(plugin: Plugin, wanted: Callable[[Any], bool], what: str) -> Any:
    module = load(plugin)
    found = [v for v in vars(module).values() if wanted(v) and v.__module__ == module.__name__]
    if len(found) != 1:
        raise HarnessError(
            f"{plugin.path}: {len(found)} merge methods in the file",
            f"a {_singular(plugin.kind)} file holds exactly one: {what}",
        )
    if found[0].method_name != plugin.name:
        raise HarnessError(
            f"{plugin.path}: the method calls itself `{found[0].method_name}`",
            f"the file's name is the method's name: `{plugin.name}`",
        )
    return found[0]


def line_in(error: BaseException, path: Path) -> str:
    """`:12`, the line of the file `path` at which an error came up; empty where it was elsewhere."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f":{error.lineno}"
    line, trace = "", error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = f":{trace.tb_lineno}"
        trace = trace.tb_next
    return line


def _singular(kind: str) -> str:
    return {"families": "family", "studies": "study"}.get(kind, kind[:-1])
