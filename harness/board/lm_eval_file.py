"""lm-eval's result files, read and checked: whatever stands in them becomes a two-line error, or a number."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from harness.board.mixing import DECODING, TEMPLATE
from harness.errors import HarnessError
from harness.evaluate.decoding import decoding
from harness.evaluate.intervals import pairs_of

OURS, THEIRS = "harness_", "lm_eval:"  # what our tasks are called in lm-eval, and its own ones here
ENGINES = {"hf": "hf", "hf-auto": "hf", "huggingface": "hf", "vllm": "vllm"}
WRITES = "`lm_eval --output_path FOLDER` writes a results_*.json"


class ResultFile:
    """A `results_*.json` of lm-eval (0.4) with the samples beside it. Raises HarnessError, which names the
    place, for a file that is none, and where a number is asked for that is none."""

    def __init__(self, path: Path) -> None:
        self.path, self.told = path, _json_of(path)
        results = self.told.get("results") if isinstance(self.told, dict) else None
        if not isinstance(results, dict) or "n-samples" not in self.told:
            raise HarnessError(f"{path} is no result file of lm-eval", WRITES)
        self.tasks: dict[str, Mapping[str, Any]] = {n: self._mapping("results", n) for n in results}
        self.config = self._mapping("config")

    @property
    def model(self) -> str:
        """The model's name, of a folder the last part; the file's name where there is none."""
        name = self.told.get("model_name")
        if not isinstance(name, str) or not name.strip():
            return self.path.stem
        return PurePath(name).name if name.startswith(("/", ".", "~")) else " ".join(name.split())

    def wrong(self, place: str, fact: str) -> HarnessError:
        return HarnessError(f"{self.path}: `{place}` {fact}", "a result file as lm-eval wrote it is needed")

    def _mapping(self, *keys: str) -> Mapping[str, Any]:
        value: Any = self.told
        for depth, key in enumerate(keys):
            value = value.get(key)
            if value is None and depth == 0:
                return {}
            if not isinstance(value, Mapping):
                raise self.wrong(".".join(keys[: depth + 1]), f"is {_short(value)}, not keys and values")
        return value

    def number(self, place: str, value: Any) -> float:
        """A finite number, or a HarnessError."""
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.wrong(place, f"is {_short(value)}, which is no number")
        try:
            found = float(value)
        except OverflowError:
            found = math.inf
        if not math.isfinite(found):
            raise self.wrong(place, f"is {_short(value)}, which is no finite number")
        return found

    def metric_key(self, task: str, wanted: str) -> str | None:
        """The key of a column's metric among a task's results: under its own name, or the only filter's."""
        given = self.tasks[task]
        if wanted in given:
            return wanted
        found = [key for key in given if key.partition(",")[0] == wanted]
        return found[0] if len(found) == 1 else None

    def metric(self, task: str, key: str, kind: str) -> dict[str, Any]:
        """`{value, stderr, n}` of a task's metric that is shown as `kind`."""
        name, _, chosen = key.partition(",")
        place = f"results.{task}.{key}"
        value, spread = self.number(place, self.tasks[task][key]), None
        if kind == "accuracy" and not 0 <= value <= 1:
            raise self.wrong(place, f"is {value:g}, and a share lies between 0 and 1")
        if kind == "perplexity" and value <= 0:
            raise self.wrong(place, f"is {value:g}, and a perplexity is above 0")
        given = f"{name}_stderr" + f",{chosen}" * bool(chosen)
        told = self.tasks[task].get(given)
        if told is not None and told != "N/A":
            spread = self.number(f"results.{task}.{given}", told)
            if spread < 0:
                raise self.wrong(f"results.{task}.{given}", f"is {spread:g}, which is below 0")
        return {"value": value, "stderr": spread, "n": self.count(task)}

    def leaves(self, task: str, above: tuple[str, ...] = ()) -> list[str]:
        """The tasks of a group, or the task itself."""
        parts = self._mapping("group_subtasks").get(task)
        if task in above or (
            parts and not (isinstance(parts, list) and all(isinstance(p, str) for p in parts))
        ):
            raise self.wrong(f"group_subtasks.{task}", f"is {_short(parts)}, not a list of tasks")
        return [leaf for part in parts for leaf in self.leaves(part, (*above, task))] if parts else [task]

    def count(self, task: str) -> int:
        """How many items were asked."""
        total = 0
        for leaf in self.leaves(task):
            told = self._mapping("n-samples").get(leaf)
            count = told.get("effective") if isinstance(told, Mapping) else None
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                fact = "is missing" if count is None else f"is {_short(count)}, which is no number of items"
                raise self.wrong(f"n-samples.{leaf}.effective", fact)
            total += count
        return total

    def settings(self, task: str) -> dict[str, Any]:
        """How it was measured, as far as the file tells, in the words of `Cell.settings`."""
        config, found = self.config, {"split": "test"}
        if "model" in config:
            found["engine"] = ENGINES.get(str(config["model"]), str(config["model"]))
        if "chat_template" in self.told:
            found[TEMPLATE] = self._template(self.told["chat_template"])
        if "limit" in config:
            found["limit"] = self._limit(config["limit"])
        own = self._mapping("configs").get(self.leaves(task)[0])
        if isinstance(own, Mapping) and isinstance(own.get("repeats"), int):
            found["repeats"] = own["repeats"]
        if isinstance(own, Mapping) and isinstance(own.get("generation_kwargs"), Mapping):
            way = decoding(dict(own["generation_kwargs"]), {})  # the command line's are among them
            found[DECODING] = {key: value for key, value in way.items() if key != "until"}
        return found | self._dtype()

    def _template(self, text: Any) -> str | bool:
        """The template's hash; whether there was one where the file has no text of it."""
        told = self.told.get("chat_template_sha")
        if isinstance(told, str) and text:
            return told
        return hashlib.sha256(text.encode()).hexdigest() if isinstance(text, str) and text else bool(text)

    def _limit(self, given: Any) -> int | str | None:
        if given is None:
            return None
        limit = self.number("config.limit", given)
        if limit <= 0 or (limit >= 1 and limit != int(limit)):
            raise self.wrong(
                "config.limit", f"is {limit:g}, which is no number of items and no share of them"
            )
        return int(limit) if limit >= 1 else f"{limit:g} of the items"

    def _dtype(self) -> dict[str, str]:
        """What was computed in; lm-eval's `auto` is the checkpoint's own."""
        given, loaded = self.config.get("model_args"), str(self.config.get("model_dtype") or "")
        if isinstance(given, Mapping):
            named = str(given.get("dtype") or "")
        else:
            match = re.search(r"(?:^|,)\s*dtype=([\w.]+)", str(given or ""))
            named = match[1] if match else ""
        named, loaded = named.removeprefix("torch."), loaded.removeprefix("torch.")
        if named in ("", "auto"):
            named = loaded if loaded == "float32" else "checkpoint" if named or loaded else ""
        return {"dtype": named} if named else {}

    def samples(self, task: str) -> list[dict[str, Any]] | None:
        """The rows of our samples files from `samples_<task>_<date>.jsonl` beside the file; None without."""
        date, leaves = self.path.stem.removeprefix("results_"), self.leaves(task)
        files = {leaf: self.path.with_name(f"samples_{leaf}_{date}.jsonl") for leaf in leaves}
        if not all(file.is_file() for file in files.values()):
            return None
        rows = []
        for leaf, file in files.items():
            seen = set()
            for place, line in _lines(file):
                row = _row(place, line)
                if (key := (row["doc_id"], row["filter"])) in seen:
                    raise _broken(place, f"item {key[0]} stands there twice")
                seen.add(key)
                rows.append({"task": leaf, **row} if leaves != [task] else row)
        return rows


