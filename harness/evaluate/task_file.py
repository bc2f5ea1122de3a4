"""Reads a benchmark's YAML without lm-eval: its columns, and the hashes that say what a result depends on.

Light: imports neither torch nor lm-eval.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.data import Source
from harness.data.identity import identity
from harness.data.source import repository
from harness.errors import HarnessError, nearest
from harness.evaluate.judged import JudgeFile, judge_of
from harness.evaluate.syntax import load_module, source
from harness.evaluate.task_yaml import Function, read, wrong
from harness.store import digest

REQUIRED = ("title", "group", "paper", "licence", "revision", "profile")
FLAGS = {"chat_template": bool, "executes_code": bool, "decoding": str, "judge": dict, "cluster": str}
HEADER = {*REQUIRED, *FLAGS, "higher_is_better", "columns"}
FLAG_HINTS = {bool: "write true or false", str: "write a word", dict: "see docs/judges.md"}
KINDS = ("accuracy", "score", "perplexity")
COLUMN = {"title", "higher_is_better", "kind", "group", "main"}
NAMES = {"task", "task_alias", "tag", "metadata", "include"}  # they change neither a request nor a score
SCORING = {"process_results", "metric_list", "filter_list", "should_decontaminate",
           "doc_to_decontamination_query"}  # fmt: skip
OUTPUTS = ("generate_until", "loglikelihood", "loglikelihood_rolling", "multiple_choice")


@dataclass(frozen=True)
class Column:
    """One column of the table. `key` is lm-eval's metric, or the judge's where `judged`; `kind` says how it
    is shown: `accuracy` in percent, `score` and `perplexity` as they are. One that is not `main` is shown,
    and counts in no average."""

    key: str
    title: str
    higher_is_better: bool
    kind: str
    group: str
    judged: bool = False
    main: bool = True


@dataclass(frozen=True)
class TaskFile:
    """A benchmark: lm-eval YAML with our header under `metadata.harness`. A group of lm-eval's has its tasks
    as `members`."""

    name: str
    path: Path
    header: dict[str, Any]
    columns: tuple[Column, ...]
    config: dict[str, Any] = field(repr=False)
    judge: JudgeFile | None = None
    members: tuple[TaskFile, ...] = ()

    @property
    def profile(self) -> str:
        return self.header["profile"]

    @property
    def chat_template(self) -> bool:
        """Whether prompts go through the chat template (where the family has one)."""
        return self.header.get("chat_template", True)

    @property
    def own_decoding(self) -> bool:
        """Whether the task's generation settings hold whatever the family says."""
        return self.header.get("decoding") == "task"

    @property
    def cluster(self) -> str | None:
        """The column of the task's rows that items share, such as a passage; None where they share none."""
        return self.header.get("cluster")

    @property
    def executes_code(self) -> bool:
        """Whether scoring runs what the model wrote."""
        return self.header.get("executes_code", False)

    @cached_property
    def source(self) -> Source | None:
        """Where fetched data comes from; None for data that is generated, or that lm-eval loads itself."""
        made = self.dataset()
        return (
            None
            if made is None or not hasattr(made, "row")
            else Source.of(self.config.get("dataset_kwargs") or {})
        )

    def load(self) -> None:
        """Read the data once, so that what is missing or malformed is known before any work."""
        if self.source is not None:
            self.dataset()(**self.config["dataset_kwargs"])

    @property
    def uses_generation(self) -> bool:
        """Whether the model writes text (as opposed to log-likelihoods of given text)."""
        first = self.members[0] if self.members else self
        return first.config.get("output_type", "generate_until") == "generate_until"

    @cached_property
    def prompt_hash(self) -> str:
        """sha256 of everything that determines the requests: settings, prompt functions, data."""
        asked = {key: self._spell(value) for key, value in self.config.items() if key not in NAMES | SCORING}
        metadata = self.config.get("metadata") or {}
        extra = {key: value for key, value in metadata.items() if key not in ("harness", "version")}
        parts = {"members": [m.prompt_hash for m in self.members]} if self.members else {"data": self._data()}
        return digest({"asked": asked, "metadata": extra, **parts})

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

    def _data(self) -> Any:
        # Data that the project generates has no revision: its content is its identity.
        if self.source is not None:
            return identity(self.source)
        made = self.dataset()
        if made is None and "/" in str(self.config.get("dataset_path")):
            return identity(repository(self.config["dataset_path"]))
        if made is None or not hasattr(made, "rows"):
            return {}  # lm-eval's own way to data: what is known of it is in the YAML
        return {split: digest(made.rows(split)) for split in made.splits}

    def dataset(self) -> Any:
        """The function that gives lm-eval the data; None where lm-eval loads it itself."""
        made = self.config.get("custom_dataset")
        if not isinstance(made, Function):
            return None
        module, _, name = made.rpartition(".")
        function = getattr(load_module(self.path.parent / f"{module}.py"), name, None)
        if function is None:
            raise HarnessError(
                f"{self.path}: `custom_dataset` names `{made}`, which does not exist",
                f"define `{name}` in {module}.py",
            )
        return function


