"""A store that is full, read-only, or shared by two processes: comparisons as a user runs them."""

import contextlib
import csv
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers_disk import mounted

ASKED = ["--methods", "linear", "--tasks", "tiny_chain,tiny_prose", "--limit", "24"]
TURNED = ["--tasks", "tiny_prose,tiny_chain", "--methods", "linear", "--limit", "24"]
ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow


class Run:
    """`harness compare` in the folder `cwd`, begun."""

    def __init__(self, cwd, *args, mark="", before=()):
        self.cwd, self.root = cwd, cwd / "results" / "tiny-safety"
        cwd.mkdir(exist_ok=True)
        command = [*before, sys.executable, "-m", "harness.cli", "compare", *(args or ASKED)]
        self.said = cwd.parent / f"{cwd.name}{mark}.err"
        with self.said.open("w") as said:
            env = {**os.environ, "PYTHONPATH": str(ROOT)}
            self.process = subprocess.Popen(command, cwd=cwd, stdout=said, stderr=said, env=env)

    @property
    def err(self):
        return self.said.read_text()

    def end(self, code=0, timeout=240):
        assert self.process.wait(timeout=timeout) == code, self.err
        assert "Traceback" not in self.err
        return self.err

    def until(self, true, timeout=120):
        end = time.monotonic() + timeout
        while not true():
            assert self.process.poll() is None and time.monotonic() < end, self.err
            time.sleep(0.01)

    def stored(self):
        found = {}
        for path in self.root.glob("responses/*/*.sqlite"):
            with contextlib.suppress(sqlite3.Error), sqlite3.connect(path, timeout=5) as db:
                found |= dict(db.execute("select key, answer from responses"))
        return found

    def table(self):
        with (self.root / "report" / "table.csv").open(encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
        return [{k: v for k, v in line.items() if k not in ("merge_seconds", "peak_mib")} for line in lines]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    run = Run(tmp_path_factory.mktemp("undisturbed") / "run")
    run.end()
    return run


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 40 MB of its own."""
    with mounted(tmp_path / "disk", "40m") as disk:
        yield disk


def fill(disk):
    filler = disk / "filler"
    for size in (1 << 16, 512):
        with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
            while True:
                file.write(b"x" * size)
    return filler


@pytest.mark.parametrize("responses", [None, 1, 40], ids=["before", "at the first", "in the middle"])
def test_a_full_disk_ends_in_two_lines_and_with_room_the_run_goes_on(undisturbed, small_disk, responses):
    (small_disk / "results" / "tiny-safety").mkdir(parents=True)
    filler = fill(small_disk) if responses is None else None
    run = Run(small_disk)
    if filler is None:
        run.until(lambda: len(run.stored()) >= responses)
        filler = fill(small_disk)
    told = run.end(2).splitlines()[-2:]
    assert told[0].startswith("error: ") and ("space" in told[0] or "free" in told[0]), told
    assert told[1].startswith("hint: ") and "free some space" in told[1]
    kept = run.stored()
    filler.unlink()
    assert not list(run.root.rglob("*.tmp"))
    again = Run(small_disk)
    again.end()
    assert again.table() == undisturbed.table() and not list(run.root.rglob("error.txt"))
    stored = again.stored()
    assert stored == undisturbed.stored() and kept.items() <= stored.items()


WITHOUT = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]  # root, held to the modes of files


@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("setpriv"), reason="root without its rights")
def test_a_read_only_store_is_told_before_any_work_and_left_as_it_was(undisturbed, tmp_path):
    for empty in (True, False):
        cwd = tmp_path / ("empty" if empty else "full")
        cwd.mkdir()
        if empty:
            (cwd / "results").mkdir()
        else:
            shutil.copytree(undisturbed.cwd / "results", cwd / "results")
            shutil.rmtree(next(cwd.glob("results/*/models/linear--*/evals")))
        before = contents(cwd / "results")
        for path in [cwd / "results", *(cwd / "results").rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        run = Run(cwd, before=WITHOUT)
        *earlier, error, hint = run.end(2).splitlines()
        assert error.startswith("error: cannot write results/tiny-safety") and "Permission denied" in error
        assert hint.startswith("hint: choose another folder with `--results DIR`")
        assert not [line for line in earlier if "✓" in line or "✗" in line]
        assert contents(cwd / "results") == before


def contents(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


@pytest.mark.parametrize("order", [(ASKED, TURNED), (TURNED, ASKED)], ids=["there", "back"])
def test_two_processes_share_a_store(undisturbed, tmp_path, order):
    runs = [Run(tmp_path / "both", *asked, mark=str(at)) for at, asked in enumerate(order)]
    for run in runs:
        run.end()
    assert runs[0].stored() == undisturbed.stored()
    done = {path: path.stat().st_mtime_ns for path in runs[0].root.rglob("done.json")}
    last = Run(tmp_path / "both")
    assert "eval " not in last.end()
    assert last.table() == undisturbed.table()
    assert done == {path: path.stat().st_mtime_ns for path in runs[0].root.rglob("done.json")}
    assert not list(runs[0].root.rglob("*.tmp")) and not list(runs[0].root.rglob("error.txt"))


def test_who_waits_can_be_stopped_and_goes_on_when_the_other_is_killed(undisturbed, tmp_path):
    one = Run(tmp_path / "both", mark="1")
    one.until(lambda: len(one.stored()) >= 1)
    one.process.send_signal(signal.SIGSTOP)  # holds what it is at
    stopped, waiting = Run(tmp_path / "both", mark="2"), Run(tmp_path / "both", mark="3")
    for run in (stopped, waiting):
        run.until(lambda run=run: "another process is at it" in run.err)
    stopped.process.send_signal(signal.SIGINT)
    assert "the same command goes on from here" in stopped.end(130, timeout=30)
    kept = one.stored()
    one.process.kill()
    waiting.end()
    assert waiting.table() == undisturbed.table() and waiting.stored() == undisturbed.stored()
    assert kept.items() <= waiting.stored().items()
