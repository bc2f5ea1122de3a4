"""Weights that are not kept: nobody else's, gone with their run, and gone after it if it was killed."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from harness import spool
from harness.errors import HarnessError

HOLDS = """
import sys, time
from pathlib import Path
from harness.spool import Spool
with Spool(Path(sys.argv[1])) as held:
    (held.path / "weights").write_bytes(b"x" * 1000)
    print(held.path, flush=True)
    time.sleep(60)
"""
BUSY = """
import sys
from pathlib import Path
from harness import spool
place = Path(sys.argv[1])
for _ in range(40):
    with spool.Spool(place) as held:
        (held.path / "weights").write_bytes(b"x")
        spool.sweep(place)
        assert (held.path / "weights").is_file()
"""


def holding(place):
    """A process with a spool in `place`, and the spool's folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLDS, str(place)], stdout=subprocess.PIPE, text=True)
    return process, Path(process.stdout.readline().strip())


@pytest.fixture
def home(tmp_path):
    return tmp_path / f"harness-{os.getuid()}"


def test_it_is_private_and_goes_with_its_block(tmp_path, home):
    with spool.Spool(tmp_path) as held, spool.Spool(tmp_path) as other:
        assert held.path.parent == home and held.path != other.path
        assert [stat.S_IMODE(path.stat().st_mode) for path in (home, held.path)] == [0o700, 0o700]
        (held.path / "model").mkdir()
        (held.path / ".model.part").mkdir()
        held.remove(held.path / "model")
        assert [path.name for path in held.path.iterdir()] == [spool.LOCK]
        (held.path / "rest").write_text("x")
    assert not held.path.exists() and not other.path.exists()


def test_a_killed_runs_folder_goes_and_a_living_ones_stays(tmp_path):
    (dead, left), (alive, kept) = holding(tmp_path), holding(tmp_path)
    try:
        assert spool.sweep(tmp_path) == 0
        dead.kill()
        dead.wait()
        assert spool.sweep(tmp_path) == 1
        assert not left.exists() and (kept / "weights").is_file()
    finally:
        alive.kill()
        alive.wait()
    assert spool.sweep(tmp_path) == 1 and spool.sweep(tmp_path) == 0


def test_the_lock_counts_and_not_the_number_of_a_process(tmp_path, home):
    with spool.Spool(tmp_path):
        reused, unlocked = home / f"{os.getpid()}-reused", home / "1-killed-before-it-was-locked"
        for folder in (reused, unlocked):
            folder.mkdir()
        (reused / spool.LOCK).touch()
        assert spool.sweep(tmp_path) == 2 and not reused.exists() and not unlocked.exists()


def test_processes_that_make_and_sweep_at_once_leave_each_other_alone(tmp_path, home):
    command = [sys.executable, "-c", BUSY, str(tmp_path)]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for process in running:
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
    assert [path.name for path in home.iterdir()] == [spool.LOCK]


@pytest.mark.parametrize("make", ["link", "open", "file"])
def test_a_folder_that_others_can_write_is_not_used(tmp_path, home, make):
    theirs = tmp_path / "theirs"
    (theirs / "1-x").mkdir(parents=True)
    if make == "link":
        home.symlink_to(theirs)
    elif make == "open":
        (home / "1-x").mkdir(parents=True)
        home.chmod(0o777)
    else:
        home.write_text("in the way")
    assert not spool.usable(tmp_path) and spool.sweep(tmp_path) == 0
    with pytest.raises(HarnessError, match="is not a folder of yours alone"), spool.Spool(tmp_path):
        pass
    assert (theirs / "1-x").is_dir() and (make != "open" or (home / "1-x").is_dir())


def test_room_in_memory_is_what_the_process_may_take(tmp_path, monkeypatch):
    assert spool.free(tmp_path / "none") == 0 and not spool.usable(tmp_path / "none")
    assert spool.free(tmp_path) > 1000
    monkeypatch.setattr(spool, "MEMORY", tmp_path)
    monkeypatch.setattr(spool, "host_memory", lambda: (10**12, 1000))
    assert spool.free(tmp_path) == 1000
