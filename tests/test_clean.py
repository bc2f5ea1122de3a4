"""`harness clean` beside processes that are at work in the store, or delete in it too."""

import contextlib
import errno
import os
import resource
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness import store as stores
from harness.cli import main
from harness.family import load_family
from harness.planner import make_plan
from harness.store import Store

LEFT_OUT = "1 folders left out, in which another process is at work"


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path, "tiny-safety")
    made.prepare()
    return made


def step(folder, done=True):
    with folder.working({"kind": "x"}):
        (folder.path / "model").mkdir(exist_ok=True)
        (folder.path / "model" / "weights").write_bytes(b"w")
        if done:
            folder.finish({})
    return folder


def clean(store, *options):
    done = CliRunner().invoke(main, ["clean", "--results", str(store.root.parent), *options])
    assert done.exit_code == 0, done.output
    return done.output


def test_failed_steps_are_deleted_but_not_one_that_is_under_way(store):
    failed, under_way = step(store.model("failed--1"), done=False), store.model("at-work--1")
    with under_way.working({"kind": "x"}):
        for more in (["--dry-run"], []):
            assert LEFT_OUT in clean(store, "--failed", *more)
        assert under_way.path.is_dir() and not failed.path.exists()
        under_way.finish({})
    assert "0 folders" in clean(store, "--failed") and under_way.complete


@pytest.mark.parametrize("options", [["--weights"], ["--all"], ["--rows", "linear"]])
def test_a_merge_whose_evaluation_is_under_way_is_left_as_it_is(store, options):
    """Nothing of what the evaluation reads goes, whichever option names it."""
    plan = make_plan(load_family("tiny-safety"), store)
    merge = step(next(row.folder for row in plan.rows if row.is_merge and row.recipe.method == "linear"))
    with store.evaluation(merge, "task--1").working({"kind": "x"}):
        before = sorted(store.root.rglob("*"))
        for more in (["--dry-run"], []):
            told = clean(store, *options, *more)
            assert LEFT_OUT in told and "0 folders, 0.0 MiB" in told
        assert sorted(store.root.rglob("*")) == before
    told = clean(store, *options)
    assert "left out" not in told and not (merge.path / "model").exists()


def test_a_dry_run_keeps_nobody_out_and_deletes_nothing(store):
    failed = step(store.model("failed--1"), done=False)
    assert f"would delete {failed.path}" in clean(store, "--failed", "--dry-run")
    assert (failed.path / "model" / "weights").is_file()
    step(failed)


def test_a_store_may_have_more_steps_than_a_process_may_open_files(store):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 20, hard))
    try:
        for number in range(40):
            step(store.model(f"m--{number}"))
        clean(store, "--all")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not store.root.exists()


def test_folders_that_vanish_while_the_store_is_read_are_left_out(store, monkeypatch):
    kept, gone = step(store.model("kept--1")), store.model("gone--1").path
    scandir = os.scandir

    def scan(at="."):
        if not isinstance(at, int) and Path(at) == gone:
            with contextlib.suppress(FileNotFoundError):
                gone.rmdir()
        return scandir(at)

    monkeypatch.setattr(os, "scandir", scan)
    gone.mkdir()
    assert [folder.path for folder in store.folders()] == [kept.path]
    gone.mkdir()
    assert store.size(store.root) == store.size(kept.path) > 0


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOTEMPTY])
def test_what_another_process_deletes_at_the_same_time_is_gone_as_well(store, monkeypatch, number):
    failed = step(store.model("failed--1"), done=False)
    rmtree, tries = shutil.rmtree, []

    def disturbed(path, **more):
        tries.append(path)
        if len(tries) == 1:
            raise OSError(number, os.strerror(number), "a file")
        rmtree(path, **more)

    monkeypatch.setattr(stores.shutil, "rmtree", disturbed)
    assert "1 folders" in clean(store, "--failed") and not failed.path.exists()


def test_a_folder_that_never_gets_empty_is_told_in_two_lines(store, monkeypatch):
    step(store.model("failed--1"), done=False)

    def never(path, **more):
        raise OSError(errno.ENOTEMPTY, "Directory not empty", str(path))

    monkeypatch.setattr(stores.shutil, "rmtree", never)
    done = CliRunner().invoke(main, ["clean", "--results", str(store.root.parent), "--failed"])
    assert done.exit_code == 2 and "cannot be deleted" in done.output and "hint: " in done.output
