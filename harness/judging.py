"""How judge steps are done: what the stored responses say goes to the judge, its answers become metrics."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness import recipe as recipes
from harness.errors import HarnessError
from harness.evaluate.intervals import mean_stderr
from harness.evaluate.judged import JudgeFile
from harness.evaluate.rescoring import recipe_of, samples_of
from harness.judges import Spec
from harness.measure import Meter
from harness.plan import JudgeStep, Plan
from harness.screen import Screen
from harness.store import slug
from harness.task import THINK_OPEN, Score, opens_thinking, strip_thinking, thinking_of

Progress = Callable[[int, int], None]
MANNERS = ("concurrency", "retries", "backoff", "backoff_max", "longest_wait", "timeout",
           "requests_per_minute", "price", "key_env")  # fmt: skip


@dataclass(frozen=True)
class Question:
    """One text of one response that a judge is asked about."""

    doc_id: int
    part: str
    row: dict[str, Any]
    text: str


@dataclass(frozen=True)
class Answered(Question):
    """A question with what the judge said."""

    answer: Any


def spec_of(judge: JudgeFile) -> Spec:
    """The judge as `harness.judges` takes it; HarnessError for parameters that its kind does not have."""
    return Spec(judge.kind, judge.model, judge.revision, judge.parameters)


def together(step: JudgeStep) -> str:
    """Equal for steps that one judge answers."""
    recipe = step.recipe
    return recipes.digest([recipe.kind, recipe.model, recipe.given, step.judge.parameters])


def decisive(parameters: dict[str, Any]) -> dict[str, Any]:
    """The parameters that change an answer; not those that say how fast or how patiently is asked."""
    return {key: value for key, value in parameters.items() if key not in MANNERS}


def judge_all(plan: Plan, screen: Screen, fail: Callable[..., None]) -> int:
    """Judge what was answered, one judge after the other; how many steps were done. `fail(folder, kind, what,
    error)` is told of those that could not be."""
    return sum(judge(group, plan, screen, fail) for group in judge_groups(plan))


def judge_groups(plan: Plan) -> list[list[JudgeStep]]:
    """The judgements that the store lacks of what it has, by the judge that answers them."""
    groups: dict[str, list[JudgeStep]] = {}
    for step in plan.judges_to_make():
        groups.setdefault(together(step), []).append(step)
    return list(groups.values())


def judge(group: Sequence[JudgeStep], plan: Plan, screen: Screen, fail: Callable[..., None]) -> int:
    """Judge one group; how many steps were done."""
    what = f"{len(group)} evaluations by {group[0].judge.model}"
    screen.now("judge", what)
    try:
        record = judge_group(group, plan, lambda i, n: screen.now("judge", what, i, n))
    except Exception as error:
        for step in group:
            if not step.folder.complete:
                fail(step.folder, "judge", step.label, error)
        return 0
    cost = f" · {record['cost']:.2f} USD" if record.get("cost") else ""
    screen.done("judge", what, f"{record['seconds']:.1f} s{cost}")
    return len(group)


def judge_group(group: Sequence[JudgeStep], plan: Plan, progress: Progress) -> dict[str, Any]:
    """Steps with the same judge, which is loaded once; each into its folder. Returns what was asked."""
    from harness.judges import Judge

    first, meter = group[0], Meter()
    spec = spec_of(first.judge)
    asked = {step.folder.path: list(_questions(step)) for step in group}
    texts = [q.text for step in group for q in asked[step.folder.path]]
    name = slug(f"{spec.kind}-{Path(spec.model).name}", {}, recipes.digest(first.recipe.model))
    log, answered = (plan.store.root / place / name for place in ("log", "judgements"))
    log.parent.mkdir(parents=True, exist_ok=True)
    with meter.phase("judge"), Judge(spec, log=log.with_suffix(".txt"), cache=plan.store.root) as one:
        prompts, clipped = [], iter(one.clip(texts))
        for step in group:
            ask, _ = step.judge.functions()
            prompts += [ask(q.row, next(clipped)) for q in asked[step.folder.path]]
        answers = one.ask(prompts, answered.with_suffix(".sqlite"), progress)
    given = iter(answers)
    for step in group:
        questions = asked[step.folder.path]
        own = [next(given) for _ in questions]
        with step.folder.working(recipes.written(step.recipe)):
            record = _record(step, questions, own)
            step.folder.finish({**record, "judge": answers.facts, **meter.record()})
    return {**answers.facts, "seconds": meter.seconds["judge"]}


def _questions(step: JudgeStep) -> Iterator[Question]:
    """What is judged: of every response its answer, and its thinking where that is judged too. A response
    whose thinking never ended, or with nothing behind it, has no answer to be asked about."""
    import pyarrow.parquet as pq

    for sample in pq.read_table(step.evaluation.folder.path / "samples.parquet").to_pylist():
        row = json.loads(sample["row"])
        for response in json.loads(sample["responses"]):
            whole = (THINK_OPEN if opens_thinking(sample["prompt"]) else "") + response
            texts = {"answer": strip_thinking(whole)[0].strip(), "thinking": thinking_of(whole)}
            for part in step.judge.parts:
                if texts[part]:
                    yield Question(sample["doc_id"], part, row, texts[part])


def _record(step: JudgeStep, questions: Sequence[Question], answers: Sequence[Any]) -> dict[str, Any]:
    given = [
        Answered(q.doc_id, q.part, q.row, q.text, answer)
        for q, answer in zip(questions, answers, strict=True)
    ]
    record = record_of(step.judge, given, step.folder.path / "judged.parquet")
    evaluation = step.evaluation.folder.done()
    return {**record, **{key: evaluation.get(key) for key in ("rates", "tokens_per_response")}}


def record_of(judge: JudgeFile, given: Sequence[Answered], path: Path) -> dict[str, Any]:
    """Metrics of what a judge answered, how much was judged and how much of that could not be read; the
    single verdicts are written to `path`."""
    _, read = judge.functions()
    scores: list[Score] = [read(one.answer, one.row) for one in given]
    values: dict[str, dict[int, list[float]]] = {}  # of several responses to a row the mean counts
    rows = []
    for one, score in zip(given, scores, strict=True):
        found = _named(judge, one.part, score)
        for metric, value in found.items():
            values.setdefault(metric, {}).setdefault(one.doc_id, []).append(value)
        told = {"doc_id": one.doc_id, "part": one.part, "text": one.text}
        told |= {"answer": str(one.answer), "unparsed": score.unparsed, "values": json.dumps(found)}
        rows.append(told)
    _write(rows, path)
    metrics = {name: _metric(list(by_doc.values()), judge) for name, by_doc in values.items()}
    unread = {part: [s.unparsed for one, s in zip(given, scores, strict=True) if one.part == part]
              for part in judge.parts}  # fmt: skip
    for name, found in metrics.items():
        flags = unread["thinking" if name.endswith("_thinking") else "answer"]
        found["unparsed"] = sum(flags) / len(flags)
    unparsed = {part: sum(flags) for part, flags in unread.items()}
    return {"metrics": metrics, "judged": len(scores), "unparsed": unparsed}


def reread(judge: JudgeFile, judged: Path, to: Path) -> dict[str, Any]:
    """The record of a judgement's folder by the task's `read` of today, on the judge's stored answers; the
    verdicts are written into the folder `to`. HarnessError where the evaluation is gone that it judges."""
    import pyarrow.parquet as pq

    recipe = recipe_of(judged)
    about = [path for path in judged.parent.glob(f"*--{str(recipe.get('evaluation'))[:8]}") if path != judged]
    if not about:
        raise HarnessError(f"the evaluation that {judged} judges is gone", "`harness compare` makes it anew")
    rows = {doc: json.loads(row["row"]) for (_, doc), row in samples_of(about[0]).items()}
    told = pq.read_table(judged / "judged.parquet").to_pylist()
    kind = float if recipe["kind"] == "reward" else str
    given = [Answered(t["doc_id"], t["part"], rows[t["doc_id"]], t["text"], kind(t["answer"])) for t in told]
    return record_of(replace(judge, parts=tuple(recipe["parts"])), given, to / "judged.parquet")


def _metric(by_doc: list[list[float]], judge: JudgeFile) -> dict[str, Any]:
    means = [sum(values) / len(values) for values in by_doc]
    return {"value": sum(means) / len(means), "stderr": mean_stderr(means), "n": len(means),
            "higher_is_better": judge.higher_is_better}  # fmt: skip


def _named(judge: JudgeFile, part: str, score: Score) -> dict[str, float]:
    """Metric -> value; those of the thinking under their own names."""
    found = score.values(judge.metric)
    return found if part == "answer" else {f"{name}_{part}": value for name, value in found.items()}


def _write(rows: list[dict[str, Any]], path: Path) -> None:
    from harness.evaluate.results import write_samples

    write_samples(rows, path)
