"""Searches with a budget of trials: random, TPE, successive halving; the samplers are Optuna's.

A search asks for settings in batches, so that a batch shares the passes over the checkpoints. It is a
function of its seed and of the values it is told: the same search on the same results asks for the same
settings, so what is stored is its checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError
from harness.sweep.grid import Axis, Point, Span

if TYPE_CHECKING:
    import optuna

KINDS = ("grid", "random", "tpe", "halving")
STARTUP = 8  # random trials before TPE has a model
# (settings, items per task or None for all) -> one value each, higher is better; None where it failed
Measure = Callable[[Sequence[Point], int | None], Sequence[float | None]]


@dataclass(frozen=True)
class Trial:
    """One setting with its value on `limit` items of each task (None: all); None where it failed."""

    point: Point
    value: float | None
    limit: int | None


# What a search asks next: (settings, items per task or None for all); it is sent one value each.
Asking = Generator[tuple[list[Point], int | None], Sequence[float | None], list[Trial]]


def search(kind: str, axes: Mapping[str, Axis], budget: int, measure: Measure, **options: Any) -> list[Trial]:
    """Try `budget` settings by `random`, `tpe` or `halving`; every trial, in order. `options` are of
    `asking`."""
    return alone(asking(kind, axes, budget, **options), measure)


def alone(search: Asking, measure: Measure) -> list[Trial]:
    """Carry one search out."""
    try:
        wanted = next(search)
        while True:
            wanted = search.send(measure(*wanted))
    except StopIteration as ended:
        return ended.value


def asking(
    kind: str,
    axes: Mapping[str, Axis],
    budget: int,
    *,
    seed: int = 0,
    batch: int = 4,
    limit: int | None = None,
    reduction: int = 3,
    smallest: int = 16,
) -> Asking:
    """A search that asks for values and is sent them, so that several may share the passes of a batch.

    TPE (Bergstra et al., NeurIPS 2011; multivariate) proposes `batch` settings at a time. Successive halving
    (Jamieson, Talwalkar, AISTATS 2016) begins all with `smallest` items of each task, keeps the best of
    every `reduction` and multiplies the items by it, up to `limit`; a setting appears once per round."""
    if budget < 1:
        raise HarnessError(f"--budget {budget} is no number of trials", "1 or more")
    study, spaces = _study(kind, seed, budget), {key: _distribution(axis) for key, axis in axes.items()}
    if kind == "tpe":
        trials: list[Trial] = []
        while len(trials) < budget:
            asked = [study.ask(spaces) for _ in range(min(batch, budget - len(trials)))]
            trials += yield from _told(study, asked, axes, limit)
        return trials
    asked = [study.ask(spaces) for _ in range(budget)]
    if kind == "random":
        return (yield from _told(study, asked, axes, limit))
    return (yield from _halved([_point(trial, axes) for trial in asked], limit, reduction, smallest))


def _study(kind: str, seed: int, budget: int) -> optuna.Study:
    try:
        import optuna
    except ImportError as error:
        raise HarnessError(
            f"--search {kind} needs Optuna, which is not installed", "pip install 'merge-harness[search]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if kind == "tpe":
        startup = max(1, min(STARTUP, budget // 3))
        sampler: Any = optuna.samplers.TPESampler(
            seed=seed,
            multivariate=True,
            constant_liar=True,
            n_startup_trials=startup,
        )
    else:
        sampler = optuna.samplers.RandomSampler(seed=seed)
    return optuna.create_study(direction="maximize", sampler=sampler)


def _distribution(axis: Axis) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if isinstance(axis, Span):
        return FloatDistribution(axis.low, axis.high, log=axis.log)
    return CategoricalDistribution(list(range(len(axis))))  # by place: values may be lists


def _point(trial: optuna.Trial, axes: Mapping[str, Axis]) -> Point:
    """Numbers of a span to six digits: they are part of a row's name."""
    given = trial.params
    return {
        key: float(f"{given[key]:.6g}") if isinstance(axis, Span) else axis[given[key]]
        for key, axis in axes.items()
    }


def _told(
    study: optuna.Study,
    asked: Sequence[optuna.Trial],
    axes: Mapping[str, Axis],
    limit: int | None,
) -> Asking:
    from optuna.trial import TrialState

    chosen = [_point(trial, axes) for trial in asked]
    values = yield chosen, limit
    for trial, value in zip(asked, values, strict=True):
        if value is None:
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, value)
    return [Trial(point, value, limit) for point, value in zip(chosen, values, strict=True)]


def _halved(alive: list[Point], limit: int | None, reduction: int, smallest: int) -> Asking:
    trials: list[Trial] = []
    items: int | None = smallest
    while True:
        if limit is not None and items is not None and items >= limit:
            items = limit
        if len(alive) == 1 or items == limit:
            items = limit  # the last one is measured on everything
        values = yield alive, items
        found = [Trial(p, v, items) for p, v in zip(alive, values, strict=True)]
        trials += found
        if items == limit:
            return trials
        working = [trial for trial in found if trial.value is not None]
        keep = max(1, math.ceil(len(working) / reduction))
        best = sorted(working, key=lambda trial: -trial.value)[:keep]
        alive = [trial.point for trial in best]
        if not alive:
            return trials
        items = items * reduction


def best(trials: Sequence[Trial]) -> Trial | None:
    """The best trial among those measured on the most items; None where all failed."""
    done = [trial for trial in trials if trial.value is not None]
    most = max((trial.limit is None, trial.limit or 0) for trial in done) if done else None
    last = [trial for trial in done if (trial.limit is None, trial.limit or 0) == most]
    return max(last, key=lambda trial: trial.value, default=None)
