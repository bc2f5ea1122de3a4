"""Hostile programs: none gets out, none passes, nothing of them stays, and the next program runs as usual.

The programs stand in `programs/*.txt`, each below a line `=== name`, or `=== name -> status` where only one
status is right. Each runs as a whole program and as the definition of `f`, whose right answers it cannot
know; `attempt` in the prelude prints ESCAPED when something succeeds. `{canary}`, `{port}`, `{secret}` and
`{repo}` are filled in.
"""

import dataclasses
import hashlib
import os
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness import sandbox
from harness.sandbox import Limits

ROOT = Path(__file__).parent.parent.parent
PROGRAMS = Path(__file__).parent / "programs"


def programs(name):
    """name -> (program, status) of one file."""
    parts = re.split(r"^=== (.+?)(?: -> (\w+))?\n", (PROGRAMS / f"{name}.txt").read_text(), flags=re.M)[1:]
    return {parts[i]: (parts[i + 2], parts[i + 1]) for i in range(0, len(parts), 3)}


ESCAPES, EXHAUST, FORGERIES = (programs(name) for name in ("escapes", "exhaust", "forgeries"))
FORGERIES |= {
    "null byte": ("x = 1\0", None),
    "a lone surrogate": ("x = '\ud800'\ndef f(x): return '\ud800'", None),
}
PRELUDE = (PROGRAMS / "prelude.txt").read_text()
SECRET = "canary-" + hashlib.sha256(b"secret").hexdigest()[:20]
LIMITS = Limits(seconds=0.7, cpu_seconds=5, memory_mib=400 + os.getpid() % 97, processes=12,
                output_bytes=2**18, file_mib=8 + os.getpid() % 7)  # fmt: skip
PATIENT = dataclasses.replace(LIMITS, seconds=20)  # of programs that end by themselves

pytestmark = [
    pytest.mark.skipif(not sandbox.available(), reason=f"no bubblewrap here: {sandbox._fault()}"),
    pytest.mark.slow,
]


def digest(number):
    return hashlib.sha256(f"{number} {SECRET}".encode()).hexdigest()


TEST = f"""
import hashlib
def check(candidate):
    for n in range(3):
        assert candidate(n) == hashlib.sha256(f"{{n}} {SECRET}".encode()).hexdigest()
"""


def left_over():
    """Processes of ours that still run, told by our odd limits in their command lines."""
    marks = {str(LIMITS.memory_mib * 2**20).encode(), str(LIMITS.file_mib * 2**20).encode()}
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = set((folder / "cmdline").read_bytes().split(b"\0"))
            if marks <= words and (folder / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found.append(folder.name)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


@pytest.fixture(scope="module")
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as abstract:
        port = server.getsockname()[1]
        abstract.bind(f"\0harness-test-{port}")
        abstract.listen()
        for one in (server, abstract):
            one.setblocking(False)
        yield server, abstract, port


@pytest.fixture
def attacked(monkeypatch, tmp_path, listener):
    """Fills a program's blanks, and afterwards checks that everything around it is as it was."""
    monkeypatch.setenv("API_SECRET", SECRET)
    canary = tmp_path / f"canary-{os.getpid()}.txt"
    canary.write_text(SECRET)
    server, abstract, port = listener
    blanks = {"canary": str(canary), "port": str(port), "secret": SECRET, "repo": str(ROOT)}

    def fill(program):
        for name, value in blanks.items():
            program = program.replace("{" + name + "}", value)
        return PRELUDE + program

    yield fill
    assert canary.read_text() == SECRET
    for one in (server, abstract):
        with pytest.raises(BlockingIOError):
            one.accept()
    assert left_over() == []
    assert sandbox.run("print(6 * 7)").stdout == "42\n"  # the run goes on


def both(program):
    with ThreadPoolExecutor(2) as pool:
        ran = pool.submit(sandbox.run, program, "", LIMITS)
        checked = pool.submit(sandbox.check, program, "f", TEST, limits=LIMITS)
        return ran.result(), checked.result()


def test_there_are_many_kinds():
    assert len(ESCAPES) + len(EXHAUST) + len(FORGERIES) >= 80


@pytest.mark.parametrize("name", ESCAPES)
def test_nothing_gets_out(name, attacked):
    for outcome in both(attacked(ESCAPES[name][0])):
        assert "ESCAPED" not in outcome.stderr
    assert not outcome.ok


@pytest.mark.parametrize("name", EXHAUST)
def test_everything_is_ended(name, attacked):
    program, status = EXHAUST[name]
    ran, checked = both(attacked(program))
    for outcome in (ran, checked):
        assert outcome.status in (status, "time") or (status == "any" and not outcome.ok), outcome
        assert outcome.seconds < 30
        assert len(outcome.stdout) + len(outcome.stderr) < LIMITS.output_bytes + 2**17


@pytest.mark.parametrize("name", FORGERIES)
def test_nothing_passes(name, attacked):
    outcome = sandbox.check(attacked(FORGERIES[name][0]), "f", TEST, limits=LIMITS)
    assert not outcome.ok
    assert "ESCAPED" not in outcome.stderr


def test_the_attempts_are_real(attacked):
    """With nothing around it the same kind of program does report what it finds."""
    program = attacked('attempt("read", lambda: open("/proc/self/status").read())')
    assert "ESCAPED" in sandbox.run(program, "", PATIENT).stderr


def test_the_right_answer_passes():
    answers = {n: digest(n) for n in range(3)}
    assert sandbox.check(f"def f(x): return {answers}[x]", "f", TEST, limits=PATIENT).ok


def test_without_a_sandbox_a_program_gets_what_it_wants(attacked, monkeypatch):
    """The same program does report a find where nothing is around it."""
    program = attacked(ESCAPES["read files of the system and of the project"][0])
    with monkeypatch.context() as patch:
        patch.setenv("PATH", "")
        patch.setenv(sandbox.UNSANDBOXED, "1")
        sandbox._fault.cache_clear()
        outcome = sandbox.run(program, limits=Limits(seconds=20))
    sandbox._fault.cache_clear()
    assert "ESCAPED" in outcome.stderr
