"""What each kind of step needs of a node: CPUs, GPUs, bytes of memory; and nodes that have it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.costs.bill import SLACK, bill
from harness.costs.demand import Need
from harness.costs.draft import Draft, find_models
from harness.costs.machine import Machine
from harness.errors import HarnessError
from harness.plan import Plan

MOST = 16  # CPUs of one step: beyond, a merge waits for its disk
GIB = 1 << 30


@dataclass(frozen=True)
class Node:
    """A node as Ray counts it: CPUs, GPUs, bytes; `machine` is what was found there."""

    id: str
    host: str
    cpus: int
    gpus: int
    memory: int
    machine: Machine


@dataclass(frozen=True)
class Needs:
    """What Ray is asked for."""

    cpus: int = 1
    gpus: int = 0
    memory: int = 0

    @property
    def options(self) -> dict[str, Any]:
        """As Ray calls them."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus, "memory": self.memory}

    def fits(self, node: Node) -> bool:
        return self.cpus <= node.cpus and self.gpus <= node.gpus and self.memory <= node.memory


@dataclass(frozen=True)
class Shares:
    """The needs of a plan's steps: `engine` of one that evaluates rows, `build` of what comes before them,
    `judge` of a judge that is a model."""

    engine: Needs
    build: dict[str, Needs]
    judge: Needs


def shares(plan: Plan, nodes: Sequence[Node], device: str = "auto") -> Shares:
    """By the plan's estimates on the largest node. HarnessError for a step that no node can hold."""
    best = max(nodes, key=lambda node: (node.gpus, node.memory))
    draft = Draft(plan.family, plan, find_models(plan.family, ask=False))
    found = bill(draft, ask=False, here=_machine(best), device=device)
    for room in found.rooms:
        if room.needed + min(SLACK, room.needed) > room.free:
            raise HarnessError(
                f"{room.folder} needs {room.needed / GIB:.1f} GiB; free are {room.free / GIB:.1f} GiB",
                "free some space, choose another file system (`--results DIR`), or fewer rows (`--methods`)",
            )
    needs: dict[str, list[Need]] = {}
    for item in found.items:
        if item.need is not None:
            needs.setdefault(item.kind, []).append(item.need)
            _refuse(item.kind, item.what, item.need, best)
    if device.startswith("cuda:") or (device == "cuda" and not best.gpus):
        why = "Ray chooses the GPU" if best.gpus else "no node has a GPU to give"
        raise HarnessError(f"--device {device}, and {why}", "auto, cpu, or cuda where nodes have GPUs")
    trains = best.gpus > 0 and device != "cpu" and any(row.recipe.rows for row in plan.merges_to_make())
    cpus = max(1, min(MOST, max(node.cpus for node in nodes) // 2))
    build = {
        "scores": Needs(cpus, _gpus(needs.get("scores", ())), _memory(needs.get("scores", ()))),
        "merge": Needs(cpus, int(trains or device == "cuda"), _memory(needs.get("merge", ()))),
    }
    judge = Needs(1, min(1, best.gpus), _memory(needs.get("judge", ())))
    return Shares(_engine(plan, nodes, needs.get("eval", ())), build, judge)


def _engine(plan: Plan, nodes: Sequence[Node], needs: Sequence[Need]) -> Needs:
    """One engine per group of GPUs that serve one model; without GPUs, two per node as in a run without Ray.
    The CPUs are so few that it fits every node that is of use."""
    memory, usable = _memory(needs), [node for node in nodes if node.gpus] or list(nodes)
    if not any(node.gpus for node in nodes):
        return Needs(max(1, min(node.cpus // 2 for node in usable)), 0, memory)
    wanted = plan.family.engine.tensor_parallel if _vllm(plan) else 1
    if wanted > (most := max(node.gpus for node in nodes)):
        raise HarnessError(
            f"`engine.tensor_parallel` is {wanted}, and no node has more than {most} GPUs",
            "lower it in the family, or add a node with more",
        )
    able = [node for node in usable if node.gpus >= wanted]
    return Needs(max(1, min(node.cpus * wanted // node.gpus // 2 for node in able)), wanted, memory)


def _vllm(plan: Plan) -> bool:
    return plan.engine == "vllm"


def _memory(needs: Sequence[Need]) -> int:
    return max((need.host for need in needs), default=0)


def _gpus(needs: Sequence[Need]) -> int:
    """Of statistics: one for each of their processes."""
    return max((need.processes for need in needs if need.gpu), default=0)


def _machine(node: Node) -> Machine:
    """The node with what Ray gives away of it."""
    return replace(node.machine, cores=node.cpus, gpus=node.machine.gpus[: node.gpus])


def _refuse(kind: str, what: str, need: Need, node: Node) -> None:
    if need.host > node.memory:
        raise HarnessError(
            f"{kind} `{what}` needs {need.host / GIB:.1f} GiB of memory; the largest node, {node.host}, "
            f"gives {node.memory / GIB:.1f} GiB",
            "add a node with more (`ray start --memory`), or leave that row or task out",
        )
    room = max((gpu.total for gpu in node.machine.gpus), default=0)
    if need.gpu > room * (len(node.machine.gpus) if need.spread else 1):
        raise HarnessError(
            f"{kind} `{what}` needs {need.gpu / GIB:.1f} GiB on a GPU; those of {node.host} have "
            f"{room / GIB:.1f} GiB",
            "use a node with larger GPUs, or leave that row out",
        )
