"""An engine that asks for a new process, and processes that an engine has started."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.evaluate.engine import Engine, EvaluationError

PICKY = '''
import os, subprocess
from pathlib import Path

class Engine:
    """Takes one family of checkpoints per process, and starts a helper as vLLM starts its workers."""

    def __init__(self, settings):
        self.taken = None
        self.helper = subprocess.Popen(["sleep", "600"])
        Path(settings["helpers"]).open("a").write(f"{self.helper.pid}\\n")

    def load(self, checkpoint):
        kind = (Path(checkpoint) / "kind").read_text()
        if kind == "never":
            return {"restart": "nobody takes this"}
        if self.taken not in (None, kind):
            return {"restart": f"{kind} after {self.taken}", "warning": kind == "warned"}
        self.taken = kind
        return {"kind": kind, "pid": os.getpid()}

    def generate(self, requests, emit):
        for index, request in requests:
            emit([(index, {"text": self.taken, "tokens": 1, "finish": "stop"})])
            if request["context"] == "FALL":
                os._exit(9)
            if request["context"] == "WAIT":
                self.helper.wait()
'''


@pytest.fixture
def picky(tmp_path, monkeypatch):
    package = tmp_path / "engines" / "stand_in"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "picky.py").write_text(textwrap.dedent(PICKY))
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    one = Engine("stand_in.picky", {"helpers": str(tmp_path / "helpers")})
    yield one
    one.close()


def checkpoint(folder, kind):
    folder.mkdir(exist_ok=True)
    (folder / "kind").write_text(kind)
    return folder


def said(engine, model, *contexts):
    requests = [{"context": context, "kwargs": {}, "seed": [0, 0]} for context in contexts or ("a",)]
    return [answer["text"] for part in engine.run(model, "generate", requests) for _, answer in part]


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(true, seconds=20):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def test_an_engine_may_ask_for_a_new_process_and_say_why(picky, tmp_path):
    one, two = checkpoint(tmp_path / "one", "one"), checkpoint(tmp_path / "two", "two")
    warned = checkpoint(tmp_path / "warned", "warned")
    assert said(picky, one) == ["one"]
    first = picky.pid
    assert said(picky, two) == ["two"] and picky.pid != first
    assert picky.warnings == [] and picky.loaded == {"kind": "two", "pid": picky.pid}
    assert said(picky, warned) == ["warned"]
    assert picky.warnings == ["warned after two"]
    third = picky.pid
    assert said(picky, warned, "a", "b") == ["warned"] * 2 and picky.pid == third


def test_a_new_process_that_asks_for_a_new_process_is_an_error(picky, tmp_path):
    never = checkpoint(tmp_path / "never", "never")
    with pytest.raises(EvaluationError, match="does not take .*/never: nobody takes this"):
        said(picky, never)
    assert issubclass(EvaluationError, HarnessError)


def test_a_place_that_holds_another_model_now_is_loaded_again(picky, tmp_path):
    place = checkpoint(tmp_path / "place", "one")
    assert said(picky, place) == ["one"]
    pid = picky.pid
    assert said(picky, place) == ["one"] and picky.pid == pid
    checkpoint(place, "two")
    assert said(picky, place) == ["two"] and picky.pid != pid


def test_what_an_engine_has_started_ends_with_it(picky, tmp_path):
    one = checkpoint(tmp_path / "one", "one")
    assert said(picky, one, "FALL", "a") == ["one"] * 2
    helpers = [int(line) for line in (tmp_path / "helpers").read_text().split()]
    assert len(helpers) == 2
    assert not running(helpers[0]) and running(helpers[1])
    os.kill(picky.pid, signal.SIGKILL)
    assert said(picky, one) == ["one"]
    wait_until(lambda: not running(helpers[1]))
    picky.close()
    wait_until(lambda: not any(map(running, map(int, (tmp_path / "helpers").read_text().split()))))


PARENT = """
    import sys
    from pathlib import Path
    from harness.evaluate.engine import Engine
    one = Engine("stand_in.picky", {"helpers": sys.argv[2]})
    for part in one.run(Path(sys.argv[1]), "generate", [{"context": "WAIT", "kwargs": {}, "seed": [0, 0]}]):
        print(one.pid, flush=True)
"""


def test_what_an_engine_has_started_ends_with_the_parent(picky, tmp_path):
    one, root = checkpoint(tmp_path / "one", "one"), str(Path(__file__).parents[2])
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PARENT), str(one), str(tmp_path / "helpers")],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ["PYTHONPATH"]])},
        text=True,
    )
    pid = int(parent.stdout.readline())
    (helper,) = map(int, (tmp_path / "helpers").read_text().split())
    assert running(pid) and running(helper)
    parent.kill()
    parent.wait()
    wait_until(lambda: not running(pid) and not running(helper))
