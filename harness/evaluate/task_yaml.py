"""A task's YAML as lm-eval writes it, read without lm-eval; errors that name file, line and key. Light."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from harness.errors import HarnessError


class Function(str):
    """A `!function file.name` of a task's YAML, unresolved."""


class _Loader(yaml.SafeLoader):
    pass


_Loader.add_constructor("!function", lambda loader, node: Function(loader.construct_scalar(node)))


def read(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A YAML file over what it includes. As in lm-eval a key replaces the included file's, except that
    `metadata.harness` (which lm-eval does not read) is merged key by key."""
    if path in seen:
        raise HarnessError(f"{path}: `include` leads back to itself", "remove the circle")
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - a SafeLoader
    except (OSError, UnicodeDecodeError) as error:
        raise HarnessError(f"{path} cannot be read: {error}", "a task is a YAML file") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        fact = getattr(error, "problem", None) or error
        raise HarnessError(f"{place}: {fact}", "check the indentation, quotes and colons there") from error
    if not isinstance(config, dict):
        kind = type(config).__name__
        raise HarnessError(f"{path}:1: holds {kind}, not keys and values", "write `task: ...`")
    base: dict[str, Any] = {}
    included = config.pop("include", [])
    for name in included if isinstance(included, list) else [included]:
        base = _over(base, read(path.parent / name, (*seen, path)))
    return _over(base, config)


def _over(base: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    merged = base | config
    below, above = (c.get("metadata") for c in (base, config))
    if isinstance(below, dict) and isinstance(above, dict):
        headers = [m.get("harness") for m in (below, above)]
        if all(isinstance(header, dict) for header in headers):
            merged["metadata"] = {**above, "harness": _deep(*headers)}
    return merged


def _deep(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    both = {key for key in above if isinstance(above[key], dict) and isinstance(below.get(key), dict)}
    return below | above | {key: _deep(below[key], above[key]) for key in both}


def wrong(path: Path, key: str, fact: str, hint: str, near: str | None = None) -> HarnessError:
    """What is wrong with `key`; the line is that of `near` where the key itself has none."""
    line = _line(path, (near or key).split("."))
    return HarnessError(f"{path}{f':{line}' if line else ''}: `{key}` {fact}", hint)


def _line(path: Path, keys: list[str]) -> int | None:
    node, line = yaml.compose(path.read_text(encoding="utf-8"), Loader=_Loader), None
    for wanted in keys:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        found = next(((k, v) for k, v in pairs if k.value == wanted), None)
        if found is None:
            return line
        line, node = found[0].start_mark.line + 1, found[1]
    return line
