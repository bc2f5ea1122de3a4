"""Engines that are forked: what they share, what they do not, what becomes of them without their parents."""

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from test_engine import alive, asking, collect, requests, wait_until

from benchmarks.kills import parent_of
from harness.evaluate.child import Nursery
from harness.evaluate.engine import Engine

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="engines are forked on Linux only")


@pytest.fixture
def nursery(tmp_path):
    with Nursery(tmp_path / "nursery.txt", ()) as made:
        yield made


def started(engine, folder):
    assert collect(engine.run(folder, "generate", requests(1)))
    return engine.pid


def test_engines_are_forks_of_one_process_and_groups_of_their_own(tmp_path, scripted, nursery):
    one, two = (Engine(*scripted, nursery=nursery) for _ in range(2))
    pids = [started(engine, tmp_path) for engine in (one, two)]
    assert {parent_of(pid) for pid in pids} == {nursery.pid}
    assert [os.getpgid(pid) for pid in pids] == pids
    one.close()
    assert not alive(pids[0]) and alive(pids[1])
    two.close()


def test_an_engine_has_the_environment_and_folder_of_the_moment_it_is_started(
    tmp_path, scripted, nursery, monkeypatch
):
    monkeypatch.setenv("SAID_LATER", "yes")
    monkeypatch.chdir(tmp_path)
    name, settings = scripted
    engine = Engine(name, settings | {"threads": 3}, nursery=nursery)
    pid = started(engine, tmp_path)
    assert Path(f"/proc/{pid}/cwd").resolve() == tmp_path.resolve()
    told = collect(engine.run(tmp_path, "generate", [asking("ENVIRONMENT")]))[0]["text"]
    assert json.loads(told) == {"SAID_LATER": "yes", "OMP_NUM_THREADS": "3"}
    engine.close()


def test_an_engine_holds_no_pipe_of_another(tmp_path, scripted, nursery):
    """Else it would not be noticed when that one dies."""
    engines = [Engine(*scripted, nursery=nursery) for _ in range(3)]
    pids = [started(engine, tmp_path) for engine in engines]
    pipes = [{os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()} for pid in pids]
    for index, own in enumerate(pipes):
        others = set().union(*pipes[:index], *pipes[index + 1 :])
        assert not {name for name in own & others if name.startswith(("pipe:", "socket:"))}
    for engine in engines:
        engine.close()


def test_a_killed_nursery_is_replaced(tmp_path, scripted, nursery):
    engine = Engine(*scripted, nursery=nursery)
    first, before = started(engine, tmp_path), nursery.pid
    os.kill(nursery.pid, signal.SIGKILL)
    assert collect(engine.run(tmp_path, "generate", requests(3))) and engine.pid == first, "it lives on"
    engine.kill()
    assert engine.exit_code is None
    wait_until(lambda: not alive(first))
    assert started(engine, tmp_path) != first and nursery.pid != before
    engine.close()


def test_an_engine_can_be_given_up_while_its_nursery_still_imports(tmp_path, scripted):
    (tmp_path / "slowly.py").write_text("import time; time.sleep(1)\n")
    sys_path = os.environ["PYTHONPATH"]
    os.environ["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{sys_path}"
    try:
        with Nursery(tmp_path / "log.txt", ["slowly"]) as nursery:
            engine = Engine(*scripted, nursery=nursery)
            engine.start()
            assert engine.pid is None
            engine.close()
            other = Engine(*scripted, nursery=nursery)
            pid = started(other, tmp_path)
            assert children(nursery.pid) == [pid], "not even a zombie"
            other.close()
    finally:
        os.environ["PYTHONPATH"] = sys_path


def children(pid):
    """Processes that `pid` has started and not taken."""
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def test_an_engine_that_dies_is_replaced_and_its_exit_code_known(tmp_path, scripted, nursery):
    engine = Engine(*scripted, nursery=nursery)
    first = started(engine, tmp_path)
    os.kill(first, signal.SIGKILL)
    assert started(engine, tmp_path) != first and engine.exit_code == -signal.SIGKILL
    engine.close()


def test_two_threads_may_ask_for_the_process_id_at_once(tmp_path, scripted, nursery):
    """The thread that ends an engine, and one that scores and wants to know its memory."""
    with ThreadPoolExecutor(2) as pool:
        for _ in range(30):
            engine = Engine(*scripted, nursery=nursery)
            engine.start()
            asking = pool.submit(lambda engine=engine: [engine.peak_mib() for _ in range(200)])
            time.sleep(random.Random(0).random() / 50)
            engine.kill()
            assert asking.result(timeout=20)


@pytest.mark.parametrize("size", [100, 250])
def test_a_large_environment_is_no_obstacle(tmp_path, scripted, monkeypatch, size):
    for index in range(size):
        monkeypatch.setenv(f"LARGE_{index}", "x" * 1000)
    with Nursery(tmp_path / "nursery.txt", ()) as nursery:
        engine, pid = Engine(*scripted, nursery=nursery), nursery.pid
        assert started(engine, tmp_path) and nursery.pid == pid
        engine.close()


def test_ignored_children_of_the_caller_change_nothing(tmp_path, scripted, nursery):
    """What a process ignores stays ignored in those it starts."""
    usual = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with Nursery(tmp_path / "nursery.txt", ()) as own:
            engine = Engine(*scripted, nursery=own)
            started(engine, tmp_path)
            engine.close()
            assert engine.exit_code == -signal.SIGKILL and Path(f"/proc/{own.pid}").exists()
    finally:
        signal.signal(signal.SIGCHLD, usual)


def test_an_import_that_fails_is_told_by_the_engine(tmp_path, scripted):
    with Nursery(tmp_path / "nursery.txt", ["no_such_module_anywhere"]) as nursery:
        engine = Engine(*scripted, nursery=nursery)
        assert started(engine, tmp_path), "it needs none of it"
        assert "no_such_module_anywhere" in (tmp_path / "nursery.txt").read_text()
        engine.close()


@pytest.mark.parametrize("modules", [[], ["slowly", "never"]], ids=["ready", "importing"])
def test_nothing_is_left_of_a_parent_that_is_killed(tmp_path, modules):
    (tmp_path / "slowly.py").write_text("import time; time.sleep(3)\n")
    (tmp_path / "never.py").write_text("import time; time.sleep(600)\n")
    script = textwrap.dedent(f"""
        import time
        from pathlib import Path
        from harness.evaluate.child import Nursery
        nursery = Nursery(Path({str(tmp_path / "log.txt")!r}), {modules!r})
        print(nursery.pid, flush=True)
        time.sleep(60)
    """)
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join([root, str(tmp_path)])
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
    )
    pid = int(parent.stdout.readline())
    wait_until(lambda: "nursery" in Path(f"/proc/{pid}/cmdline").read_text())
    parent.kill()
    parent.wait()
    wait_until(lambda: not alive(pid), 60)


def test_the_hf_engines_of_a_run_are_forked_with_one_thread_before():
    """A library that started a thread when it is imported would make forks unsafe."""
    code = """
        import socket, sys
        from pathlib import Path
        from harness.evaluate.child import IMPORTS
        from harness.evaluate.nursery import prepare
        ours, theirs = socket.socketpair()
        prepare(theirs, list(IMPORTS))
        print([line for line in Path("/proc/self/status").read_text().splitlines() if "Threads" in line][0])
        print("harness.evaluate.engines.hf" in sys.modules)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["Threads:", "1", "True"]
