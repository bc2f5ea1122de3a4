"""A cluster of two nodes on this machine, on 127.0.0.1, and `harness compare` run on it by a user."""

import csv
import os
import subprocess
import sys

import psutil

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # localhost stays localhost
    "RAY_BACKEND_LOG_LEVEL": "error",
}
SMALL = ["--methods", "linear,reasonany (paper)", "--tasks", "tiny_chain,tiny_prose", "--limit", "8"]
NODE = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "object_store_memory": 80 << 20}


class TwoNodes:
    """The head, where the drivers connect, and a node that can be lost."""

    def __init__(self):
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
        self.second = self.cluster.add_node(**NODE)
        self.address = self.cluster.address

    def lose(self):
        self.cluster.remove_node(self.second, allow_graceful=False)
        self.second = None

    def whole(self):
        if self.second is None:
            self.second = self.cluster.add_node(**NODE)

    def workers(self):
        """Processes that are at a step now."""
        return self.processes("ray::do", "ray::RowEngine")

    def processes(self, *names):
        """Ray's processes on both nodes that are called so."""
        found = []
        for node in filter(None, (self.cluster.head_node, self.second)):
            for process in node.all_processes.get("raylet", ()):
                children = psutil.Process(process.process.pid).children()
                found += [child for child in children if _called(child).startswith(names)]
        return found

    def close(self):
        self.cluster.shutdown()


def _called(process):
    try:
        return process.cmdline()[0]
    except (psutil.Error, IndexError):
        return ""


def start(*args, cwd):
    """`harness compare` as a process of its own."""
    command = [sys.executable, "-m", "harness.cli", "compare", *map(str, args)]
    env = {**os.environ, **QUIET}
    return subprocess.Popen(
        command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process, timeout=400):
    process.out, process.err = process.communicate(timeout=timeout)
    return process


def compare(*args, cwd):
    return finish(start(*args, cwd=cwd))


def tables(cwd):
    """The table as it is written; of the CSV all but what a merge took."""
    report = cwd / "results" / "tiny-safety" / "report"
    with (report / "table.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    for line in lines:
        del line["merge_seconds"], line["peak_mib"]
    return (report / "table.md").read_bytes(), lines
