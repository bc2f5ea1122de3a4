"""Whole comparisons on a cluster of two nodes, with workers and nodes lost under way."""

import os
import random
import signal
import time

import psutil
import pytest

from benchmarks import kills
from harness.cluster import session
from harness.errors import HarnessError
from harness.store import Store
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


class Ended(Exception):
    """The run was over."""


def working(nodes, process, within=120):
    """Wait until a worker is at a step."""
    until = time.monotonic() + within
    while not (found := nodes.workers()):
        if process.poll() is not None:
            raise Ended
        assert time.monotonic() < until, "no worker is at a step"
        time.sleep(0.1)
    return found


def at_random(nodes, process, run, draw, responses):
    """Wait for a moment: a while after a worker is at a step, or when so many more responses are stored."""
    had = len(run.stored())
    if draw.random() < 0.5 or had >= responses:
        working(nodes, process)
        time.sleep(draw.uniform(0, 8))
        return
    wanted = draw.randint(had + 1, responses)
    while len(run.stored()) < wanted:
        if process.poll() is not None:
            raise Ended
        time.sleep(0.02)


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


def test_killed_workers_cost_a_try_each(two_nodes, local_run, asked_log, tmp_path):
    def kill(draw):
        worker = draw.choice(two_nodes.workers())
        name = worker.cmdline()[0]
        worker.send_signal(signal.SIGKILL)
        return name

    _lose(two_nodes, (local_run, asked_log), tmp_path, kill, "its worker was lost; sent again")


def test_lost_nodes_are_done_without(two_nodes, local_run, asked_log, tmp_path):
    def lose(draw):
        two_nodes.whole()
        two_nodes.lose()
        return "node"

    _lose(two_nodes, (local_run, asked_log), tmp_path, lose)


def test_what_collects_the_workers_words_may_be_lost(two_nodes, local, tmp_path):
    two_nodes.whole()
    run = start(*on(two_nodes), cwd=tmp_path)
    working(two_nodes, run)
    (board,) = two_nodes.processes("ray::Board")
    board.send_signal(signal.SIGKILL)
    until = time.monotonic() + 60
    while not any(other != board for other in two_nodes.processes("ray::Board")):
        assert run.poll() is None and time.monotonic() < until, "no other is begun"
        time.sleep(0.1)
    finish(run)
    assert run.returncode == 0, run.err
    assert tables(tmp_path) == local and not left(tmp_path)
    assert "Traceback" not in run.err and "sent again" not in run.err


def _lose(nodes, folders, tmp_path, lose, told=""):
    """Runs in which something is lost at random moments, three a run, until it was `KILLS` times: each ends
    with the same table, nothing complete is done again and no stored response asked again."""
    usual, log = (kills.Run(folder) for folder in folders)
    draw, lost, runs = random.Random(SEED), 0, 0
    responses = len(usual.stored())
    while lost < KILLS:
        nodes.whole()
        one = kills.Run(tmp_path / str(runs))
        one.cwd.mkdir()
        process, begun, hits = start(*on(nodes), cwd=one.cwd), time.monotonic(), []
        runs += 1
        for _ in range(min(3, KILLS - lost)):
            try:
                at_random(nodes, process, one, draw, responses)
                hit = kills.now(one)
                when = f"{time.monotonic() - begun:.0f} s, {len(hit.stored)} responses"
                hits.append((f"{lose(draw)} at {when}", hit))
            except (IndexError, psutil.Error, Ended):  # between two steps, or behind the last
                continue
        finish(process)
        assert process.returncode == 0, process.err
        assert tables(one.cwd) == tables(usual.cwd) and not left(one.cwd)
        kept, finished = one.stored(), one.finished()
        for _, hit in hits:
            assert hit.stored.items() <= kept.items() and hit.finished.items() <= finished.items()
            assert not log.asked(hit.at) & set(hit.stored)
        assert log.asked(0.0) & set(kept), "what is asked is seen"
        assert "raylet" not in process.out and "Traceback" not in process.err
        lost += len(hits)
        again = [line.strip() for line in process.err.splitlines() if "sent again" in line]
        assert len([line for line in again if told and told in line]) <= len(hits) or not told
        print(
            f"run {runs}, {time.monotonic() - begun:.0f} s: {[what for what, _ in hits]}; {again}", flush=True
        )


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


def test_a_step_that_kills_its_worker_is_given_up(two_nodes, tmp_path):
    two_nodes.whole()
    (tmp_path / "bad.py").write_text(METHOD.format(name="bad", body="__import__('os')._exit(9)"))
    asked = ["--methods", "./bad.py", "--tasks", "tiny_chain", "--limit", "8"]
    done = compare(*on(two_nodes), *asked, cwd=tmp_path)
    assert done.returncode == 1 and done.err.count("its worker was lost; sent again") == 3, done.err
    assert "its worker was lost each time" in done.err and "Traceback" not in done.err
    values = {line["row"]: line["value"] for line in tables(tmp_path)[1]}
    assert values["bad"] == "" and values["reasoning"] != ""


def test_nodes_with_other_software_are_refused(two_nodes, tmp_path, monkeypatch):
    two_nodes.whole()
    mine = {**session.software(), "torch": "1.0"}
    monkeypatch.setattr(session, "software", lambda: mine)
    with session.connected(two_nodes.address) as one:
        with pytest.raises(HarnessError, match=r"torch is \S+ on node \S+ and 1.0 on"):
            one.check(Store(tmp_path, "tiny-safety"))
    assert not list(tmp_path.rglob(".token*"))


def test_a_node_that_has_just_left_is_done_without(two_nodes, tmp_path, monkeypatch):
    two_nodes.whole()
    with session.connected(two_nodes.address) as one:
        there = one.ray.nodes()
        listed = iter([[*there, {**there[0], "NodeID": "a" * 56, "Alive": True}]])
        monkeypatch.setattr(one.ray, "nodes", lambda: next(listed, there))
        one.check(Store(tmp_path, "tiny-safety"))
        alive = {node["NodeID"] for node in there if node["Alive"]}
        assert {node.id for node in one.nodes} == alive


def test_a_node_that_was_just_lost_or_has_just_joined_is_no_reason_to_stop(two_nodes, tmp_path):
    two_nodes.whole()
    two_nodes.lose()
    for count in (1, 2):
        with session.connected(two_nodes.address) as one:
            one.check(Store(tmp_path, "tiny-safety"))
            assert len(one.nodes) == count
        two_nodes.whole()


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
