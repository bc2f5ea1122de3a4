"""How each kind of step is done: read what is left of it in the store, write its own folder.

An executor (`run/local.py` here, Ray elsewhere) decides when and where; these functions do the work.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness import recipe as recipes
from harness.checkpoint import fingerprint
from harness.checkpoint.devices import devices_of
from harness.measure import Meter, peak_mib
from harness.plan import EvalStep, Plan, RowStep, ScoreStep
from harness.store import reachable, write_text

Progress = Callable[[int, int], None]
Waits = Callable[[], None]  # called while another process has a folder
KEPT = "weights_kept"  # in a merge's done.json
METHOD = "method.py"  # beside a merge's recipe: the file of a method that does not come with harness


def write_reference(row: RowStep) -> None:
    """A reference row's folder only names its checkpoint."""
    with row.folder.working(recipes.written(row.recipe)):
        row.folder.finish({"fingerprint": row.recipe.model, "checkpoint": str(row.checkpoint)})


def compute_scores(
    group: Sequence[ScoreStep],
    plan: Plan,
    progress: Progress,
    device: str = "auto",
    waits: Waits = lambda: None,
) -> dict[str, Any]:
    """The statistics of one model on the same rows, in one backward pass per row, each into its folder.
    Where the plan's estimate says that they do not fit the GPU, sums lie in host memory and activations are
    computed twice."""
    from harness import libraries

    libraries.load()
    import torch

    from harness.costs import demand, sizes
    from harness.costs.machine import machine
    from harness.family import Calibration
    from harness.scores import Against, compute
    from harness.scores.calibration import load_rows

    first, need, meter = group[0].recipe, group[0].need, Meter()
    model = plan.inputs[need.role if need.model == "expert" else "base"]
    against = None
    if need.against is not None:
        fisher = group[0].after[0].folder.path
        against = Against(plan.inputs[need.against], fisher, need.penalty)
    with contextlib.ExitStack() as stack:
        for step in sorted(group, key=lambda step: step.folder.path):
            stack.enter_context(step.folder.working(recipes.written(step.recipe), waits))
        if all(step.folder.complete for step in group):  # another process did it while this one waited
            return group[0].folder.done()
        rows = load_rows(Calibration.model_validate(first.data), plan.family.folder)
        size = sizes.of_folder(model)
        here = machine().on(device if torch.cuda.is_available() else "cpu")
        fit = size and demand.statistics(size, here, [step.recipe for step in group], len(rows))
        with meter.phase("scores"):
            facts = compute(
                model,
                rows,
                kind=[step.recipe.kind for step in group],
                loss_on=first.loss_on,
                max_tokens=first.max_tokens,
                tokenizer_path=plan.inputs["base"] if need.profile == "official" else model,
                pad=first.pad,
                dtype=first.dtype,
                accumulate=first.accumulate,
                against=against,
                offload=bool(fit and fit.offload),
                checkpointing=bool(fit and fit.offload),
                devices=devices_of(device) or (fit and fit.devices),
                to={step.recipe.kind: step.folder.path for step in group},
                progress=progress,
            )
        record = {**facts, **meter.record(), "computed_together": len(group)}
        for step in group:
            step.folder.finish(record)
    return record


def merge_rows(
    plan: Plan,
    rows: Sequence[RowStep],
    progress: Callable[[str, int, int], None],
    kept: bool = True,
    waits: Waits = lambda: None,
    **engine: Any,
) -> list[dict]:
    """Merge `rows` into their `checkpoint` folders in one set of passes; the records written to their
    `done.json`. A row whose method raised has its exception under `error` and no `done.json`. Weights that
    are not `kept` are somebody's who deletes them."""
    with contextlib.ExitStack() as stack:
        for row in sorted(rows, key=lambda row: row.folder.path):  # two processes never wait for each other
            stack.enter_context(row.folder.working(recipes.written(row.recipe), waits))
            if row.recipe.plugin is not None:
                code = recipes.file_of(type(row.method)).read_text(encoding="utf-8")
                write_text(row.folder.path / METHOD, code)
        meter = Meter()
        with meter.phase("merge"):
            records = merge_jobs(plan, rows, progress, on_error="record", **engine)
        for row, record in zip(rows, records, strict=True):
            if record["error"] is None:
                mark = fingerprint(row.checkpoint, plan.store.fingerprints if kept else None)
                together = {"code": row.recipe.code, "merged_together": len(rows), "fingerprint": mark}
                _finish(row, {**record, "peak_mib": meter.peak_mib, **together}, kept)
    return records


def _finish(row: RowStep, record: dict[str, Any], kept: bool) -> None:
    """Weights that were made again, and are the same, leave what was recorded of them as it was."""
    earlier = row.folder.done()
    again = earlier.get("fingerprint") == record["fingerprint"]
    if not again or earlier.get(KEPT, True) != kept:
        row.folder.finish({**(earlier if again else record), KEPT: kept})


