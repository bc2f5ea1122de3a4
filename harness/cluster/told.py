"""What workers tell the driver while they work: that they began and where, and how far they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.screen import Screen


class Board:
    """The actor that workers tell; it runs on the driver's node and needs nothing of it. Ray begins a lost
    one anew: that a job has begun, and how far it is, comes with its next line."""

    def __init__(self) -> None:
        self.where: dict[str, tuple[str, int]] = {}
        self.lines: dict[str, tuple] = {}

    def begin(self, job: str, node: str, pid: int) -> None:
        self.where[job] = node, pid

    def show(self, job: str, line: tuple, more: dict[str, Any]) -> None:
        self.lines[job] = line, more

    def take(self) -> tuple[dict, dict]:
        """What is new since the last look."""
        where, lines = self.where, self.lines
        self.where, self.lines = {}, {}
        return where, lines


class Told:
    """The driver's side of it. `where` says of each job that has begun on which node, in which process."""

    def __init__(self, ray: Any) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.ray, self.where = ray, {}
        kept = {"max_restarts": -1, "max_task_retries": -1}
        self.actor = ray.remote(num_cpus=0, scheduling_strategy=here, **kept)(Board).remote()

    def show(self, screen: Screen, jobs: Sequence[Any]) -> None:
        """Show how far `jobs` are, and mark those that have begun."""
        where, lines = self.ray.get(self.actor.take.remote())
        self.where |= where
        for job in jobs:
            job.begun |= job.name in self.where or job.name in lines
            if job.name in lines:
                line, more = lines[job.name]
                screen.now(*line, **more)

    def close(self) -> None:
        self.ray.kill(self.actor)