def load_task(path: Path | str) -> TaskFile:
    """The benchmark in a YAML file. Raises HarnessError naming file, line and key for anything malformed."""
    path = Path(path)
    config = read(path)
    metadata = config.get("metadata")
    header = metadata.get("harness") if isinstance(metadata, dict) else None
    if not isinstance(header, dict):
        raise HarnessError(f"{path}: `metadata.harness` is missing", f"it holds {', '.join(REQUIRED)}")
    for key in header:
        if key not in HEADER:
            raise wrong(path, f"metadata.harness.{key}", "is not known", nearest(key, HEADER))
    for key in REQUIRED:
        if not isinstance(header.get(key), str):
            fact = f"is {header.get(key)!r}"
            raise wrong(path, f"metadata.harness.{key}", fact, "write text", "metadata.harness")
    for key, kind in FLAGS.items():
        if key in header and not isinstance(header[key], kind):
            raise wrong(path, f"metadata.harness.{key}", f"is {header[key]!r}", FLAG_HINTS[kind])
    if config.get("task") != f"harness_{path.stem}":
        raise wrong(path, "task", f"is {config.get('task')!r}", f"write `task: harness_{path.stem}`")
    output = config.get("output_type", "generate_until")
    if output not in OUTPUTS:
        raise wrong(path, "output_type", f"is {output!r}", nearest(str(output), OUTPUTS))
    if output == "generate_until" and "until" not in (config.get("generation_kwargs") or {}):
        raise wrong(
            path,
            "generation_kwargs.until",
            "is missing",
            "write `until: []`; lm-eval stops at an empty line otherwise",
            "generation_kwargs",
        )
    judge = judge_of(path, header)
    return TaskFile(path.stem, path, header, _columns(path, config, header, judge), config, judge)


def _columns(path: Path, config: dict, header: dict, judge: JudgeFile | None) -> tuple[Column, ...]:
    judged = judge.metrics if judge else ()
    metrics = [entry.get("metric") for entry in config.get("metric_list") or [] if isinstance(entry, dict)]
    if not metrics:
        raise wrong(path, "metric_list", "names no metric", "write `- {metric: accuracy, ...}`")
    given = header.get("columns")
    where = "metadata.harness" if given is None else "metadata.harness.columns"
    if given is None:
        given = {metrics[0]: {"title": header["title"], "higher_is_better": header.get("higher_is_better")}}
    if not isinstance(given, dict) or not given:
        raise wrong(path, where, f"is {given!r}", "write `metric: {title: ..., higher_is_better: true}`")
    columns = []
    for key, spec in given.items():
        spec = spec if isinstance(spec, dict) else {}
        if key not in (*metrics, *judged):
            known = nearest(str(key), map(str, (*metrics, *judged)))
            raise wrong(path, f"{where}.{key}", "is not in `metric_list`", known)
        for unknown in set(spec) - COLUMN:
            raise wrong(path, f"{where}.{key}.{unknown}", "is not known", nearest(unknown, COLUMN), where)
        if not isinstance(spec.get("higher_is_better"), bool):
            raise wrong(
                path,
                f"{where}.higher_is_better",
                f"is {spec.get('higher_is_better')!r}",
                "write true or false",
                where,
            )
        kind = spec.get("kind", "perplexity" if key.endswith("perplexity") else "accuracy")
        if kind not in KINDS:
            raise wrong(path, f"{where}.{key}.kind", f"is {kind!r}", nearest(str(kind), KINDS), where)
        main = spec.get("main", True)
        if not isinstance(main, bool):
            raise wrong(path, f"{where}.{key}.main", f"is {main!r}", "write true or false", where)
        better, title = spec["higher_is_better"], str(spec.get("title", key))
        group = spec.get("group", header["group"])
        columns.append(Column(key, title, better, kind, group, key in judged, main))
    return tuple(columns)
