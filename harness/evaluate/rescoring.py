"""A stored evaluation scored again: the task's scorer of today on the responses that lie in its samples.

Light at import; what it calls imports lm-eval.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from harness.errors import HarnessError
from harness.evaluate import EvalRequest
from harness.evaluate.task_file import TaskFile
from harness.task import THINK_OPEN, opens_thinking

Samples = Mapping[tuple[str, int], dict[str, Any]]
ELSE = "`harness compare` measures it anew"


def rescored(file: TaskFile, folder: Path, to: Path, kept: dict[Any, Any]) -> dict[str, Any]:
    """The record (as of `Evaluator.evaluate`) of the evaluation in `folder`, with its samples written into
    the folder `to`. `kept` holds what was built for evaluations before it that asked the same.

    Raises HarnessError where that cannot be done: the samples are not there, the task asks something else by
    now, its data is not here, or what its score rests on is not in the samples."""
    from harness.evaluate.building import asked_by
    from harness.evaluate.measure import log_to, scored

    recipe, samples = recipe_of(folder), samples_of(folder)
    if recipe.get("prompts") != file.prompt_hash:
        raise HarnessError(f"task `{file.name}` asks something else now than when it was measured", ELSE)
    _refuse_greedy(file)
    settings = {name: recipe[name] for name in ("generation", "limit", "seed", "split", "repeats")}
    request = EvalRequest(to, "", file, to, to, chat_template=False, **settings)
    with log_to(to / "log.txt"):
        asked = asked_by(request, {}, None, None, kept)
        several = len(asked.built) > 1
        answers = {
            kind: list(_answers(kind, questions, samples, several))
            for kind, questions in asked.questions.items()
        }
        return scored(request, asked, answers)


def recipe_of(folder: Path) -> dict[str, Any]:
    """A stored recipe as plain data."""
    try:
        found = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise HarnessError(f"{folder / 'recipe.yaml'} cannot be read", ELSE) from error
    if not isinstance(found, dict):
        raise HarnessError(f"{folder / 'recipe.yaml'} is no recipe", ELSE)
    return found


def samples_of(folder: Path) -> Samples:
    """By lm-eval's task (of a group) and document; of several filters the first."""
    import pyarrow.parquet as pq

    path = folder / "samples.parquet"
    if not path.is_file():
        raise HarnessError(f"there is no {path}", ELSE)
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for row in pq.read_table(path).to_pylist():
        found.setdefault((row.get("task") or "", row["doc_id"]), row)
    return found


def _refuse_greedy(file: TaskFile) -> None:
    """Whether a continuation is the model's own is told to lm-eval's scorer, and not kept in the samples."""
    for part in file.members or (file,):
        output = part.config.get("output_type")
        metrics = {entry.get("metric") for entry in part.config.get("metric_list") or ()}
        if output == "loglikelihood" or (output == "multiple_choice" and "exact_match" in metrics):
            raise HarnessError(f"task `{file.name}` is scored by greedy decoding, which is not stored", ELSE)


def _answers(kind: str, questions: list, samples: Samples, several: bool) -> Iterator[dict[str, Any]]:
    """What was answered to each request, in their order."""
    seen: Counter[tuple[str, int]] = Counter()
    for question in questions:
        instance = question.instance
        key = (instance.task_name if several else "", instance.doc_id)
        if key not in samples:
            raise HarnessError(f"the samples have no item {instance.doc_id}", ELSE)
        yield _answer(kind, instance, samples[key], seen[key])
        seen[key] += 1


def _answer(kind: str, instance: Any, row: dict[str, Any], nth: int) -> dict[str, Any]:
    told = row["response"]
    if kind == "generate_until":
        texts = json.loads(row["responses"]) if row.get("responses") else [told]
        if not row.get("responses") and instance.repeats > 1:
            texts = json.loads(told)
        # a scorer is shown the tag that the prompt had opened, and the prompts here have no chat template
        opened = opens_thinking(row["prompt"]) and not opens_thinking(instance.args[0])
        text = (THINK_OPEN if opened else "") + texts[nth]
        return {"text": text, "tokens": row["tokens"] or 0, "finish": row["finish"]}
    if kind == "loglikelihood":
        choices = json.loads(told)
        # without a chat template lm-eval puts a blank before a choice
        if not isinstance(choices, list) or choices[nth]["text"].strip() != instance.args[-1].strip():
            raise HarnessError(f"item {row['doc_id']} has other choices than the task", ELSE)
        return {"logprob": choices[nth]["logprob"], "greedy": False}
    return {"logprob": float(told), "greedy": False}
