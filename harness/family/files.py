"""Family files as they are written: one may extend another; every key remembers the file and line it is from.

Mappings are merged key by key, the extending file's over the extended one's; all else is replaced. Paths stay
relative to the file that names them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness import registry, yamlfile
from harness.errors import HarnessError, nearest
from harness.hub import HUB_ID

Where = dict[tuple, tuple[Path, int]]
BUILT_IN = Path(__file__).parents[1] / "families"
FILES = (".json", ".jsonl", ".csv", ".parquet")
EITHER = ("model", "train")  # of an expert: naming one drops an inherited other
RESERVED = ("name", "folder")


def read(path: Path) -> tuple[dict[str, Any], Where]:
    """What a family file says with all that it extends, and where each key stands."""
    data, where = _chain(path, ())
    data.pop("extends", None)
    return _named_sets(data, where), where


def place(where: Where, loc: tuple, path: Path) -> str:
    """`file:line` of a key, or of its nearest known parent; `path` is the file that was asked for."""
    for end in range(len(loc), 0, -1):
        if loc[:end] in where:
            file, line = where[loc[:end]]
            return f"{file}:{line}"
    return f"{path}:1"


def _chain(path: Path, below: tuple[Path, ...]) -> tuple[dict[str, Any], Where]:
    data, lines = yamlfile.read(path)
    where: Where = {loc: (path, line) for loc, line in lines.items()}
    for reserved in RESERVED:
        if reserved in data:
            raise HarnessError(
                f"{path}:{lines[(reserved,)]}: key `{reserved}` is not yours to set",
                "the file's name is the family's name",
            )
    if below:
        _absolute(data, path.parent)
    if "extends" not in data:
        return data, where
    at, chain = f"{path}:{lines[('extends',)]}", (*below, path.resolve())
    parent = _parent(data["extends"], path, at)
    if parent.resolve() in chain:
        round_trip = " → ".join(file.name for file in (*chain[chain.index(parent.resolve()) :], parent))
        raise HarnessError(f"{at}: `extends` goes in a circle: {round_trip}", "a family extends another one")
    inherited, theirs = _chain(parent, chain)
    return merged(inherited, data), _merged_places(inherited, data, theirs, where)


def _parent(name: Any, path: Path, at: str) -> Path:
    if not isinstance(name, str) or not name:
        raise HarnessError(f"{at}: `extends` is {name!r}", "a family's name, or the path of its file")
    if name.endswith(".yaml") or "/" in name:
        found = path.parent / Path(name).expanduser()
        if not found.is_file():
            raise HarnessError(f"{at}: no family file at {found}", "the path starts at the file that extends")
        return found
    places = {file.stem: file for folder in (BUILT_IN, path.parent) for file in folder.glob("*.yaml")}
    known = {**{n: plugin.path for n, plugin in registry.find("families").items()}, **places}
    if name not in known:
        raise HarnessError(f"{at}: no family is called `{name}`", nearest(name, known))
    return known[name]


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` on top of `under`, mappings key by key."""
    found = dict(under)
    for key, value in over.items():
        held = found.get(key)
        if isinstance(held, Mapping) and isinstance(value, Mapping):
            held = {k: v for k, v in held.items() if not _dropped(k, value)}
            found[key] = merged(held, value)
        else:
            found[key] = value
    return found


def _dropped(key: str, over: Mapping[str, Any]) -> bool:
    return key in EITHER and key not in over and any(other in over for other in EITHER)


def _merged_places(under: Mapping[str, Any], over: Mapping[str, Any], theirs: Where, ours: Where) -> Where:
    """Places of the merged keys: those of `over`, and of `under` wherever it still shows through."""

    def shows(loc: tuple) -> bool:
        node: Any = over
        for part in loc:
            if not isinstance(node, Mapping):
                return False  # replaced as a whole
            if part not in node:
                return True
            node = node[part]
        return False

    return {**{loc: at for loc, at in theirs.items() if shows(loc)}, **ours}


def _absolute(data: dict[str, Any], folder: Path) -> None:
    """Paths of a file that another one extends, which may lie in another folder."""

    def model(ref: Any) -> Any:
        if not isinstance(ref, str):
            return ref
        path = folder / Path(ref).expanduser()
        return str(path.absolute()) if ref.startswith(".") or path.exists() else ref

    def data_set(ref: Any) -> Any:
        if not isinstance(ref, str) or ":" in ref:  # a function, or github:...
            return ref
        path = folder / Path(ref).expanduser()
        return str(path.absolute()) if Path(ref).suffix in FILES or path.is_dir() else ref

    def at(mapping: Any, keys: tuple[str, ...], change: Any) -> None:
        if isinstance(mapping, dict):
            mapping.update({key: change(mapping[key]) for key in keys if key in mapping})

    def each(mapping: Any) -> list[Any]:
        return list(mapping.values()) if isinstance(mapping, dict) else []

    at(data, ("base",), model)
    for key in ("experts", "rows"):
        at(data.get(key), tuple(data[key]) if isinstance(data.get(key), dict) else (), model)
    for expert in each(data.get("experts")):
        at(expert, ("model", "on"), model)
        if isinstance(expert, dict):
            at(expert.get("train"), ("base",), model)
            at(expert.get("train"), ("data",), data_set)
    sets = [*each(data.get("calibration")), *(s for r in each(data.get("calibration_sets")) for s in each(r))]
    for rows in sets:
        at(rows, ("data",), data_set)
        if isinstance(rows, dict):
            at(rows.get("official"), ("data",), data_set)
    for judge in each(data.get("judges")):
        at(judge, ("model",), model)


def _named_sets(data: dict[str, Any], where: Where) -> dict[str, Any]:
    """`calibration: {role: NAME}` stands for that set of `calibration_sets`."""
    chosen, sets = data.get("calibration"), data.get("calibration_sets")
    if not isinstance(chosen, dict):
        return data
    found = dict(chosen)
    for role, name in chosen.items():
        if not isinstance(name, str):
            continue
        known = sets.get(role) if isinstance(sets, dict) else None
        if not isinstance(known, dict) or name not in known:
            hint = nearest(name, known) if known else f"`calibration_sets: {{{role}: {{{name}: ...}}}}`"
            at = place(where, ("calibration", role), Path())
            raise HarnessError(f"{at}: `{role}` has no calibration set called `{name}`", hint)
        found[role] = known[name]
    return {**data, "calibration": found}


def is_hub_id(ref: str, folder: Path) -> bool:
    """Whether `ref` names a repository of the hub rather than a folder or file."""
    path = folder / Path(ref).expanduser()
    return bool(HUB_ID.match(ref)) and not ref.startswith((".", "/", "~")) and not path.exists()
