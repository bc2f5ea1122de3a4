"""What a run needs besides models: data, a sandbox, judges. All that is missing is told before any work."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from harness.errors import HarnessError
from harness.evaluate.lm_eval_tasks import PREFIX
from harness.evaluate.task_file import TaskFile
from harness.judging import spec_of, together
from harness.plan import JudgeStep, Plan


def check(plan: Plan, show: Callable[[str], None] = lambda what: None) -> None:
    """Raise one HarnessError that names everything which the plan's open steps lack."""
    wanted = {step.task.name: step.task for step in plan.evals_to_make()}
    missing: list[HarnessError] = []
    for what, look in _needs(wanted, plan):
        show(what)
        try:
            look()
        except HarnessError as error:
            missing.append(error)
    if len(missing) == 1:
        raise missing[0]
    if missing:
        facts = "; ".join(error.message for error in missing)
        hints = "; ".join(dict.fromkeys(h for error in missing for h in error.hint.split("; ") if h))
        raise HarnessError(f"{len(missing)} things are missing: {facts}", hints)


def _needs(tasks: dict[str, TaskFile], plan: Plan) -> Iterator[tuple[str, Callable[[], None]]]:
    for name, task in tasks.items():
        if name.startswith(PREFIX):
            yield f"data of {name}", lambda task=task: _built(task, plan.family.split)
        else:
            yield f"data of {name}", task.load
    if any(task.executes_code for task in tasks.values()):
        from harness import sandbox

        yield "the sandbox", sandbox.require
    for step in _one_of_each(step for step in plan.judges if not step.folder.complete):
        yield f"judge {step.judge.model}", lambda step=step: _judge(step)


def _built(task: TaskFile, split: str) -> None:
    from harness.evaluate.building import build

    build(task, split)


def _judge(step: JudgeStep) -> None:
    from harness.judges import Judge

    with Judge(spec_of(step.judge)) as one:
        one.check()


def _one_of_each(steps: Iterator[JudgeStep]) -> list[JudgeStep]:
    return list({together(step): step for step in steps}.values())
