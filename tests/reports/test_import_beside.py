"""Imported rows that several processes write, read or delete at once, or whose import is killed."""

import errno
import json
import multiprocessing
import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.board.cells import headings_of
from harness.board.imported import import_results, imported_rows
from harness.cli import main
from harness.errors import HarnessError
from harness.store import Store
from harness.tasks import named
from tests.reports.test_import import CHAIN, DATE, FILE, choices, sample

TASKS = ("tiny_chain", "tiny_facts_mc")
RENAME = Path.rename


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results", "tiny-safety")


@pytest.fixture
def write(tmp_path):
    """A result file with the accuracy `value`, with samples."""

    def one(value, model="our-model", name="out"):
        told = json.loads(json.dumps({**FILE, "model_name": model}))
        told["results"][CHAIN]["accuracy,none"] = value
        folder = tmp_path / f"{name}-{value}"
        folder.mkdir(exist_ok=True)
        (folder / f"results_{DATE}.json").write_text(json.dumps(told))
        for task, line in ((CHAIN, sample(0, 1.0)), ("harness_tiny_facts_mc", choices(0))):
            (folder / f"samples_{task}_{DATE}.jsonl").write_text(json.dumps(line) + "\n")
        return folder / f"results_{DATE}.json"

    return one


def take(file, store, label="x"):
    return import_results(file, store, named(TASKS), label)


def values(store):
    rows = imported_rows(store, headings_of(named(TASKS)))
    return {row.label: row.cells["tiny_chain", "accuracy"].value for row in rows}


def shown(store):
    """What lies beside the rows, in the folder of those that were imported and in the store."""
    return {path.name for folder in (store.root, store.root / "imported") for path in folder.iterdir()}


def test_a_row_that_is_being_replaced_is_read_as_it_was_or_as_it_is(store, write, monkeypatch):
    take(write(0.25), store)
    seen, reader = [], threading.Thread(target=lambda: seen.append(values(store)))

    def slowly(path, to):
        RENAME(path, to)
        if path.parent.name == "imported":  # the old row is away, and the new one not there
            reader.start()
            reader.join(0.5)

    monkeypatch.setattr(Path, "rename", slowly)
    take(write(0.5), store)
    reader.join()
    assert seen == [{"x": 0.5}]


def test_imports_of_one_label_take_turns(store, write, monkeypatch):
    def slowly(path, to):
        time.sleep(0.05)
        return RENAME(path, to)

    files = [write(value) for value in (0.0, 0.25, 0.5, 0.75)]
    monkeypatch.setattr(Path, "rename", slowly)
    with ThreadPoolExecutor(4) as pool:  # which share a process id, as containers may
        told = list(pool.map(lambda file: take(file, store), files))
    assert [one.label for one in told] == ["x"] * 4 and sum(one.replaced is None for one in told) == 1
    assert values(store)["x"] in (0.0, 0.25, 0.5, 0.75)
    assert {name for name in shown(store) if not name.startswith("x--")} == {"imported", ".lock"}


def test_of_two_models_imported_at_once_under_one_label_one_is_refused(store, write, monkeypatch):
    def slowly(path, to):
        time.sleep(0.05)
        return RENAME(path, to)

    files = [write(0.5, model, name=model) for model in ("one", "two")]
    monkeypatch.setattr(Path, "rename", slowly)
    with ThreadPoolExecutor(2) as pool:
        told = [pool.submit(take, file, store).exception() for file in files]
    (refused,) = filter(None, told)
    assert isinstance(refused, HarnessError) and "`x` is the row of" in refused.message


@pytest.mark.parametrize("when", ["before", "between", "after"])
def test_a_killed_import_loses_no_row_and_the_next_sweeps_what_it_left(store, write, when):
    take(write(0.25), store)
    killed, at = write(0.5), {"before": 0, "between": 1, "after": 2}[when]

    def child():
        done = []

        def counted(path, to):
            if len(done) == at:
                os._exit(9)
            RENAME(path, to)
            done.append(path)
            if len(done) == at == 2:
                os._exit(9)

        Path.rename = counted
        take(killed, store)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    assert process.exitcode == 9
    take(write(0.75), store, "y")
    assert values(store) == {"x": 0.5 if when == "after" else 0.25, "y": 0.75}
    left = {name for name in shown(store) if name.partition("--")[0] not in ("x", "y")}
    assert left == {"imported", ".lock"}


def test_an_exchange_that_fails_leaves_the_row_as_it_was(store, write, monkeypatch):
    take(write(0.25), store)
    moved = []

    def full(path, to):
        moved.append(path)
        if len(moved) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return RENAME(path, to)

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(HarnessError, match="cannot write"):
        take(write(0.5), store)
    monkeypatch.undo()
    assert values(store) == {"x": 0.25}


def test_a_row_that_was_deleted_does_not_come_back(store, write):
    """What a killed import left of it is swept when it is deleted."""
    take(write(0.25), store)
    (row,) = (store.root / "imported").glob("x--*")
    box = row.parent / ".importing-killed"
    box.mkdir()
    shutil.copytree(row, box / row.name)
    done = CliRunner().invoke(main, ["clean", "--results", str(store.root.parent), "--rows", "x"])
    assert done.exit_code == 0, done.output
    take(write(0.5), store, "y")
    assert values(store) == {"y": 0.5}


def test_an_imported_row_can_be_read_by_all_who_can_read_the_store(store, write):
    take(write(0.25), store)
    (row,) = (store.root / "imported").glob("x--*")
    assert row.stat().st_mode == store.root.stat().st_mode


def test_an_import_waits_for_the_store_to_be_deleted_and_makes_it_anew(store, write):
    from harness.board.imported import writing

    take(write(0.25), store)
    file = write(0.5)
    with ThreadPoolExecutor(1) as pool, writing(store.root / "imported"):
        later = pool.submit(take, file, store)
        time.sleep(0.3)
        assert not later.done()
        shutil.rmtree(store.root)
    assert later.result().replaced is None and values(store) == {"x": 0.5}
