"""The engine protocol: order, restarts, three strikes, errors that name the cause, death with the parent."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import harness.evaluate.engine
from harness.errors import HarnessError
from harness.evaluate.child import Nursery
from harness.evaluate.engine import Engine, EvaluationError, Stopped


def asked(settings):
    return Path(settings["record"]).read_text().splitlines()


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(true, seconds=20):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def requests(count, mark=()):
    return [asking(f"{i} {'FALL' if i in mark else ''}") for i in range(count)]


def asking(context):
    return {"context": context, "kwargs": {}, "seed": [0, 0]}


def collect(parts):
    return dict(pair for part in parts for pair in part)


@pytest.fixture(params=["spawned", "forked"])
def begun(request, tmp_path):
    """Makes an engine: a process of its own, or a fork of a nursery that imports nothing before."""
    with contextlib.ExitStack() as stack:
        forks = request.param == "forked"
        nursery = stack.enter_context(Nursery(tmp_path / "nursery.txt", ())) if forks else None

        def made(name, settings):
            return Engine(name, settings, nursery=nursery)

        made.forks = forks
        yield made


def test_batches_arrive_one_by_one_and_every_request_is_answered_once(tmp_path, scripted, begun):
    name, settings = scripted
    engine = begun(name, settings)
    parts = list(engine.run(tmp_path, "generate", requests(10)))
    assert [len(part) for part in parts] == [4, 4, 2]
    assert sorted(collect(parts)) == list(range(10))
    assert len(asked(settings)) == 10
    first = engine.pid
    assert collect(engine.run(tmp_path, "loglikelihood", [{"context": "a", "continuation": "bcd"}])) == {
        0: {"logprob": -3.0, "greedy": False}
    }
    assert engine.pid == first, "one child serves many calls"
    engine.close()
    assert not alive(first)


def test_a_killed_child_is_started_again_and_repeats_only_the_batch_in_flight(tmp_path, scripted, begun):
    name, settings = scripted
    engine, found = begun(name, settings), {}
    for number, part in enumerate(engine.run(tmp_path, "generate", requests(12))):
        found |= dict(part)
        if number == 1:
            os.kill(engine.pid, signal.SIGKILL)
    assert sorted(found) == list(range(12))
    # 12 asked; what was in the pipe or in flight when the child was killed may have been asked again
    assert 12 <= len(asked(settings)) <= 16
    engine.close()


def test_a_child_runs_ahead_of_what_is_kept_by_one_batch(tmp_path, scripted, begun):
    """Whoever is killed, what is lost is the batch on its way and the batch in the making."""
    name, settings = scripted
    engine = begun(name, settings)
    for kept, _ in enumerate(engine.run(tmp_path, "generate", requests(24))):
        wait_until(lambda: len(asked(settings)) >= min(24, 4 * (kept + 2)))  # noqa: B023
        time.sleep(0.1)
        assert len(asked(settings)) == min(24, 4 * (kept + 2))
    assert kept == 5
    assert collect(engine.run(tmp_path, "generate", requests(1))), "nothing is left over for the next call"
    engine.close()


def test_a_crash_that_passes_is_survived(tmp_path, scripted, begun):
    name, settings = scripted
    engine = begun(name, settings | {"falls_on": "FALL", "falls_once": True})
    assert sorted(collect(engine.run(tmp_path, "generate", requests(8, mark=[5])))) == list(range(8))
    assert len(asked(settings)) == 12  # the second batch of four was asked twice
    engine.close()


def test_three_deaths_without_an_answer_between_are_an_error(tmp_path, scripted, begun):
    name, settings = scripted
    engine, found = begun(name, settings | {"falls_on": "FALL"}), {}
    with pytest.raises(EvaluationError, match=r"died 3 times \(exit code 9\) in generate"):
        for part in engine.run(tmp_path, "generate", requests(12, mark=[9])):
            found |= dict(part)
    assert sorted(found) == list(range(8)), "the batches before were handed over"
    assert len(asked(settings)) == 8 + 3 * 4
    assert engine.pid is None


def test_a_checkpoint_that_kills_the_engine_fails_with_its_last_words(tmp_path, scripted, begun):
    (tmp_path / "deadly").touch()
    engine = begun(*scripted)
    with pytest.raises(EvaluationError, match="exit code 7.*about to fall"):
        list(engine.run(tmp_path, "generate", requests(1)))


def test_a_broken_checkpoint_is_the_users_error_and_the_engine_lives_on(tmp_path, scripted, begun):
    broken = tmp_path / "model"
    broken.mkdir()
    (broken / "broken").touch()
    engine = begun(*scripted)
    with pytest.raises(HarnessError) as error:
        list(engine.run(broken, "generate", requests(1)))
    assert not isinstance(error.value, EvaluationError)
    assert str(broken) in error.value.message and "weights are missing" in error.value.message
    assert error.value.hint == "merge again"
    pid = engine.pid
    assert collect(engine.run(tmp_path, "generate", requests(1))) and engine.pid == pid
    engine.close()


def test_an_exception_in_the_engine_is_told_and_a_fresh_child_follows(tmp_path, scripted, begun):
    engine = begun(*scripted)
    with pytest.raises(EvaluationError, match="generate.*ValueError: cannot do this"):
        list(engine.run(tmp_path, "generate", [asking("RAISE")]))
    assert any("Traceback" in line for line in engine.last_lines(50))
    assert collect(engine.run(tmp_path, "generate", requests(3)))
    engine.close()


def test_a_child_that_dies_before_it_is_told_anything_is_replaced(tmp_path, scripted, begun, monkeypatch):
    engine, fallen = begun(*scripted), []

    def falling(begin):
        def begun(*given):
            child = begin(*given)
            if not fallen:
                wait_until(lambda: child.pid is not None)
                os.kill(child.pid, signal.SIGKILL)
                wait_until(lambda: not alive(child.pid))
                fallen.append(child.pid)
            return child

        return begun

    whose = engine._nursery if begun.forks else harness.evaluate.engine
    name = "fork" if begun.forks else "Spawned"
    monkeypatch.setattr(whose, name, falling(getattr(whose, name)))
    engine.start()
    assert collect(engine.run(tmp_path, "generate", requests(1))) and engine.pid not in fallen
    engine.close()


def test_closing_an_engine_stops_who_waits_for_it(tmp_path, scripted, begun):
    """Not as a failure, and no other child is started: Ctrl-C, pressed twice in a long batch."""
    name, settings = scripted
    engine = begun(name, settings | {"delay": 60})
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(collect, engine.run(tmp_path, "generate", requests(1)))
        wait_until(lambda: engine.pid is not None and engine.loaded)
        engine.close()
        with pytest.raises(Stopped):
            waiting.result(timeout=20)
    assert engine.pid is None
    with pytest.raises(Stopped):
        engine.start()


def test_an_engine_that_does_not_start_is_told(tmp_path, scripted, begun):
    name, settings = scripted
    engine = begun(name, settings | {"refuses_to_start": True})
    with pytest.raises(EvaluationError, match="start.*no such device"):
        list(engine.run(tmp_path, "generate", requests(1)))


def test_giving_up_half_way_leaves_no_stale_answers(tmp_path, scripted, begun):
    engine = begun(*scripted)
    parts = engine.run(tmp_path, "generate", requests(12))
    next(parts)
    parts.close()
    found = collect(engine.run(tmp_path, "loglikelihood", [{"context": "", "continuation": "xx"}]))
    assert found == {0: {"logprob": -2.0, "greedy": False}}
    engine.close()


def test_the_child_dies_with_a_killed_parent_even_in_the_middle_of_work(tmp_path, scripted, begun):
    name, settings = scripted
    settings = settings | {"delay": 60}
    script = textwrap.dedent(f"""
        import time
        from pathlib import Path
        from harness.evaluate.engine import Engine
        from harness.evaluate.child import Nursery
        nursery = Nursery(Path({str(tmp_path / "log")!r}), ()) if {begun.forks} else None
        engine = Engine({name!r}, {settings!r}, nursery=nursery)
        engine.start()
        while engine.pid is None:
            time.sleep(0.01)
        print(engine.pid, flush=True)
        list(engine.run(Path({str(tmp_path)!r}), "generate", {requests(1)!r}))
    """)
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ["PYTHONPATH"]])
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
    )
    child = int(parent.stdout.readline())
    time.sleep(0.3)
    assert alive(child)
    parent.kill()
    parent.wait()
    wait_until(lambda: not alive(child), 10)


@pytest.mark.parametrize("value", [0.1 + 0.2, -1e-300, float("inf"), -float("inf"), 2**60 + 1, "\ud800 é\n"])
def test_messages_keep_every_value(value):
    read, write = os.pipe()
    from harness.evaluate import wire

    with os.fdopen(write, "wb") as out, os.fdopen(read, "rb") as into:
        wire.send(out, {"value": value})
        assert wire.receive(into) == {"value": value}
        out.write(b"\0\0\0")
        out.close()
        with pytest.raises(EOFError):
            wire.receive(into)
