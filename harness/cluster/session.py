"""The connection to a Ray cluster: reached, or told in two lines; its nodes checked before any work."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness.cluster.needs import Node
from harness.cluster.order import Order, order_of, software
from harness.costs.machine import Gpu, Machine
from harness.errors import HarnessError
from harness.plan import Plan
from harness.run.outcome import Outcome
from harness.screen import Screen
from harness.store import Store

SECONDS = 10.0  # until a machine that does not answer is given up
KNOWN = 60.0  # until all know that a node has joined or gone: a dead one is noticed after some ten
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "error", "RAY_DEDUP_LOGS": "0",
         "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1", "GLOG_minloglevel": "3"}  # fmt: skip


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[Session]:
    """A session on the cluster at `address`, or of RAY_ADDRESS, or on one of this machine alone, which ends
    with the session."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    address = address or os.environ.get("RAY_ADDRESS")
    if address is not None:
        _reach(address)
    session = Session(address)
    try:
        yield session
    finally:
        session.close()


class Session:
    """A cluster as one run uses it."""

    def __init__(self, address: str | None) -> None:
        import ray

        self.ray, self.address = ray, address or "this machine"
        options = {"log_to_driver": False, "logging_level": "ERROR"}
        here = {"include_dashboard": False} if address is None else {}
        try:
            with contextlib.redirect_stdout(sys.stderr):
                ray.init(address=address or "local", **options, **here)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise HarnessError(f"no Ray cluster at {self.address}: {reason}", _HINT) from error
        self.nodes: list[Node] = []
        self._tells = _Tells()

    def check(self, store: Store, files: Mapping[str, str] | None = None, code: bool = False) -> None:
        """Raise HarnessError unless every node sees the store, has the same software and the same plugin
        `files` (path -> sha256), and a sandbox where `code` will run."""
        store.prepare()
        root, token = store.root.resolve(), secrets.token_hex(8)
        own = root / f".token-{token}"
        own.write_text(token, encoding="utf-8")
        try:
            nodes = [node for node in self.ray.nodes() if node["Alive"]]
            ask = functools.partial(self._look, root=root, token=token, files=dict(files or {}), code=code)
            asked = [ask(node) for node in nodes]
            said = [self._answer(node, ref, ask) for node, ref in zip(nodes, asked, strict=True)]
            found = [self._seen(*pair, root, token) for pair in zip(nodes, said, strict=True) if pair[1]]
        finally:
            for file in root.glob(f".token-{token}*"):
                file.unlink(missing_ok=True)
        self.nodes = [node for node in found if node.cpus]
        if not self.nodes:
            raise HarnessError(f"no node of {self.address} has a CPU to give", "start Ray with `--num-cpus`")

    def _look(self, node: dict, root: Path, token: str, files: dict, code: bool) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        def probe(*given: Any) -> dict:  # sent by value: the node may not have our package
            import platform

            try:
                from harness.cluster.node import look
            except ImportError as error:
                return {"fault": (f"node {platform.node()} cannot import the harness: {error}",
                                  "install the same version on every node")}  # fmt: skip
            return look(*given)

        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        remote = self.ray.remote(num_cpus=0, max_retries=1, scheduling_strategy=there)(probe)
        return remote.remote(str(root), token, node["NodeID"], files, code)

    def _answer(self, node: dict, ref: Any, again: Callable[[dict], Any]) -> dict | None:
        """What a node says; None where it has left the cluster since it was listed. It takes a while until
        all know that one has joined or gone, so one that cannot be asked is asked again."""
        errors, until = self.ray.exceptions, time.monotonic() + KNOWN
        while True:
            try:
                return self.ray.get(ref, timeout=300)
            except errors.RayError as error:
                if not any(one["NodeID"] == node["NodeID"] and one["Alive"] for one in self.ray.nodes()):
                    return None
                if isinstance(error, errors.RayTaskError) or time.monotonic() > until:
                    reason = next(iter(str(error).strip().splitlines()), "")
                    where, kind = node["NodeManagerHostname"], type(error).__name__
                    raise HarnessError(f"node {where} did not answer: {kind}: {reason}", _LOGS) from error
            time.sleep(1.0)
            ref = again(node)

    def _seen(self, node: dict, found: dict[str, Any], root: Path, token: str) -> Node:
        if "fault" in found:
            raise HarnessError(*found["fault"])
        host = found["host"]
        if found["token"] != token or not _written(root, f".token-{token}-{node['NodeID']}"):
            raise HarnessError(
                f"the store {root} on node {host} is not the one on {platform.node()}",
                "name a folder with `--results` that every node mounts at the same path",
            )
        for name, mine in software().items():
            if (theirs := found["software"].get(name)) != mine:
                raise HarnessError(
                    f"{name} is {theirs} on node {host} and {mine} on {platform.node()}",
                    "install the same versions on every node: results would differ",
                )
        machine = Machine(**{**found["machine"], "gpus": tuple(Gpu(**g) for g in found["machine"]["gpus"])})
        has = {name: int(node["Resources"].get(name, 0)) for name in ("CPU", "GPU", "memory")}
        return Node(node["NodeID"], host, has["CPU"], has["GPU"], has["memory"], machine)

    def order(self, plan: Plan, wanted: Mapping[str, Any]) -> Order:
        """What workers are told of the plan, which was made with the keywords `wanted`; its files checked on
        every node."""
        order = order_of(plan, wanted)
        code = any(step.task.executes_code for step in plan.evals_to_make())
        if order.files or code:
            self.check(plan.store, order.files, code)
        return order

    @property
    def has_gpus(self) -> bool:
        return any(node.gpus for node in self.nodes)

    def chooses(self, engine: str) -> dict[str, Any]:
        """Keywords of `make_plan` that say where engines run; `auto` is vllm where it is installed and a node
        has a GPU."""
        if engine == "auto":
            engine = "vllm" if self.has_gpus and find_spec("vllm") else "hf"
        return {"engine": engine, "on_gpu": self.has_gpus}

    def runner(self, wanted: Mapping[str, Any]) -> Callable[..., Outcome]:
        """`carry_out` for a plan that was made with the keywords `wanted`."""
        return functools.partial(self.carry_out, {k: v for k, v in wanted.items() if k != "known"})

    def carry_out(self, wanted: Mapping[str, Any], plan: Plan, screen: Screen, **merges: Any) -> Outcome:
        """As `harness.run.carry_out`, on the cluster, which is left afterwards; `wanted` are the keywords
        that the plan was made with. Ctrl-C cancels what runs."""
        from harness.cluster.driver import Driver

        plan.store.prepare()
        log = plan.store.root / "log"
        log.mkdir(parents=True, exist_ok=True)
        with (log / "ray.txt").open("a", encoding="utf-8") as file, contextlib.redirect_stdout(file):
            self._tells.resume()
            try:
                return Driver(self, plan, self.order(plan, wanted), screen, merges).all()
            finally:
                self.close()

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        if self.ray.is_initialized():
            self.ray.shutdown()
        self._tells.resume()


