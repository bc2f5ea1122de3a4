"""YAML with line numbers, so that an error can name file, line and key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from harness.errors import HarnessError

Lines = dict[tuple, int]


class Loader(yaml.SafeLoader):
    """YAML 1.1 with numbers as people write them: `1e-3` is a float, and the key `on` a word, as in YAML
    1.2."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:bool":
                key.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep)


Loader.yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()}
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def value(text: str) -> Any:
    """One value written on a command line: number, boolean, null, list or text."""
    return yaml.load(text, Loader)


def read(path: Path) -> tuple[dict[str, Any], Lines]:
    """The mapping in a YAML file, and the line (from 1) of every key path in it."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise HarnessError(f"{path}: {error.strerror}", "check the path and its permissions") from error
    except UnicodeDecodeError as error:
        raise HarnessError(
            f"{path}: not UTF-8 text (byte {error.start})", "save the file as UTF-8"
        ) from error
    return parse(text, str(path))


def parse(text: str, name: str) -> tuple[dict[str, Any], Lines]:
    """As `read`, of text; `name` stands for the file in errors."""
    try:
        node = yaml.compose(text, Loader=Loader)
        data = yaml.load(text, Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        raise HarnessError(
            f"{where}: {error.problem or 'malformed YAML'}",
            "check the indentation, quotes and colons of this line",
        ) from error
    except yaml.YAMLError as error:
        raise HarnessError(f"{name}: {error}", "the file is not YAML") from error
    if not isinstance(data, dict):
        raise HarnessError(
            f"{name}: expected keys and values, found {type(data).__name__}",
            "a file begins with `key: value` lines",
        )
    lines: Lines = {}
    _walk(node, (), lines, name)
    return data, lines


def _walk(node: yaml.Node, path: tuple, lines: Lines, name: str) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            place = (*path, key.value)
            if place in lines:
                raise HarnessError(
                    f"{name}:{key.start_mark.line + 1}: key `{key.value}` stands twice",
                    f"the first is on line {lines[place]}; keep one",
                )
            lines[place] = key.start_mark.line + 1
            _walk(value, place, lines, name)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*path, index)] = value.start_mark.line + 1
            _walk(value, (*path, index), lines, name)


def line_of(lines: Lines, path: tuple) -> int:
    """Line of a key path, or of its nearest known parent."""
    for end in range(len(path), 0, -1):
        if path[:end] in lines:
            return lines[path[:end]]
    return 1
