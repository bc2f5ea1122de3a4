"""From names to tasks: a task, a suite of tasks, one of lm-eval's own, in the profile that is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness import registry
from harness.errors import HarnessError, nearest
from harness.evaluate.lm_eval_tasks import PREFIX, lm_eval_task
from harness.evaluate.task_file import TaskFile, load_task
from harness.evaluate.task_yaml import read, wrong

OURS = "harness_"  # what our tasks are called inside lm-eval


def named(names: Sequence[str], profile: str = "standard") -> tuple[TaskFile, ...]:
    """The tasks that `names` stand for, each once, in order.

    A name is a task's, a suite's, `lm_eval:NAME`, or a path. Under the profile `paper` a task NAME is
    `NAME_paper` where there is one. Raises HarnessError for a name that is none of these.
    """
    files: dict[str, TaskFile] = {}
    for name in names:
        for one in expanded(name):
            file = _one(one, profile)
            files.setdefault(file.name, file)
    return tuple(files.values())


def expanded(name: str) -> Iterator[str]:
    """A suite's tasks by name; anything else as it is."""
    suites = registry.find("suites")
    if name not in suites:
        yield name
        return
    path = suites[name].path
    listed = read(path).get("task")
    if not isinstance(listed, list) or not all(isinstance(task, str) for task in listed):
        raise wrong(path, "task", f"is {listed!r}", "a suite lists tasks: `task: [harness_gsm8k, arc_easy]`")
    for task in listed:
        yield task.removeprefix(OURS) if task.startswith(OURS) else PREFIX + task


def _one(name: str, profile: str) -> TaskFile:
    if name.startswith(PREFIX):
        return lm_eval_task(name.removeprefix(PREFIX))
    known = registry.find("tasks")
    if profile == "paper" and f"{name}_paper" in known:
        name = f"{name}_paper"
    if name not in known and "/" not in name and not name.endswith(".yaml"):
        raise HarnessError(f"no task is called `{name}`", nearest(name, [*known, *registry.find("suites")]))
    return load_task(registry.get("tasks", name).path)
