"""What runs on a node: one process that makes the plan again, then does the steps it is told to do."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness import judging
from harness.cluster import lease
from harness.cluster.order import Order, lacks, made_again, software
from harness.errors import HarnessError
from harness.plan import Plan
from harness.run import merging, scoring
from harness.run.evaluating import RowEvaluation
from harness.run.local import patient
from harness.run.outcome import Outcome

EVERY = 0.5  # seconds between two looks at how far a step is
APPEARS = 120.0  # seconds until what another node wrote is seen: NFS remembers for 60 what was not there
_plans: dict[str, Plan] = {}


def look(root: str, token: str, node: str, files: dict[str, str], code: bool) -> dict[str, Any]:
    """What this node has and sees: answers the driver's `token` in the store `root` with a file of its own.
    `code`: generated code will run here."""
    from harness import sandbox
    from harness.costs.machine import machine

    found: dict[str, Any] = {"software": software(), "machine": asdict(machine()), "host": platform.node()}
    try:
        found["token"] = (Path(root) / f".token-{token}").read_text(encoding="utf-8")
        (Path(root) / f".token-{token}-{node}").write_text(node, encoding="utf-8")
    except OSError as error:
        found["fault"] = (
            f"node {platform.node()} does not see the store {root}: {error.strerror}",
            "name a folder with `--results` that every node mounts at the same path, and can write",
        )
    if "fault" not in found and (lacking := lacks(files)):
        found["fault"] = lacking
    if "fault" not in found and code:
        try:
            sandbox.require()
        except HarnessError as error:
            found["fault"] = (f"node {platform.node()}: {error.message}", error.hint)
    return found


class Relay:
    """A screen on a node: the line of what runs goes to the driver, the others with the answer."""

    def __init__(self, show: Callable[..., None]) -> None:
        self.lines: list[tuple[str, tuple]] = []
        self._show, self._last = show, 0.0

    def now(self, kind: str, what: str, *share: Any, **more: Any) -> None:
        if time.monotonic() - self._last > EVERY:
            self._last = time.monotonic()
            self._show(kind, what, *share, **more)

    def done(self, *line: str) -> None:
        self.lines.append(("done", line))

    def failed(self, *line: str) -> None:
        self.lines.append(("failed", line))

    def note(self, text: str) -> None:
        self.lines.append(("note", (text,)))

    info = note


def do(order: Order, job: str, names: Sequence[str], needed: Sequence[str], told: Any, **how: Any) -> dict:
    """Carry out the steps called `names`, which are of one kind and belong together. `needed` are folders
    that others have completed. Returns what is to be shown and counted; {"stop": (fact, hint)} for what ends
    the run, as it would end one without Ray."""
    told.begin.remote(job, _node(), os.getpid())
    relay = Relay(lambda *line, **more: told.show.remote(job, line, more))
    outcome = Outcome(relay)
    try:
        plan = plan_of(order)
        named, root = plan.named(), plan.store.root
        appear([root / name for name in needed])
        steps = [named[name] for name in names]
        kind = next(kind for prefix, kind in KINDS.items() if job.startswith(prefix))
        with lease.held([step.folder.path for step in steps], relay.note):
            kind(plan, steps, outcome, **how)
    except HarnessError as error:
        return {"stop": (error.message, error.hint)}
    return {"made": outcome.made, "failed": outcome.failed, "lines": relay.lines}


def plan_of(order: Order) -> Plan:
    """Made once in a process."""
    if order.mark not in _plans:
        patient()
        _plans.clear()
        _plans[order.mark] = made_again(order)
    return _plans[order.mark]


def appear(folders: Sequence[Path], within: float = APPEARS) -> None:
    """Wait until folders that another node completed are complete here too."""
    until = time.monotonic() + within
    for folder in folders:
        while not (folder / "done.json").is_file():
            if time.monotonic() > until:
                raise HarnessError(
                    f"{folder} was completed elsewhere, and node {platform.node()} does not see it after "
                    f"{within:.0f} s",
                    "the nodes' file system must show one node's files to the others: mount NFS with "
                    "`lookupcache=positive`",
                )
            with contextlib.suppress(OSError):
                os.listdir(folder)  # makes a network file system ask its server
            time.sleep(0.2)


def _scores(plan: Plan, steps: list, outcome: Outcome, device: str) -> None:
    scoring.make_scores(plan, steps, outcome, device)


def _merge(plan: Plan, steps: list, outcome: Outcome, **merges: Any) -> None:
    """Those that a lost worker had made already are not made again."""
    wanted = {row.folder.path for row in plan.merges_to_make()}
    left = [row for row in steps if row.folder.path in wanted]
    outcome.count(len(steps) - len(left))
    merging.make_merges(plan, left, outcome, **merges)


def _row(plan: Plan, steps: list, outcome: Outcome, evaluator: Any) -> None:
    left = [step for step in steps if not step.folder.complete]
    outcome.count(len(steps) - len(left))
    if left:
        RowEvaluation(plan, left, outcome).carry_out(evaluator)


def _judge(plan: Plan, steps: list, outcome: Outcome) -> None:
    left = [step for step in steps if not step.folder.complete]
    outcome.count(len(steps) - len(left))
    if left:
        outcome.count(judging.judge(left, plan, outcome.screen, outcome.fail))


KINDS = {"scores": _scores, "merge": _merge, "eval": _row, "judge": _judge}


class RowEngine:
    """An engine with what feeds it; it stays warm from row to row."""

    def __init__(self, order: Order, threads: int) -> None:
        from harness.evaluate import Evaluator

        plan = plan_of(order)
        log = plan.store.root / "log" / f"engine-{platform.node()}-{os.getpid()}.txt"
        engine = plan.engine
        self.order = order
        self.evaluator = Evaluator(engine, settings=plan.family.engine, threads=threads, log=log)

    def start(self) -> str:
        """Start the engine and import what feeds it; the node."""
        from harness import libraries

        self.evaluator.start()
        libraries.load(libraries.EVALUATION)
        return _node()

    def row(self, job: str, names: Sequence[str], needed: Sequence[str], told: Any) -> dict:
        """All that is asked of one row; see `do`."""
        return do(self.order, job, names, needed, told, evaluator=self.evaluator)


def _node() -> str:
    import ray

    return ray.get_runtime_context().get_node_id()
