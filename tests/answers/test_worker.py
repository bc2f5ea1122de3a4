"""The comparison worker: hostile input costs a worker, never the run; threads, forks and dead parents."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness.answers import comparison_timeouts, same_math, same_math_or_timeout, worker

HOSTILE = [
    "9^{9^{9^{9}}}",
    "2^{10000000000}",
    "10^{10^{10}}!",
    "\\sum_{k=1}^{10^{10}} \\frac{1}{k!}",
    "(x+y+z+w)^{5000}",
]
UNPARSABLE = [
    "{" * 30,
    "}" * 30,
    "\\frac{1}{0}",
    "\\frac{",
    "\\begin{pmatrix} 1 & \\end{pmatrix}",
    "\0\n\r",
    "\ud800",
    "import os; os.system('true')",
    "__import__('os').system('true')",
    "\\input{/etc/passwd}",
    "]\n[",
    "x" * 900,
]


@pytest.fixture(scope="module")
def pool():
    made = worker.Pool(seconds=1)
    yield made
    made.close()


def test_a_runaway_comparison_is_stopped_and_counted_and_the_next_one_works(pool):
    started, before = time.monotonic(), pool.timeouts
    assert pool.compare("\\frac{7}{3}", HOSTILE[0]) is None
    assert time.monotonic() - started < 30
    assert pool.timeouts == before + 1
    assert pool.compare("\\frac{7}{3}", "\\frac{14}{6}") is True


@pytest.mark.slow
@pytest.mark.parametrize("found", HOSTILE[1:])
def test_more_runaway_comparisons(pool, found):
    assert pool.compare("\\frac{7}{3}", found) is not True
    assert pool.compare("\\frac{7}{3}", "\\frac{14}{6}") is True


@pytest.mark.parametrize("found", UNPARSABLE)
def test_what_is_no_mathematics_is_different(pool, found):
    assert pool.compare("\\frac{7}{3}", found) is False
    assert pool.compare("x^2", "x\\cdot x") is True


def test_a_very_long_answer_is_not_even_asked():
    before = comparison_timeouts()
    assert same_math_or_timeout("1+" * 100_000 + "1", "\\frac{7}{3}") is False
    assert not same_math(None, "7") and not same_math("  ", "7")
    assert comparison_timeouts() == before


def test_several_threads_compare_at_once(pool):
    pairs = [(f"\\sqrt{{{n * n * 3}}}", f"{n + n % 2}\\sqrt{{3}}") for n in range(1, 25)]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda pair: pool.compare(*pair), pairs))
    assert found == [n % 2 == 0 for n in range(1, 25)]


def test_a_killed_worker_is_replaced(pool):
    before = pool.timeouts
    assert pool.compare("x+1", "1+x") is True
    known = pool.idle.get()
    os.kill(known.process.pid, signal.SIGKILL)
    known.process.wait()
    pool.idle.put(known)
    assert pool.compare("x+1", "1+x") is True and pool.timeouts == before


def test_two_hundred_comparisons_take_seconds(pool):
    started = time.monotonic()
    for n in range(200):
        assert pool.compare(f"\\frac{{{n + 1}}}{{7}}", f"\\frac{{{2 * n + 2}}}{{14}}")
    assert time.monotonic() - started < 30


def test_importing_starts_nothing_and_loads_nothing_heavy():
    code = "import sys, harness.answers; print({'sympy', 'math_verify', 'torch'} & {*sys.modules})"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "set()"


PARENT = """
import os, sys
from harness.answers import worker
assert worker.compare("x+1", "1+x") is True
print(worker._pool.idle.get().process.pid, flush=True)
if sys.argv[1] == "killed":
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("end", ["regular", "killed"])
def test_workers_end_with_the_process(end):
    told = subprocess.run([sys.executable, "-c", PARENT, end], capture_output=True, text=True)
    pid = int(told.stdout)
    for _ in range(100):
        if not os.path.exists(f"/proc/{pid}") or "zombie" in open(f"/proc/{pid}/status").read():
            return
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("the worker lives on without its parent")


FORKED = """
import os
from harness.answers import worker
assert worker.compare("x+1", "1+x") is True
child = os.fork()
same = worker.compare("x+2", "2+x") is True and worker.compare("x+2", "3+x") is False
if child == 0:
    worker._pool.close()
    os._exit(0 if same else 1)
_, status = os.waitpid(child, 0)
assert same and status == 0, (same, status)
"""


def test_a_forked_process_has_workers_of_its_own():
    subprocess.run([sys.executable, "-c", FORKED], check=True)
