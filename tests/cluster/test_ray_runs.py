"""Whole comparisons on a cluster of two nodes, with workers and nodes lost under way."""

import os
import random
import signal
import time

import psutil
import pytest

from tests.cluster.two_nodes import SMALL, compare, finish, start, tables

pytestmark = [pytest.mark.ray, pytest.mark.slow]
KILLS = int(os.environ.get("HARNESS_KILLS", "2"))
SEED = int(os.environ.get("HARNESS_KILL_SEED", "7"))
METHOD = '''"""Half the sum of the task vectors."""
from harness import merge_method


@merge_method("{name}", title="{name}")
class Mine:
    def merge(self, group, state):
        {body}
        merged = group.base.clone()
        for delta in group.deltas.values():
            merged += 0.5 * delta
        return merged
'''


def on(nodes, *args):
    return [*SMALL, "--executor", "ray", "--address", nodes.address, *args]


def working(nodes, process, within=120):
    """Wait until a worker is at a step."""
    until = time.monotonic() + within
    while not (found := nodes.workers()):
        assert process.poll() is None and time.monotonic() < until, finish(process).err
        time.sleep(0.1)
    return found


def left(cwd):
    """What a run that ended badly may not leave: complete folders without content, errors, tokens."""
    root = cwd / "results" / "tiny-safety"
    return [*root.rglob("error.txt"), *root.rglob(".token-*"), *root.rglob(".alive")]


def test_the_table_is_the_local_one_to_the_byte(two_nodes, local, tmp_path):
    done = compare(*on(two_nodes), cwd=tmp_path)
    assert done.returncode == 0, done.err
    assert tables(tmp_path) == local
    assert done.out.startswith("**tiny-safety**") and "raylet" not in done.out
    assert "Traceback" not in done.err and not left(tmp_path)
    again = compare(*on(two_nodes), cwd=tmp_path)
    assert again.returncode == 0 and "from store" in again.err and "eval " not in again.err
    here = compare(*SMALL, cwd=tmp_path)
    assert here.returncode == 0 and "from store" in here.err and "merge " not in here.err


@pytest.mark.parametrize("turn", range(KILLS))
def test_a_killed_worker_costs_one_try(two_nodes, local, tmp_path, turn):
    two_nodes.whole()
    draw = random.Random(SEED + turn)
    run = start(*on(two_nodes), cwd=tmp_path)
    working(two_nodes, run)
    time.sleep(draw.uniform(0, 15))
    killed = _kill_one(two_nodes, draw)
    finish(run)
    assert run.returncode == 0, run.err
    assert tables(tmp_path) == local and not left(tmp_path)
    assert ("its worker was lost; sent again" in run.err) or not killed or "sent again" not in run.err
    print(f"killed {killed}; told: {[line.strip() for line in run.err.splitlines() if '!' in line]}")


def _kill_one(nodes, draw):
    try:
        worker = draw.choice(nodes.workers())
        name = worker.cmdline()[0]
        worker.send_signal(signal.SIGKILL)
    except (IndexError, psutil.Error):  # between two steps
        return ""
    return name


@pytest.mark.parametrize("turn", range(KILLS))
def test_a_lost_node_is_done_without(two_nodes, local, tmp_path, turn):
    two_nodes.whole()
    draw = random.Random(SEED + 1000 + turn)
    run = start(*on(two_nodes), cwd=tmp_path)
    working(two_nodes, run)
    time.sleep(draw.uniform(0, 15))
    two_nodes.lose()
    finish(run)
    two_nodes.whole()
    assert run.returncode == 0, run.err
    assert tables(tmp_path) == local and not left(tmp_path)
    assert "raylet" not in run.out
    print(f"told: {[line.strip() for line in run.err.splitlines() if '!' in line]}")


def test_a_users_method_is_a_row_and_one_that_raises_fails_alone(two_nodes, tmp_path):
    two_nodes.whole()
    (tmp_path / "mine.py").write_text(METHOD.format(name="mine", body="pass"))
    (tmp_path / "bad.py").write_text(METHOD.format(name="bad", body="raise RuntimeError('no idea')"))
    asked = ["--methods", "./mine.py,./bad.py", "--tasks", "tiny_chain", "--limit", "8"]
    done = compare(*on(two_nodes), *asked, cwd=tmp_path)
    assert done.returncode == 1, done.err
    values = {line["row"]: line["value"] for line in tables(tmp_path)[1]}
    assert values["mine"] != "" and values["bad"] == ""
    assert done.err.count("no idea") == 1 and "sent again" not in done.err and "Traceback" not in done.err
    (error,) = (tmp_path / "results").rglob("error.txt")
    assert "RuntimeError: no idea" in error.read_text() and error.parent.name.startswith("bad--")


def test_ctrl_c_leaves_a_clean_store_and_the_same_command_goes_on(two_nodes, local, tmp_path):
    two_nodes.whole()
    run = start(*on(two_nodes), cwd=tmp_path)
    working(two_nodes, run)
    time.sleep(3)
    run.send_signal(signal.SIGINT)
    finish(run, timeout=60)
    assert run.returncode == 130 and "the same command goes on from here" in run.err
    assert "Traceback" not in run.err
    assert not list((tmp_path / "results").rglob("error.txt"))
    until = time.monotonic() + 20
    while two_nodes.workers():
        assert time.monotonic() < until, "steps go on although the run was stopped"
        time.sleep(0.2)
    done = compare(*on(two_nodes), cwd=tmp_path)
    assert done.returncode == 0, done.err
    assert tables(tmp_path) == local
