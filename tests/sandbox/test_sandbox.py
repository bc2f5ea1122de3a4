"""What a program may do in the sandbox, what the verdicts say, and that nothing outlives the caller."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness import sandbox
from harness.errors import HarnessError
from harness.sandbox import Limits, check, run

ROOT = Path(__file__).parent.parent.parent
boxed = pytest.mark.skipif(not sandbox.available(), reason=f"no bubblewrap here: {sandbox._fault()}")
SQUARE = "def check(candidate):\n    for n in (0, 3, -4):\n        assert candidate(n) == n * n\n"


@pytest.fixture
def no_bubblewrap(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv(sandbox.UNSANDBOXED, raising=False)
    sandbox._fault.cache_clear()
    yield monkeypatch
    sandbox._fault.cache_clear()


@pytest.fixture(params=[pytest.param("bubblewrap", marks=boxed), "none"])
def mode(request):
    """Each way to run a program; the verdicts are the same."""
    if request.param == "none":
        monkeypatch = request.getfixturevalue("no_bubblewrap")
        monkeypatch.setenv(sandbox.UNSANDBOXED, "1")
    assert sandbox.mode() == request.param
    return request.param


def test_a_program_reads_its_input_and_prints(mode):
    program = "import sys\nname = input()\nprint('hello', name, [int(x) for x in sys.stdin.read().split()])"
    outcome = run(program, "wörld\n1 2\n3\n")
    assert outcome.ok and outcome.stdout == "hello wörld [1, 2, 3]\n" and outcome.stderr == ""
    assert 0 < outcome.seconds < 10


@pytest.mark.parametrize(
    "program, stdin, stdout",
    [
        ("print(open('/dev/stdin').read())", "x", "x\n"),
        ("import os; print(os.read(0, 9))", "x", "b'x'\n"),
        ("print(1); exit()", "", "1\n"),
        ("import sys; print(1); sys.exit()", "", "1\n"),
        ("if __name__ == '__main__': print('main')", "", "main\n"),
        ("print(len(input()))", "x" * 300_000, "300000\n"),
        ("print('x' * 300_000)", "", "x" * 300_000 + "\n"),
        ("pass", "never read" * 100_000, ""),
        ("import numpy; print(numpy.arange(4).sum())", "", "6\n"),
        ("open('x', 'w').write('y'); print(open('x').read())", "", "y\n"),
        ("import tempfile; print(tempfile.TemporaryFile().write(b'abc'))", "", "3\n"),
        ("import threading as t\nx = t.Thread(target=print, args=(1,)); x.start(); x.join()", "", "1\n"),
        ("import heapq, bisect, decimal, fractions, functools, re, typing, datetime; print(1)", "", "1\n"),
        ("print(hash('x') == hash('x'), len({str(i) for i in range(9)}))", "", "True 9\n"),
    ],
)
def test_what_programs_do(mode, program, stdin, stdout):
    outcome = run(program, stdin)
    assert (outcome.status, outcome.stdout) == ("ok", stdout), outcome


def test_the_order_of_sets_is_the_same_each_time(mode):
    program = "print({str(i) for i in range(50)})"
    assert run(program).stdout == run(program).stdout


@pytest.mark.parametrize(
    "program, status, reason",
    [
        ("1 / 0", "failed", "ZeroDivisionError: division by zero"),
        ("def f(:", "failed", "SyntaxError: invalid syntax"),
        ("raise SystemExit(3)", "failed", "it ended with status 3"),
        ("import os; os.kill(os.getpid(), 9)", "failed", "it ended with status 137"),
        ("import time; time.sleep(99)", "time", "it took too long"),
        ("while True: print('x' * 999)", "output", "it printed too much"),
        ("x = bytearray(2**31)", "failed", "MemoryError"),
        ("open('x', 'wb').write(bytes(2**25))", "failed", "OSError: [Errno 27] File too large"),
    ],
)
def test_why_programs_fail(mode, program, status, reason):
    outcome = run(program, limits=Limits(seconds=0.5 if status == "time" else 10))
    assert (outcome.status, outcome.reason) == (status, reason)


def test_cpu_time_is_limited_by_itself(mode):
    outcome = run("while True: pass", limits=Limits(seconds=60, cpu_seconds=1))
    assert outcome.status == "time" and outcome.seconds < 30


def test_time_in_which_the_caller_stands_still_is_not_counted(tmp_path):
    """A machine that is paused, a harness that is stopped: a program that ended in time passes."""
    code = "from harness.sandbox import Limits, run; print('go', flush=True);"
    code += "print(run('import time; time.sleep(1)', limits=Limits(seconds=2.5)).status)"
    caller = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert caller.stdout.readline() == "go\n"
    time.sleep(0.6)
    caller.send_signal(signal.SIGSTOP)
    time.sleep(4)
    caller.send_signal(signal.SIGCONT)
    assert caller.communicate(timeout=60)[0] == "ok\n"


@pytest.mark.parametrize(
    "program, entry, status",
    [
        ("def f(x): return x * x", "f", "ok"),
        ("def f(x): return x * x + 1", "f", "failed"),
        ("def f(x): return float(x * x)", "f", "ok"),
        ("f = lambda x: print('debugging') or x * x", "f", "ok"),
        ("class Solution:\n    def f(self, x): return x * x", "Solution.f", "ok"),
        ("class Solution:\n    def f(self, x): return x", "Solution.f", "failed"),
        ("def g(x): return x * x", "f", "failed"),
        ("import numpy\ndef f(x): return numpy.int64(x) ** 2", "f", "ok"),
        ("def f(x):\n    if x: raise ValueError(x)\n    return 0", "f", "failed"),
        ("if __name__ == '__main__': raise SystemExit\ndef f(x): return x * x", "f", "ok"),
    ],
)
def test_a_function_is_put_through_tests(mode, program, entry, status):
    assert check(program, entry, SQUARE).status == status


def test_why_a_function_fails(mode):
    assert check("def g(): pass", "f", SQUARE).reason == "NameError: `f` is not defined"
    assert check("def f(x): raise ValueError('no')", "f", SQUARE).reason == "ValueError: no"
    late = check("import time\ndef f(x): time.sleep(9)", "f", SQUARE, call_seconds=0.3)
    assert (late.status, late.seconds < 5) == ("time", True)
    busy = check("def f(x):\n    while True: pass", "f", SQUARE, limits=Limits(seconds=0.5))
    assert busy.status == "time"


def test_tests_see_the_setup_and_the_candidate_under_its_name(mode):
    setup = "def twice(x): return 2 * x\ndef f(x):\n    'a stub'\n"
    test = "def check(candidate):\n    assert candidate(3) == f(3) == twice(3)\n"
    assert check("def twice(x): return 0\ndef f(x): return x + x", "f", test, setup).ok


def test_tests_that_do_not_run_are_not_the_candidates_fault(mode):
    for test in ("def check(", "x = 1", "import no_such_module"):
        with pytest.raises(HarnessError, match="tests of this benchmark do not run"):
            check("def f(x): return x", "f", test)


def test_tests_with_random_numbers_are_the_same_each_time(mode):
    test = "import random\ndef check(candidate): assert candidate(0) == random.random()"
    assert check("import random\nrandom.seed(0)\nx = random.random()\ndef f(_): return x", "f", test).ok


@boxed
def test_many_at_once_do_not_mix():
    with ThreadPoolExecutor(8) as pool:
        outcomes = pool.map(lambda n: run("print(int(input()) ** 2)", str(n)), range(24))
    assert [outcome.stdout for outcome in outcomes] == [f"{n * n}\n" for n in range(24)]


def test_nothing_is_left_open(mode):
    def opened():
        return len(os.listdir("/proc/self/fd"))

    run("print(1)")
    before = opened()
    for _ in range(3):
        run("1 / 0")
        check("def f(x): return x", "f", SQUARE)
        check("import os; os._exit(0)", "f", SQUARE)
    assert opened() == before
    assert subprocess.run(["/bin/ps", "--ppid", str(os.getpid()), "-o", "stat="], capture_output=True,
                          text=True).stdout.count("Z") == 0  # fmt: skip


@boxed
@pytest.mark.parametrize("how", ["run", "check"])
def test_all_dies_with_the_parent(how):
    limits = f"Limits(seconds=99, memory_mib=333, file_mib={11 + len(how)})"
    program = "import os, signal, time\nif os.fork() == 0: os.setsid()\nprint(1)\ntime.sleep(99)"
    call = {
        "run": f"run({program!r}, limits={limits})",
        "check": f"check({program!r}, 'f', {SQUARE!r}, limits={limits})",
    }
    code = f"from harness.sandbox import *\n{call[how]}"
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    mark = str((11 + len(how)) * 2**20).encode()

    def running():
        lines = [path for path in Path("/proc").glob("[0-9]*/cmdline")]
        return sum(mark in _words(path) and str(333 * 2**20).encode() in _words(path) for path in lines)

    assert _within(30, lambda: running() >= 4)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert _within(10, lambda: running() == 0)


def _words(path):
    try:
        return path.read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


def _within(seconds, condition):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def test_without_bubblewrap_nothing_runs(no_bubblewrap):
    assert not sandbox.available()
    for call in (sandbox.require, lambda: run("print(1)"), lambda: check("f = abs", "f", SQUARE)):
        with pytest.raises(HarnessError) as caught:
            call()
        assert caught.value.message == "generated code cannot be run in a sandbox: `bwrap` is not installed"
        assert "bubblewrap" in caught.value.hint and "--unsandboxed-code" in caught.value.hint


def test_a_bubblewrap_that_does_not_work_is_no_bubblewrap(no_bubblewrap, tmp_path):
    (tmp_path / "bwrap").write_text(
        "#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n"
    )
    (tmp_path / "bwrap").chmod(0o755)
    no_bubblewrap.setenv("PATH", str(tmp_path))
    with pytest.raises(HarnessError, match="No permissions to create new namespace"):
        run("print(1)")


def test_going_without_is_allowed_in_so_many_words(no_bubblewrap):
    sandbox.allow_unsandboxed()
    assert os.environ[sandbox.UNSANDBOXED] == "1"
    assert sandbox.mode() == "none" and run("print(1)").ok
    no_bubblewrap.setenv("HARNESS_SECRET", "x")
    assert run("import os; print(sorted(os.environ))").stdout.count("SECRET") == 0


@boxed
def test_the_sandbox_is_used_even_where_going_without_is_allowed(monkeypatch):
    monkeypatch.setenv(sandbox.UNSANDBOXED, "1")
    assert sandbox.mode() == "bubblewrap"


def test_importing_it_is_light():
    heavy = {"torch", "lm_eval", "datasets", "numpy"}
    code = f"import sys, harness.sandbox; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True).stdout == b"[]\n"
