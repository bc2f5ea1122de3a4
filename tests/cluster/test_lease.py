"""Whose lock is waited for, and whose is broken: locks held by real processes."""

import fcntl
import json
import multiprocessing
import threading
import time

import pytest

from harness.cluster import lease
from harness.store import Folder


@pytest.fixture
def folder(tmp_path):
    """A folder that a step once began."""
    made = Folder(tmp_path / "ties--12345678")
    with made.working({"key": "a"}):
        pass
    return made.path


def taken(folder, host="elsewhere", beats=True):
    """Hold the folder's lock as a worker on `host` does; returns what lets go of it."""
    lock = (folder / ".lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    if beats:
        mark = {"host": host, "pid": 1, "beat": 1, "recipe": lease._holder(folder)}
        (folder / ".alive").write_text(json.dumps(mark))
    return lock


def waits(folder, seconds=0.6, **how):
    """Whether `free` still waits after so long."""
    done = threading.Event()

    def run():
        lease.free(folder, host="here", pause=0.02, **how)
        done.set()

    threading.Thread(target=run, daemon=True).start()
    return not done.wait(seconds)


def test_a_free_folder_is_not_waited_for(folder, tmp_path):
    assert not waits(folder, 20) and not waits(tmp_path / "never begun", 20)


def test_the_lock_of_a_silent_holder_elsewhere_is_broken(folder):
    said = []
    with taken(folder):
        lease.free(folder, said.append, host="here", silent=0.2, pause=0.02)
        assert "elsewhere" in said[0]
        with Folder(folder).working({"key": "a"}):  # would wait for ever otherwise
            pass


def test_a_holder_that_beats_is_waited_for(folder):
    lock, stop = taken(folder), threading.Event()

    def beat():
        count = 1
        while not stop.wait(0.05):
            count += 1
            mark = {"host": "elsewhere", "pid": 1, "beat": count, "recipe": lease._holder(folder)}
            (folder / ".alive").write_text(json.dumps(mark))

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        assert waits(folder, silent=0.3)
    finally:
        stop.set()
        thread.join()
        lock.close()


@pytest.mark.parametrize("how", [{"beats": False}, {"host": "here"}])
def test_without_a_heartbeat_and_on_this_machine_the_kernel_knows(folder, how):
    with taken(folder, **how):
        assert waits(folder, silent=0.1)


def test_a_heartbeat_left_by_another_than_the_holder_does_not_count(folder):
    """A worker was lost, its lock with it; a run without Ray has taken the folder since."""
    taken(folder).close()
    begun, end = multiprocessing.Event(), multiprocessing.Event()
    process = multiprocessing.Process(target=_hold, args=(folder, begun, end))
    process.start()
    assert begun.wait(20)
    try:
        assert waits(folder, silent=0.1)
    finally:
        end.set()
        process.join()


def _hold(folder, begun, end):
    with Folder(folder).working({"key": "b"}):
        begun.set()
        end.wait(20)


def test_held_beats_for_the_holder_and_leaves_nothing(folder, monkeypatch):
    monkeypatch.setattr(lease, "BEAT", 0.05)
    with lease.held([folder], host="here"), Folder(folder).working({"key": "c"}):
        until = time.monotonic() + 10
        while not (alive := lease._alive(folder)) or alive["recipe"] != lease._holder(folder):
            assert time.monotonic() < until
            time.sleep(0.02)
        assert alive["host"] == "here"
    assert not (folder / ".alive").exists()