def _json_of(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise HarnessError(f"{path}: {error.strerror}", "name a results_*.json of lm-eval") from error
    except (ValueError, RecursionError) as error:
        raise HarnessError(f"{path} is no JSON: {error}", "name a results_*.json of lm-eval") from error


def _lines(file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise HarnessError(f"{file} cannot be read: {error}", "mend it, or move it away") from error
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            place = f"{file}:{number}"
            try:
                sample = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise _broken(place, f"is no JSON: {error}") from error
            if not isinstance(sample, dict):
                raise _broken(place, f"is {_short(sample)}, not keys and values")
            yield place, sample


def _row(place: str, sample: Mapping[str, Any]) -> dict[str, Any]:
    """One of lm-eval's samples under the names of ours."""
    number, metrics = sample.get("doc_id"), sample.get("metrics", [])
    if isinstance(number, bool) or not isinstance(number, int) or not -(2**63) <= number < 2**63:
        raise _broken(place, f"`doc_id` is {_short(number)}, which is no item's number")
    if not isinstance(metrics, list) or not all(isinstance(name, str) for name in metrics):
        raise _broken(place, f"`metrics` is {_short(metrics)}, not a list of names")
    calls = _calls(sample.get("arguments"))
    row = {"doc_id": number, "filter": str(sample.get("filter", "none")),
           "prompt": str(calls[0][0]) if calls else "", "target": _text(sample.get("target", "")),
           **_response(sample, calls)}  # fmt: skip
    for metric in metrics:
        value = sample.get(metric)
        try:
            if pairs_of([value]):
                row |= {"loglikelihood": float(value[0]), "weight": float(value[1])}
            elif isinstance(value, (int, float)):
                row[metric] = float(value)
        except OverflowError as error:
            raise _broken(place, f"`{metric}` is {_short(value)}, which is too large") from error
    return row


def _calls(given: Any) -> list[list[Any]]:
    """The arguments of every request; newer files name them (`gen_args_0`, `arg_0`)."""
    calls = list(given.values()) if isinstance(given, Mapping) else given if isinstance(given, list) else []
    plain = [list(call.values()) if isinstance(call, Mapping) else call for call in calls]
    return [call for call in plain if isinstance(call, list) and call]


def _response(sample: Mapping[str, Any], calls: list[list[Any]]) -> dict[str, Any]:
    """What was answered: texts; or the log-likelihoods of choices, or of one text."""
    if calls and len(calls[0]) > 1 and isinstance(calls[0][1], Mapping):  # settings of generation
        given = sample.get("resps") or sample.get("filtered_resps") or []
        parts = given if isinstance(given, list) else [given]
        texts = [_text(one) for part in parts for one in (part if isinstance(part, list) else [part])]
        more = {"responses": _text(texts)} if len(texts) > 1 else {}
        return {"response": texts[0] if texts else "", "finish": "not told", **more}
    told = sample.get("filtered_resps")
    values = [_likelihood(one) for one in told] if isinstance(told, list) else []
    if len(values) > 1 and len(values) == len(calls):
        choices = [{"text": str(call[-1]), "logprob": v} for call, v in zip(calls, values, strict=True)]
        return {"response": _text(choices)}
    return {"response": str(values[0]) if len(values) == 1 else ""}


def _likelihood(one: Any) -> float | None:
    first = one[0] if isinstance(one, list) and one else one
    try:
        return float(first)
    except (TypeError, ValueError, OverflowError):
        return None


def _broken(place: str, fact: str) -> HarnessError:
    return HarnessError(f"{place}: {fact}", "mend the line, or move the file away to import without samples")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        text = "a number of thousands of digits"
    return text if len(text) <= 60 else text[:57] + "..."
