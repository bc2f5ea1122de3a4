"""Engines on the cluster: actors that stay warm from row to row, as many as there is room and use for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.cluster.needs import Needs
from harness.cluster.node import RowEngine
from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.cluster.driver import Driver, Job


@dataclass(eq=False)
class Engine:
    """One actor: `ref` is what it is at, its start at first; `job` the row that it has."""

    actor: Any
    ref: Any
    job: Job | None = None
    ready: bool = False


class Pool:
    """Rows go to whichever engine is free. Ray places the engines; the pool holds so many that what is made
    before the evaluations finds room beside them."""

    def __init__(self, driver: Driver, needs: Needs) -> None:
        self.driver, self.needs, self.ray = driver, needs, driver.ray
        self.engines: list[Engine] = []

    @property
    def refs(self) -> list[Any]:
        return [engine.ref for engine in self.engines if engine.ref is not None]

    @property
    def jobs(self) -> list[Job]:
        return [engine.job for engine in self.engines if engine.job is not None]

    @property
    def busy(self) -> bool:
        return bool(self.jobs)

    def adjust(self) -> None:
        """Start engines where there is room and use for more; end those that are in the way of a job."""
        if self.driver.blocked:  # a node was lost, and what is left is taken: the job goes first
            for engine in [e for e in self.engines if e.job is None]:
                self._end(engine)
        use = len(self.driver.rows) + len(self.jobs)
        for _ in range(min(use, self._room()) - len(self.engines)):
            options = {"max_restarts": 0, "max_task_retries": 0, **self.needs.options}
            actor = self.ray.remote(**options)(RowEngine).remote(self.driver.order, self.needs.cpus)
            self.engines.append(Engine(actor, actor.start.remote()))

    def _room(self) -> int:
        """Engines that fit the nodes beside what is reserved, each on one node."""
        free = []
        for node in self.ray.nodes():
            if node["Alive"]:
                has = node["Resources"]
                free.append([has.get("CPU", 0), has.get("GPU", 0), has.get("memory", 0)])
        for reserved in self.driver.reserved:
            wanted = reserved.cpus, reserved.gpus, reserved.memory
            fits = [f for f in free if all(a >= b for a, b in zip(f, wanted, strict=True))]
            if fits:  # Ray may place it elsewhere; then an engine waits, or `adjust` ends one
                node = max(fits, key=lambda f: (-f[1] if not reserved.gpus else 0, f[0]))
                node[:] = [a - b for a, b in zip(node, wanted, strict=True)]
        wanted = [(0, self.needs.cpus), (1, self.needs.gpus), (2, self.needs.memory)]
        return sum(int(min(f[i] // n for i, n in wanted if n)) for f in free)

    def give(self) -> None:
        """Hand waiting rows to free engines."""
        for engine in self.engines:
            if self.driver.rows and engine.ready and engine.job is None:
                engine.job = self.driver.rows.popleft()
                engine.ref = engine.actor.row.remote(*self.driver.call(engine.job))

    def answered(self, ref: Any) -> None:
        """An engine has started, or has done its row, or is lost."""
        engine = next(engine for engine in self.engines if engine.ref is ref or engine.ref == ref)
        job, engine.ref, engine.job = engine.job, None, None
        try:
            answer = self.ray.get(ref)
        except self.ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else error from None
        except self.ray.exceptions.RayError as error:
            self.engines.remove(engine)
            self._lost(job, error)
            return
        if job is None:
            engine.ready = True
        else:
            self.driver.take(job, answer)

    def _lost(self, job: Job | None, error: Exception) -> None:
        if job is not None:
            self.driver.lost(job, error, self.driver.rows.appendleft)
            return
        self.starts = getattr(self, "starts", 0) + 1
        if self.starts > 20:
            reason = next(iter(str(error).strip().splitlines()), "")
            raise HarnessError(f"no engine comes up: {reason}", "Ray's logs on the nodes say more") from error

    def _end(self, engine: Engine) -> None:
        self.engines.remove(engine)
        self.ray.kill(engine.actor)

    def close(self) -> None:
        """End all engines."""
        for engine in list(self.engines):
            self._end(engine)


__all__: Sequence[str] = ("Engine", "Pool")
