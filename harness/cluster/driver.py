"""The driver of a run on a cluster: which steps can go, what they need, what became of them.

Where they go is Ray's decision. A step whose worker or node is lost is sent again, elsewhere if need be; one
that fails by its own error is not, and fails alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import judging
from harness.cluster import node
from harness.cluster.needs import Needs, shares
from harness.cluster.order import Order
from harness.cluster.pool import Pool
from harness.cluster.told import Told
from harness.errors import HarnessError
from harness.plan import EvalStep, Plan
from harness.run import merging, scoring
from harness.run.evaluating import row_groups
from harness.run.local import begin
from harness.run.outcome import Outcome
from harness.screen import Screen

if TYPE_CHECKING:
    from harness.cluster.session import Session

WORKERS, NODES = 3, 10  # how often a step may lose its worker, its node, before it has failed
LOOK = 1.0  # seconds between two looks at progress and at the cluster


@dataclass(eq=False)
class Job:
    """Steps that are done together, all of one kind; `needed` are steps that others have completed before."""

    kind: str
    what: str
    steps: Sequence[Any]
    needed: Sequence[str] = ()
    lost_on: list[str | None] = field(default_factory=list)
    begun: bool = False
    number: int = 0
    then: Callable[[], None] = field(default=lambda: None)

    @property
    def name(self) -> str:
        return f"{self.kind} {self.number}.{len(self.lost_on)}"


class Driver:
    """One carrying-out of one plan on one cluster."""

    def __init__(self, session: Session, plan: Plan, order: Order, screen: Screen, merges: dict) -> None:
        self.session, self.plan, self.ray = session, plan, session.ray
        self.outcome, self.merges = Outcome(screen), merges
        self.shares = shares(plan, session.nodes, merges.get("device", "auto"))
        self.order = self.ray.put(order)
        self.told = Told(self.ray)
        self.building: dict[Any, Job] = {}
        self.rows: deque[Job] = deque()
        self.pool = Pool(self, self.shares.engine)
        self.count = 0

    def all(self) -> Outcome:
        """Everything that the store lacks."""
        plan, outcome = self.plan, self.outcome
        merges, evals = plan.merges_to_make(), plan.evals_to_make()
        begin(plan, outcome)
        lost = merging.make_sources(plan, outcome) if merges or evals else set()
        groups = row_groups([step for step in evals if step.row.checkpoint not in lost])
        try:
            made = {row.folder.path for row in merges}
            self._queue([group for group in groups if group[0].row.folder.path not in made])
            if merges:
                merging.check_inputs(plan, outcome)
                self._build(merges, [group for group in groups if group[0].row.folder.path in made])
            self._until_done()
            self.pool.close()  # a judge may need its memory
            self._judge()
            self._until_done()
        finally:
            self.cancel()
        return outcome

    def _build(self, merges: Sequence[Any], merged: Sequence[list[EvalStep]]) -> None:
        """Statistics, each group once those that it reads are there; then the merges; then their rows."""
        waiting = scoring.score_groups(self.plan, merges)

        def go_on() -> None:
            for group in list(waiting):
                ahead = {step.folder.path for other in waiting if other is not group for step in other}
                if scoring.reads(group) & (ahead | self._computing):
                    continue
                waiting.remove(group)
                if not self._unread(group):
                    reads = sorted(self._name(path) for path in scoring.reads(group))
                    what = ", ".join(step.label for step in group)
                    self._submit(Job("scores", what, group, reads, then=go_on))
            if not waiting and not self._computing:
                self._merge(scoring.with_scores(merges, self.outcome), merged)

        go_on()

    @property
    def _computing(self) -> set[Path]:
        jobs = [job for job in self.building.values() if job.kind == "scores"]
        return {step.folder.path for job in jobs for step in job.steps}

    def _unread(self, group: Sequence[Any]) -> bool:
        """Whether a statistic that the group reads is not there, as it failed."""
        if all((path / "done.json").is_file() for path in scoring.reads(group)):
            return False
        for step in group:
            self.outcome.fail(step.folder, "scores", step.label, "a statistic that it reads failed")
        return True

    def _merge(self, rows: Sequence[Any], merged: Sequence[list[EvalStep]]) -> None:
        if not rows:
            return
        what = rows[0].label if len(rows) == 1 else f"{len(rows)} merges in shared passes"
        reads = sorted({self._name(s.folder.path) for row in rows for s in row.scores.values()})
        self._submit(Job("merge", what, rows, reads, then=lambda: self._queue(merged)))

    def _queue(self, groups: Sequence[list[EvalStep]]) -> None:
        """Rows to evaluate, where their models are there."""
        for group in groups:
            row = group[0].row
            if row.folder.complete:
                self.rows.append(self._numbered(Job("eval", row.label, group, [self._name(row.folder.path)])))

    def _judge(self) -> None:
        """Judges that are models of ours go to nodes; who is asked over a network, and rules, judge here."""
        for group in judging.judge_groups(self.plan):
            if group[0].judge.kind in ("chat", "rules"):
                made = judging.judge(group, self.plan, self.outcome.screen, self.outcome.fail)
                self.outcome.count(made)
                continue
            needed = [self._name(step.evaluation.folder.path) for step in group]
            self._submit(Job("judge", f"{len(group)} evaluations by {group[0].judge.model}", group, needed))

    def _numbered(self, job: Job) -> Job:
        self.count += 1
        job.number = self.count
        return job

    def _submit(self, job: Job) -> None:
        if not job.number:
            self._numbered(job)
        needs = self.shares.judge if job.kind == "judge" else self.shares.build[job.kind]
        remote = self.ray.remote(max_retries=0, **needs.options)(node.do)
        self.building[remote.remote(*self.call(job, True), **self._how(job, needs))] = job

    def call(self, job: Job, order: bool = False) -> tuple:
        """The arguments of a worker that does the job."""
        names = [self._name(step.folder.path) for step in job.steps]
        told = (job.name, names, list(job.needed), self.told.actor)
        return (self.order, *told) if order else told

    def _how(self, job: Job, needs: Needs) -> dict[str, Any]:
        if job.kind == "scores":
            return {"device": self.merges.get("device", "auto")}
        if job.kind == "merge":
            return {"threads": needs.cpus, **self.merges}
        return {}

    def _name(self, path: Path) -> str:
        return path.relative_to(self.plan.store.root).as_posix()

    @property
    def reserved(self) -> list[Needs]:
        """What jobs before the evaluations take, running or waiting."""
        return [self.shares.build.get(job.kind, self.shares.judge) for job in self.building.values()]

    @property
    def blocked(self) -> bool:
        """Whether a job waits for room."""
        return any(not job.begun for job in self.building.values())

    def _until_done(self) -> None:
        while self.building or self.rows or self.pool.busy:
            self.pool.adjust()
            self.pool.give()
            refs = [*self.building, *self.pool.refs]
            ready = self.ray.wait(refs, num_returns=1, timeout=LOOK)[0] if refs else ()
            self.told.show(self.outcome.screen, [*self.building.values(), *self.pool.jobs])
            for ref in ready:
                if ref in self.building:
                    self._answered(self.building.pop(ref), ref, self._submit)
                else:
                    self.pool.answered(ref)

    def _answered(self, job: Job, ref: Any, again: Callable[[Job], None]) -> None:
        """Take an answer in; or send the job again whose worker was lost."""
        errors = self.ray.exceptions
        try:
            answer = self.ray.get(ref)
        except errors.RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else error from None
        except errors.RayError as error:
            self.lost(job, error, again)
            return
        self.take(job, answer)

    def take(self, job: Job, answer: dict[str, Any]) -> None:
        """Show and count what a worker answered."""
        if "stop" in answer:
            raise HarnessError(*answer["stop"])
        screen, outcome = self.outcome.screen, self.outcome
        for kind, line in answer["lines"]:
            outcome.warn(line) if kind == "note" else getattr(screen, kind)(*line)
        outcome.count(answer["made"])
        outcome.failed += answer["failed"]
        if answer["made"]:
            node.appear([step.folder.path for step in job.steps if _completed(job, step, answer)])
        job.then()

    def lost(self, job: Job, error: Exception, again: Callable[[Job], None]) -> None:
        """A worker or node was lost with the job."""
        where, _ = self.told.where.pop(job.name, (None, 0))
        job.lost_on.append(where)
        alive = {None, *(entry["NodeID"] for entry in self.ray.nodes() if entry["Alive"])}
        # counted anew each time: that a node is dead is known some seconds after its worker is gone
        workers = sum(place in alive for place in job.lost_on)
        died = "its worker" if where in alive else "its node"
        if workers > WORKERS or len(job.lost_on) - workers > NODES:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            for step in [step for step in job.steps if not step.folder.complete]:
                label = getattr(step, "label", job.what)
                self.outcome.fail(step.folder, job.kind, label, f"{died} was lost each time: {reason}")
            job.then()
            return
        job.begun = False
        self.outcome.screen.note(f"{job.kind} {job.what}: {died} was lost; sent again")
        again(job)

    def cancel(self) -> None:
        """End what runs; a folder that was not completed stays incomplete, and the next run goes on there."""
        self.pool.close()
        for force in (False, True):
            for ref in self.building:
                self.ray.cancel(ref, force=force)
            if self.building:
                done, _ = self.ray.wait(list(self.building), num_returns=len(self.building), timeout=5.0)
                self.building = {ref: job for ref, job in self.building.items() if ref not in done}
        self.building.clear()
        self.told.close()


def _completed(job: Job, step: Any, answer: dict[str, Any]) -> bool:
    """Whether a step's folder must be complete now. Tasks of a collapsed merge may not have been asked."""
    return answer["made"] == len(job.steps) or (job.kind != "eval" and not step.folder.failed)
