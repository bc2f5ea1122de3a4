"""What each verb of the command line does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import asked, cluster, contamination, registry
from harness import tasks as tasks_of
from harness.board import check_options, make_board
from harness.checkpoint.devices import check_device
from harness.errors import HarnessError
from harness.family import Family, model_path
from harness.plan import Plan
from harness.planner import checkpoint_plan, make_plan
from harness.screen import Screen
from harness.store import Store
from harness.train import experts
from harness.verbs import estimate, reporting
from harness.verbs.locked import locked_family


def compare(
    family: str,
    methods: Sequence[str] | None,
    tasks: Sequence[str] | None,
    limit: int | None,
    results: Path,
    merging: dict[str, Any] | None = None,
    *,
    engine: str = "auto",
    seeds: int | None = None,
    keep_weights: str = "all",
    executor: str = "local",
    address: str | None = None,
    board: dict[str, Any] | None = None,
) -> int:
    """Merge, evaluate, report; the exit code. `merging` are keywords of `harness.merge.merge`, `engine` is
    what evaluates, `keep_weights` `all` or `none`, `executor` `local` or `ray` (the cluster at `address`),
    `board` keywords of `make_board`."""
    merging, here = {"device": "auto", **(merging or {})}, executor == "local"
    if here:
        check_device(merging["device"])
    loaded, store = locked_family(family, results)
    known = asked.everything(loaded, methods, tasks)
    check_options(loaded, store, known, **(board or {}))
    wanted = {"limit": limit, "engine": engine, "known": known}
    if here:
        estimate.refuse(loaded, store, merging["device"], keep_weights=keep_weights, **wanted)
    wanted["seeds"] = seeds
    with cluster.chosen(executor, address, store, keep_weights) as session, Screen() as screen:
        if session:
            wanted |= session.chooses(engine)
        plan = make_plan(_trained(loaded, store, screen, wanted), store, **wanted, prepare=True)
        merges = sum(row.is_merge for row in plan.rows)
        screen.title(
            f"{plan.family.name}  {plan.family.title} · {merges} merges × {len(plan.tasks)} tasks · "
            f"seed {plan.family.seed}"
        )
        for row in plan.rows:
            for note in row.notes:
                screen.note(f"{row.label}: {note}")
        if session:
            given = {"methods": methods, "tasks": tasks, **wanted}
            return _run_and_report(plan, screen, plan.store.report, board, session.runner(given), **merging)
        estimate.refuse_plan(plan, merging["device"], keep_weights)
        return _run_and_report(plan, screen, plan.store.report, board, keep_weights=keep_weights, **merging)


def evaluate(
    checkpoint: str,
    family: str,
    tasks: Sequence[str] | None,
    limit: int | None,
    results: Path,
    engine: str = "auto",
) -> int:
    """Evaluate one checkpoint as the family's merges are; the exit code."""
    loaded, store = locked_family(family, results)
    path = model_path(checkpoint, Path.cwd())
    plan = checkpoint_plan(loaded, store, path, tasks=tasks, limit=limit, engine=engine)
    with Screen() as screen:
        screen.title(f"{path}  on {len(plan.tasks)} tasks of {loaded.name}")
        return _run_and_report(plan, screen, plan.store.report / plan.rows[0].folder.path.name)


def _trained(family: Family, store: Store, screen: Screen, wanted: dict[str, Any]) -> Family:
    """The family with the experts that it has trained, which are trained now if they are missing. Whatever
    else could stop the run is told before that: a stand-in has the shapes of the expert to be."""
    if experts.pending(family, store):
        from harness import inputs, ready

        plan = make_plan(experts.stand_in(family), store, **wanted, prepare=True)
        ready.check(plan, lambda what: screen.now("check", what))
        inputs.make(plan, lambda what: screen.now("convert", what))
        inputs.check(plan)
    return experts.make(family, store, screen)


def _run_and_report(
    plan: Plan,
    screen: Screen,
    folder: Path,
    board: dict[str, Any] | None = None,
    runner: Any = None,
    **how: Any,
) -> int:
    """`board` are keywords of `make_board`; `runner` carries plans out elsewhere."""
    from harness import ready
    from harness.run import carry_out

    ready.check(plan, lambda what: screen.now("check", what))
    for line in contamination.sentences(contamination.of_plan(plan)):
        screen.note(line)
    outcome = (runner or carry_out)(plan, screen, **how)
    if outcome.stored:
        screen.done("store", f"{outcome.stored} steps", "from store")
    made = make_board(plan, **(board or {}))
    code = reporting.write_reports(made, folder, screen, reporting.reports())
    if outcome.failed:
        screen.note(f"{len(outcome.failed)} steps failed; the same command tries them again, and only them")
    return outcome.exit_code or code


def merge(
    method: str, family: str, settings: dict[str, Any], results: Path, to: Path, engine: dict[str, Any]
) -> int:
    """Merge with one method into `to`; the exit code. The family's row of that name gives the settings that
    `--set` does not; `engine` are keywords of `harness.merge.merge`."""
    from harness.run import merge_to

    check_device(engine.get("device", "auto"))
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise HarnessError(f"{to} exists and is not empty", "choose a new folder, or remove this one")
    loaded, store = locked_family(family, results)
    row = next((r for r in loaded.rows() if method == r.label), None)
    given = {**(row.settings if row else {}), **settings}
    only = loaded.model_copy(update={"methods": {method: {"method": row.method if row else method, **given}}})
    wanted = {"tasks": [], "references": False}
    with Screen() as screen:
        plan = make_plan(_trained(only, store, screen, wanted), store, **wanted, lone=True)
        spelled = ", ".join(f"{k}={v}" for k, v in given.items()) or "default parameters"
        screen.title(f"{loaded.name}  {plan.rows[0].label} · {spelled}")
        for note in plan.rows[0].notes:
            screen.note(note)
        merge_to(plan, to, screen, **engine)
        screen.info(f"checkpoint: {to}")
    return 0


def judge_check(
    file: Path,
    task: str | None,
    rule: str | None,
    model: str | None,
    parameters: dict[str, Any],
    metric: str | None,
    threshold: float | None,
    results: Path,
    as_json: bool,
) -> int:
    """Print how far a task's judge, or a rule, agrees with the labels of `file`."""
    from harness.judges import Spec, rules
    from harness.judges.check import check_file
    from harness.judging import spec_of

    if (task is None) == (rule is None):
        raise HarnessError("a judge is a task's or a rule", "give --task TASK or --rule NAME, one of the two")
    if rule is not None:
        spec, ask, read = Spec("rules", rule), rules.ask, rules.read
    else:
        (found,) = tasks_of.named([task])
        if found.judge is None:
            judged = [n for n in registry.find("tasks") if tasks_of.named([n])[0].judge is not None]
            raise HarnessError(f"task `{found.name}` has no judge", "tasks with one: " + ", ".join(judged))
        judge = found.judge.but({"parameters": parameters, **({"model": model} if model else {})})
        spec, (ask, read), metric = spec_of(judge), judge.functions(), metric or judge.metric
    store = results.expanduser() / "judge-check.sqlite"
    return check_file(
        file, spec, ask, read, metric=metric or "", store=store, threshold=threshold, as_json=as_json
    )
