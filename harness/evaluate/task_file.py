"""Reads a benchmark's YAML without lm-eval: its columns, and the hashes that say what a result depends on.

Light: imports neither torch nor lm-eval.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from harness.errors import HarnessError, nearest
from harness.evaluate.syntax import load_module, source
from harness.store import digest

REQUIRED = ("title", "group", "paper", "licence", "revision", "profile")
HEADER = {*REQUIRED, "higher_is_better", "columns"}
COLUMN = {"title", "higher_is_better", "kind", "group"}
NAMES = {"task", "task_alias", "tag", "metadata", "include"}  # they change neither a request nor a score
SCORING = {"process_results", "metric_list", "filter_list", "should_decontaminate",
           "doc_to_decontamination_query"}  # fmt: skip
OUTPUTS = ("generate_until", "loglikelihood", "loglikelihood_rolling", "multiple_choice")


@dataclass(frozen=True)
class Column:
    """One column of the table. `key` is the lm-eval metric, `kind` is `accuracy` or `perplexity`, ..."""

    key: str
    title: str
    higher_is_better: bool
    kind: str
    group: str


class Function(str):
    """A `!function file.name` of a task's YAML, unresolved."""


@dataclass(frozen=True)
class TaskFile:
    """A benchmark: lm-eval YAML with our header under `metadata.harness`."""

    name: str
    path: Path
    header: dict[str, Any]
    columns: tuple[Column, ...]
    config: dict[str, Any] = field(repr=False)

    @property
    def uses_generation(self) -> bool:
        """Whether the model writes text (as opposed to log-likelihoods of given text)."""
        return self.config.get("output_type", "generate_until") == "generate_until"

    @cached_property
    def prompt_hash(self) -> str:
        """sha256 of everything that determines the requests: settings, prompt functions, data."""
        asked = {key: self._spell(value) for key, value in self.config.items() if key not in NAMES | SCORING}
        metadata = self.config.get("metadata") or {}
        extra = {key: value for key, value in metadata.items() if key not in ("harness", "version")}
        return digest({"asked": asked, "metadata": extra, "data": self._data()})

    @cached_property
    def score_hash(self) -> str:
        """sha256 of `prompt_hash` and the scorers' syntax trees (comments and docstrings aside)."""
        scoring = {key: self._spell(value) for key, value in self.config.items() if key in SCORING}
        return digest({"prompt": self.prompt_hash, "scoring": scoring})

    def split(self, name: str) -> str:
        """The data split that is evaluated as `test` or `validation`; HarnessError when there is none."""
        found = self.config.get(f"{name}_split")
        if name == "test" and found is None:
            found = self.config.get("validation_split")  # as lm-eval does
        if found is None:
            has = [k.removesuffix("_split") for k in ("test_split", "validation_split") if k in self.config]
            raise HarnessError(f"task `{self.name}` has no split `{name}`", nearest(name, has))
        return found

    def _spell(self, value: Any) -> Any:
        if isinstance(value, Function):
            return source(self.path.parent, value, self.path)
        if isinstance(value, dict):
            return {str(key): self._spell(part) for key, part in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._spell(part) for part in value]
        return value

    def _data(self) -> dict[str, str]:
        # Data that the project generates has no revision: its content is its identity.
        made = self.config.get("custom_dataset")
        if not isinstance(made, Function):
            return {}
        module, _, name = made.rpartition(".")
        function = getattr(load_module(self.path.parent / f"{module}.py"), name, None)
        if function is None:
            raise HarnessError(
                f"{self.path}: `custom_dataset` names `{made}`, which does not exist",
                f"define `{name}` in {module}.py",
            )
        if not hasattr(function, "rows"):
            return {}  # fetched data: its reference and revision are in the YAML
        return {split: digest(function.rows(split)) for split in function.splits}


def load_task(path: Path | str) -> TaskFile:
    """The benchmark in a YAML file. Raises HarnessError naming file, line and key for anything malformed."""
    path = Path(path)
    config = _read(path, ())
    metadata = config.get("metadata")
    header = metadata.get("harness") if isinstance(metadata, dict) else None
    if not isinstance(header, dict):
        raise HarnessError(f"{path}: `metadata.harness` is missing", f"it holds {', '.join(REQUIRED)}")
    for key in header:
        if key not in HEADER:
            raise _wrong(path, f"metadata.harness.{key}", "is not known", nearest(key, HEADER))
    for key in REQUIRED:
        if not isinstance(header.get(key), str):
            fact = f"is {header.get(key)!r}"
            raise _wrong(path, f"metadata.harness.{key}", fact, "write text", "metadata.harness")
    if config.get("task") != f"harness_{path.stem}":
        raise _wrong(path, "task", f"is {config.get('task')!r}", f"write `task: harness_{path.stem}`")
    output = config.get("output_type", "generate_until")
    if output not in OUTPUTS:
        raise _wrong(path, "output_type", f"is {output!r}", nearest(str(output), OUTPUTS))
    if output == "generate_until" and "until" not in (config.get("generation_kwargs") or {}):
        raise _wrong(
            path,
            "generation_kwargs.until",
            "is missing",
            "write `until: []`; lm-eval stops at an empty line otherwise",
            "generation_kwargs",
        )
    return TaskFile(path.stem, path, header, _columns(path, config, header), config)


def _columns(path: Path, config: dict, header: dict) -> tuple[Column, ...]:
    metrics = [entry.get("metric") for entry in config.get("metric_list") or [] if isinstance(entry, dict)]
    if not metrics:
        raise _wrong(path, "metric_list", "names no metric", "write `- {metric: accuracy, ...}`")
    given = header.get("columns")
    where = "metadata.harness" if given is None else "metadata.harness.columns"
    if given is None:
        given = {metrics[0]: {"title": header["title"], "higher_is_better": header.get("higher_is_better")}}
    if not isinstance(given, dict) or not given:
        raise _wrong(path, where, f"is {given!r}", "write `metric: {title: ..., higher_is_better: true}`")
    columns = []
    for key, spec in given.items():
        spec = spec if isinstance(spec, dict) else {}
        if key not in metrics:
            known = nearest(str(key), map(str, metrics))
            raise _wrong(path, f"{where}.{key}", "is not in `metric_list`", known)
        for unknown in set(spec) - COLUMN:
            raise _wrong(path, f"{where}.{key}.{unknown}", "is not known", nearest(unknown, COLUMN), where)
        if not isinstance(spec.get("higher_is_better"), bool):
            raise _wrong(
                path,
                f"{where}.higher_is_better",
                f"is {spec.get('higher_is_better')!r}",
                "write true or false",
                where,
            )
        kind = spec.get("kind", "perplexity" if key.endswith("perplexity") else "accuracy")
        columns.append(
            Column(
                key,
                str(spec.get("title", key)),
                spec["higher_is_better"],
                kind,
                spec.get("group", header["group"]),
            )
        )
    return tuple(columns)


class _Loader(yaml.SafeLoader):
    pass


_Loader.add_constructor("!function", lambda loader, node: Function(loader.construct_scalar(node)))


def _read(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
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
        base |= _read(path.parent / name, (*seen, path))
    return base | config


def _wrong(path: Path, key: str, fact: str, hint: str, near: str | None = None) -> HarnessError:
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
