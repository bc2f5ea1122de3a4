"""The command that makes a row again, from the folder that it is printed in."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from harness import registry
from harness.family import Family
from harness.plan import Plan, RowStep
from harness.recipe import file_of


def command(plan: Plan, step: RowStep) -> str:
    """`harness compare …` of the row alone (beside its references), or `harness eval …` of a checkpoint that
    the family does not name; with everything that changes a number. Paths are from the working folder on."""
    family, tasks = plan.family, ",".join(task.name for task in plan.tasks)
    parts = ["harness", "compare"]
    if step.role == "checkpoint" and step.label not in family.checkpoints:
        parts = ["harness", "eval", _path(step.recipe.checkpoint)]
    parts += ["--family", _family(family), "--tasks", tasks]
    if step.is_merge:
        parts += ["--methods", _method(family, step)]
    if plan.limit is not None:
        parts += ["--limit", str(plan.limit)]
    seeds = len({evaluation.recipe.seed for evaluation in plan.evals})
    if parts[1] == "compare" and seeds != family.seeds:
        parts += ["--seeds", str(seeds)]
    return shlex.join([*parts, "--engine", plan.engine])


def _family(family: Family) -> str:
    """The name of one that is found by it, else its file."""
    known = registry.find("families").get(family.name)
    if known is not None and known.path.parent == family.folder.resolve():
        return family.name
    files = [family.folder / (family.name + suffix) for suffix in (".yaml", ".yml")]
    return _path(next((file for file in files if file.is_file()), files[0]))


def _method(family: Family, step: RowStep) -> str:
    """The family's label; the name of a method that is found by it, else its file."""
    label, file = step.recipe.label, file_of(type(step.method))
    known = registry.find("methods").get(step.recipe.method.partition(":")[0])
    if label in {row.label for row in family.rows()} or (known and known.path == file.resolve()):
        return label
    return _path(file)


def _path(path: Path | str) -> str:
    """From the working folder on where it lies there; never to be taken for a name."""
    near = os.path.relpath(path)
    if near.startswith(os.pardir + os.sep):
        return os.path.abspath(path)
    return near if os.sep in near else os.path.join(os.curdir, near)
