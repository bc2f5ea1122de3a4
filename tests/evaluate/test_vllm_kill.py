"""The vllm engine killed in the middle: what was answered stays answered, and no process is left."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.evaluate.helpers_vllm import engine, prompts

pytest.importorskip("vllm")
pytestmark = [pytest.mark.vllm, pytest.mark.slow]

TINY = Path(__file__).parents[2] / "harness" / "families" / "tiny"


def of_session(leader):
    """Processes of the session that the engine leads, those that are gone but not collected aside."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[3] == str(leader) and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def long_requests(count):
    """Responses of very different lengths: the first to finish do so while the last are far from it."""
    kwargs = {"until": [], "do_sample": True, "temperature": 1.5}
    return [
        {"context": prompt, "kwargs": {**kwargs, "max_gen_toks": 4 + 10 * (i % 40)}, "seed": [0, i]}
        for i, prompt in enumerate(prompts(count))
    ]


def test_a_killed_engine_is_asked_again_only_for_what_it_had_not_answered(tmp_path):
    requests = long_requests(200)
    one = engine(tmp_path / "engine.txt", batch_size=32)
    whole = dict(p for part in one.run(TINY / "base", "generate", requests) for p in part)
    assert one.asked == 200
    first, seen = one.pid, {}
    for part in one.run(TINY / "base", "generate", requests):
        seen |= dict(part)
        if one.pid == first:
            there = len(seen)
            os.kill(first, signal.SIGKILL)
    assert 0 < there < 200 and one.pid != first
    assert 200 <= one.asked - 200 <= 400 - there, "what had arrived is not asked again"
    assert seen == whole, "draws depend on the request alone"
    assert of_session(first) == []
    last = one.pid
    one.close()
    assert of_session(last) == []


PARENT = """
    import sys
    from pathlib import Path
    from tests.evaluate.helpers_vllm import engine
    from tests.evaluate.test_vllm_kill import TINY, long_requests
    one = engine(Path(sys.argv[1]))
    for part in one.run(TINY / "base", "generate", long_requests(400)):
        print(one.pid, flush=True)
"""


def test_an_engine_dies_with_its_parent(tmp_path):
    root = str(Path(__file__).parents[2])
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PARENT), str(tmp_path / "log.txt")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": root},
        text=True,
    )
    pid = int(parent.stdout.readline())
    assert pid in of_session(pid)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while of_session(pid):
        assert time.monotonic() < deadline, "the engine outlives its parent"
        time.sleep(0.02)