class _Tells:
    """Ray tells of lost nodes on standard output, which is for the table, also of those lost before this run:
    nothing is told until `resume`, when standard output goes to a file."""

    def __init__(self) -> None:
        from ray._private import worker

        self._worker, self._tell = worker, worker.print_to_stdstream
        worker.print_to_stdstream = lambda *_, **__: None

    def resume(self) -> None:
        self._worker.print_to_stdstream = self._tell


_HINT = "`ray start --head` begins one; give its address as HOST:PORT, or `auto` on one of its nodes"
_LOGS = "Ray's own logs are in /tmp/ray/session_latest/logs on that node"


def _reach(address: str) -> None:
    """Raise HarnessError in seconds where nobody answers: Ray itself tries for minutes."""
    if address in ("auto", "local"):
        return
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdigit():
        raise HarnessError(
            f"--address `{address}` is no address of a Ray cluster",
            "HOST:PORT of its head (the port of `ray start --head --port`), or `auto` on one of its nodes",
        )
    try:
        socket.create_connection((host, int(port)), timeout=SECONDS).close()
    except OSError as error:
        why = error.strerror or str(error)
        raise HarnessError(f"no Ray cluster at {address}: {why}", _HINT) from error
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    command += ["--skip-version-check"]
    with contextlib.suppress(subprocess.TimeoutExpired):
        if subprocess.run(command, capture_output=True, timeout=3 * SECONDS, check=False).returncode == 0:
            return
    raise HarnessError(f"what listens at {address} is not the head of a Ray cluster", _HINT)


def _written(root: Path, name: str) -> bool:
    return name in os.listdir(root)


__all__: Sequence[str] = ("Session", "connected")