def merge_jobs(
    plan: Plan,
    rows: Sequence[RowStep],
    progress: Callable[[str, int, int], None],
    alone: bool = False,
    **engine: Any,
) -> list[dict]:
    """Stream the plan's inputs once through the methods of `rows`, each into its `checkpoint` folder, which
    is no row's of the store where it stands `alone`. `engine` are keywords of `harness.merge.merge`."""
    from harness import inputs as models
    from harness.merge import Inputs, Job, merge
    from harness.scores.calibration import load_rows

    aligned = models.opened(plan)
    inputs = Inputs(aligned.base, aligned.experts, plan.inputs[plan.donor])
    steps = {s.folder.path: s for row in rows for s in row.scores.values()}
    opened = {path: models.statistic(plan, aligned, step) for path, step in steps.items()}
    jobs = []
    for row in rows:
        scores = {key: opened[step.folder.path] for key, step in row.scores.items()}
        texts = {
            role: load_rows(plan.family.calibration[role], plan.family.folder) for role in row.recipe.rows
        }
        shown = {"recipe": _card(plan, row), "rows": texts, "masks": _masks(row, alone)}
        jobs.append(Job(row.method, row.checkpoint, row.recipe.seed, scores, **shown))
    return merge(inputs, jobs, progress=progress, **engine)


def _masks(row: RowStep, alone: bool) -> Path:
    """The figures lie in the row's folder, in the model where it stands `alone` (`harness merge --to`)."""
    return (row.checkpoint if alone else row.folder.path) / "masks.json"


def _card(plan: Plan, row: RowStep) -> dict[str, Any]:
    """What the model card says of how the merge was made."""
    models = {"base": plan.family.base, **{role: e.model for role, e in plan.family.experts.items()}}
    recipe = row.recipe
    return {
        "method": recipe.method,
        "parameters": recipe.parameters,
        "seed": recipe.seed,
        "models": models,
        "family": plan.family.name,
    }


def evaluate(
    plan: Plan,
    wanted: Sequence[EvalStep],
    evaluator: Any,
    checkpoint: Path,
    progress: Callable[..., None],
    finished: Callable[[EvalStep, dict[str, Any] | Exception], None],
    waits: Waits = lambda: None,
) -> Any:
    """Evaluations of one row, whose weights are in `checkpoint`, as one stream of requests, each into its
    folder. `progress(step, done, total, tokens so far)` may raise, which ends it. `finished` is told of each
    step once, in any thread: the record, as in `done.json`, or why it failed.

    Returns when the engine is free again; what is returned has `wait()`, for the scoring."""
    from harness.evaluate.row import evaluate_row

    mark = wanted[0].row.folder.done()["fingerprint"]
    asked: dict[int, EvalStep] = {}
    requests, held = [], {}
    with contextlib.ExitStack() as stack:
        for step in sorted(wanted, key=lambda step: step.folder.path):
            held[step.folder.path] = stack.enter_context(contextlib.ExitStack())
            held[step.folder.path].enter_context(step.folder.working(recipes.written(step.recipe), waits))
        for step in wanted:
            if step.folder.complete:  # another process did it while this one waited
                finished(step, step.folder.done())
            else:
                requests.append(_request(plan, step, checkpoint, mark))
                asked[id(requests[-1])] = step

        def done(request: Any, record: dict[str, Any] | Exception) -> None:
            step = asked[id(request)]
            try:
                if isinstance(record, Exception):
                    raise record
                memory = {"parent": peak_mib(), "engine": evaluator.peak_mib()}
                record = {**record, "fingerprint": mark, "peak_mib": memory}
                with reachable(step.folder.path):
                    step.folder.finish(record)
            except Exception as error:
                record = error
            held[step.folder.path].close()
            finished(step, record)

        scoring = evaluate_row(
            evaluator, requests, lambda request, *n: progress(asked[id(request)], *n), done
        )
        stack.pop_all()  # what is still scored lets go of its folder by itself
    return scoring


def _request(plan: Plan, step: EvalStep, checkpoint: Path, mark: str) -> Any:
    from harness.evaluate import EvalRequest

    recipe, responses = step.recipe, plan.store.responses(mark, step.task.name)
    responses.parent.mkdir(parents=True, exist_ok=True)
    return EvalRequest(
        model=checkpoint,
        fingerprint=mark,
        task=step.task,
        folder=step.folder.path,
        responses=responses,
        generation=recipe.generation,
        chat_template=recipe.chat_template,
        limit=recipe.limit,
        seed=recipe.seed,
        split=recipe.split,
        repeats=recipe.repeats,
    )
