"""A merge deletes nothing but its own work, and that only where it can never be finished."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from pathlib import Path

import pytest

from harness import registry
from harness.bridge import merging
from harness.checkpoint import part, write
from harness.checkpoint.part import Part
from harness.errors import HarnessError
from harness.merge import Job, engine, merge, output
from harness.method import configure
from tests.merge import slow_merges as slow
from tests.merge.test_merge_exact import digests
from tests.merge.test_merge_kill import KILL, SEEN, Fatal, killed


@pytest.fixture(autouse=True)
def alive():
    KILL["after"] = None
    SEEN.clear()


def full(monkeypatch, place, function, name: str | None = None) -> None:
    """The disk is full when `function` writes the file `name` (whatever it writes)."""
    real = getattr(place, function)

    def fails(path, *args, **kwargs):
        if name in (None, getattr(path, "name", None)):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(place, function, fails)


def test_a_refused_merge_leaves_the_first_its_work(inputs, tmp_path):
    merge(inputs, [Job(slow.Trim(), tmp_path / "alone")])
    said = []

    def second(phase, done, total):
        if not said:
            said.append(None)
            with pytest.raises(HarnessError, match="another process is writing") as caught:
                merge(inputs, [Job(slow.Trim(), tmp_path / "out")])
            said[0] = caught.value.hint

    record = merge(inputs, [Job(slow.Trim(), tmp_path / "out")], threads=1, progress=second)[0]
    assert said == ["wait for it to end"] and record["error"] is None
    assert digests(tmp_path / "out") == digests(tmp_path / "alone")
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("locked", [0, 1])
def test_a_folder_that_another_process_writes_stops_no_other_job(inputs, tmp_path, locked):
    killed(inputs, tmp_path / "out", 9, threads=1)
    held = tmp_path / ".held.part"
    held.mkdir()
    (held / "model.safetensors").write_text("of another process")
    jobs = [Job(Fatal(), tmp_path / "out")]
    jobs.insert(locked, Job(slow.Add(), tmp_path / "held"))
    with (held / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        records = merge(inputs, jobs, threads=1, on_error="record")
        assert "another process" in str(records[locked]["error"]) and records[1 - locked]["resumed"] == 9
        assert (held / "model.safetensors").read_text() == "of another process"
        with pytest.raises(HarnessError, match="another process"):
            merge(inputs, jobs)
        assert (held / "model.safetensors").exists()
    merge(inputs, [Job(Fatal(), tmp_path / "alone")])
    assert digests(tmp_path / "out") == digests(tmp_path / "alone")


@pytest.mark.parametrize(
    ("place", "name"), [(output, ".journal"), (part, "merge.json"), (output.os, None), (output.shutil, None)]
)
def test_a_disk_that_fills_deletes_no_finished_weights(inputs, tmp_path, place, name):
    killed(inputs, tmp_path / "out", 9, threads=1)
    job = Job(Fatal(), tmp_path / "out", replace=True)
    if place is output.shutil:  # the older model that is to be deleted
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.tex").touch()
    with pytest.MonkeyPatch.context() as patch:
        functions = {output.os: "rename", output.shutil: "rmtree"}
        full(patch, place, functions.get(place, "write_text"), name)
        with pytest.raises(HarnessError, match="No space left"):
            merge(inputs, [job], threads=1)
    done = 9 if name == ".journal" else len(inputs.base.tensors)
    assert merge(inputs, [job], threads=1)[0]["resumed"] == done
    merge(inputs, [Job(Fatal(), tmp_path / "alone")])
    assert digests(tmp_path / "out") == digests(tmp_path / "alone")
    assert not list(tmp_path.glob(".*")) and not list((tmp_path / "out").glob(".*"))


def test_a_disk_that_is_full_at_once_gets_its_room_back(inputs, tmp_path, monkeypatch):
    full(monkeypatch, write, "_allocate")
    with pytest.raises(HarnessError, match="No space left"):
        merge(inputs, [Job(slow.Add(), tmp_path / "out")])
    assert not list(tmp_path.iterdir())


def test_the_folder_is_held_until_it_has_its_name(inputs, tmp_path, monkeypatch):
    real, tried = os.rename, []

    def rename(old, new):
        if Path(new).name == "out":
            with pytest.raises(HarnessError, match="another process"):
                Part(new, "other").lock()
            tried.append(new)
        real(old, new)

    monkeypatch.setattr(os, "rename", rename)
    merge(inputs, [Job(slow.Add(), tmp_path / "out")])
    assert tried and [path.name for path in tmp_path.iterdir()] == ["out"]
    assert not list((tmp_path / "out").glob(".*"))


@pytest.mark.parametrize("same", [True, False])
def test_what_another_process_finished_just_before_is_seen(inputs, tmp_path, monkeypatch, same):
    real, first = engine._check_disk, []

    def check_disk(runs):  # this merge has looked at `to`, and does not hold it yet
        if not first:
            first.append(None)
            first[0] = merge(inputs, [Job(Fatal() if same else slow.Add(), tmp_path / "out")])[0]
            SEEN.clear()
        real(runs)

    monkeypatch.setattr(engine, "_check_disk", check_disk)
    jobs = [Job(Fatal(), tmp_path / "out"), Job(slow.Add(), tmp_path / "add")]
    records = merge(inputs, jobs, on_error="record")
    if same:
        assert records[0] == first[0] and not SEEN
    else:
        assert "already holds" in str(records[0]["error"]) and not SEEN
    assert records[1]["error"] is None and sorted(p.name for p in tmp_path.iterdir()) == ["add", "out"]


@pytest.fixture
def bridged(inputs, monkeypatch):
    """`mergekit:linear` of these inputs; what mergekit does is to hand back the base. `launched` counts."""

    def launch(folder):
        launched.append(folder)
        (folder / "model").mkdir()
        shutil.copyfile(inputs.base.path / "model.safetensors", folder / "model" / "model.safetensors")
        (folder / "result.json").write_text(json.dumps({"peak_mib": 1}))
        (folder / merging.LOG).write_text("done\n")
        return 0

    launched = []
    monkeypatch.setattr(merging, "launch", launch)
    method = configure(registry.method("mergekit:linear"), {})
    return lambda to, **options: merge(inputs, [Job(method, to)], **options)[0], launched


def test_mergekit_finds_what_another_process_finished_just_before(bridged, tmp_path):
    make, launched = bridged
    found = []

    def show(phase, done, total):  # this merge has looked at `to`, and does not hold it yet
        if not found:
            found.append(make(tmp_path / "out"))

    assert make(tmp_path / "out", progress=show)["mergekit"] == found[0]["mergekit"]
    assert len(launched) == 1 and [path.name for path in tmp_path.iterdir()] == ["out"]


def test_mergekit_leaves_a_folder_that_another_takes_to_it(bridged, tmp_path, monkeypatch):
    make, _ = bridged
    real, other = Path.rmdir, Part(tmp_path / "out", "other")

    def rmdir(path):
        if path == other.path and other._lock is None:
            other.lock()
        real(path)

    monkeypatch.setattr(Path, "rmdir", rmdir)
    assert make(tmp_path / "out")["error"] is None
    other.begin()
    assert other.resumable()
