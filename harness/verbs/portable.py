"""What leaves this machine: texts without its paths, and a family file that stands alone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from harness import registry
from harness.family import Family, parse_family
from harness.family.files import BUILT_IN

Keys = tuple[str, ...]


class Places:
    """Replaces the paths of this machine: the longest of `known` that stands at a place becomes what `known`
    says, where "" is the folder that everything is told from."""

    def __init__(self, known: Mapping[Path, str]) -> None:
        spelled = {str(form): to for path, to in known.items() for form in (path.absolute(), path.resolve())}
        self.known = {path.rstrip("/"): to for path, to in spelled.items() if path.strip("/")}
        longest = sorted(map(re.escape, self.known), key=len, reverse=True)
        self._found = re.compile(rf"(?<![\w.])({'|'.join(longest)})(/|(?![\w-]))") if longest else None

    def text(self, text: str) -> str:
        """The text without these paths."""
        return text if self._found is None else self._found.sub(self._instead, text)

    def _instead(self, found: re.Match) -> str:
        to, more = self.known[found[1]], found[2]
        return to + more if to else "" if more else "."

    def within(self, value: Any) -> Any:
        """A JSON-like value whose texts are without them."""
        if isinstance(value, Mapping):
            return {self.within(key): self.within(part) for key, part in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.within(part) for part in value]
        return self.text(value) if isinstance(value, str) else value

    def content(self, name: str, content: bytes) -> bytes:
        """The content of a file; JSON and YAML by their values, whose spelling may escape or wrap a path."""
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            return content
        read, written = FORMS.get(Path(name).suffix, (None, None))
        if read is not None:
            try:
                value = read(text)
            except (ValueError, yaml.YAMLError):  # half written, or not what its name says: as plain text
                return self.text(text).encode()
            other = _nowhere(self.within(value))
            return content if other == value else written(other).encode()
        return self.text(text).encode()


def _nowhere(value: Any) -> Any:
    """A step's recipe without the name of the machine that made it."""
    if not isinstance(value, dict) or not isinstance(made := value.get("made_with"), dict):
        return value
    return {**value, "made_with": {key: of for key, of in made.items() if key != "host"}}


FORMS: dict[str, tuple[Callable, Callable]] = {
    ".json": (json.loads, lambda value: json.dumps(value, indent=1, ensure_ascii=False) + "\n"),
    ".yaml": (yaml.safe_load, lambda value: yaml.safe_dump(value, sort_keys=False, allow_unicode=True)),
}


def places_of(family: Family, root: Path, checkpoints: Mapping[str, str]) -> Places:
    """Everything this machine's paths can begin with: the store's `root`, the models (`checkpoints`: where a
    row's lies, by role or label), what the family names by absolute path, and the folders around."""
    outer = [Path.home()] if Path.home().name else []
    known = {path: "~" for path in outer}
    known |= {path: "" for path in (Path(__file__).parents[2], Path.cwd(), family.folder, root.parent, root)}
    known |= _named(family)
    for role, path in checkpoints.items():
        ref = _reference(family, role)
        if Path(path).is_absolute() and ref is not None and not Path(ref).expanduser().is_absolute():
            known.setdefault(Path(path), ref)
    return Places(known)


def _named(family: Family) -> dict[Path, str]:
    """The absolute paths of a family's file, each as `./NAME`."""
    found: dict[Path, str] = {}
    for text in _texts(family.model_dump(mode="json", exclude_defaults=True, exclude={"folder"})):
        path = Path(text).expanduser() if text.startswith(("/", "~/")) else None
        if path is None or path in found or path.is_relative_to(BUILT_IN):
            continue
        name = f"./{path.name}"
        found[path] = f"{name}-{len(found)}" if name in found.values() else name
    return found


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)
    elif isinstance(value, str):
        yield value


def _reference(family: Family, role: str) -> str | None:
    if role == "base":
        return family.base
    expert = family.experts.get(role)
    return expert.model if expert is not None else family.checkpoints.get(role)


def family_file(family: Family, places: Places) -> str:
    """A family file that says everything itself. Only models that come with the package are inherited from
    the family there that names them: where the package lies differs from machine to machine."""
    data = family.model_dump(mode="json", exclude_defaults=True, by_alias=True, exclude={"name", "folder"})
    for settings in data.get("methods", {}).values():  # a method's file is packed under its name
        if isinstance(settings, dict) and str(settings.get("method", "")).endswith(".py"):
            settings["method"] = Path(settings["method"]).stem
    packaged = dict(_packaged(data, family.folder))
    parent = _parent(packaged) if packaged else None
    if parent is not None:
        for keys in packaged:
            _drop(data, keys)
        data = {"extends": parent, **data}
    return yaml.safe_dump(places.within(data), sort_keys=False, allow_unicode=True)


def _packaged(data: Mapping[str, Any], folder: Path) -> Iterator[tuple[Keys, Path]]:
    """Models that lie in the package: where the family names them, and their folders."""
    places: list[Keys] = [("base",), *(("rows", label) for label in data.get("rows", {}))]
    for role in data["experts"]:
        places += [("experts", role, *rest) for rest in (("model",), ("on",), ("train", "base"))]
    for keys in places:
        value: Any = data
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        path = (folder / Path(value).expanduser()).resolve() if isinstance(value, str) else None
        if path is not None and path.is_dir() and path.is_relative_to(BUILT_IN):
            yield keys, path


def _parent(wanted: Mapping[Keys, Path]) -> str | None:
    for name, plugin in registry.find("families").items():
        if plugin.source == "built in":
            known = parse_family(plugin.path)
            data = known.model_dump(mode="json", exclude_defaults=True, by_alias=True)
            if wanted.items() <= dict(_packaged(data, known.folder)).items():
                return name
    return None


def _drop(data: dict[str, Any], keys: Keys) -> None:
    """Leave out a value, and what becomes empty by that."""
    first, *rest = keys
    if rest:
        _drop(data[first], tuple(rest))
    if not rest or not data[first]:
        del data[first]
