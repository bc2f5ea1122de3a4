"""The response store: what goes in comes out, models never share, a damaged or full file is an error."""

import contextlib
import multiprocessing
import os
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import HarnessError
from harness.evaluate import shared
from harness.evaluate import store as store_file
from harness.evaluate.store import ResponseStore, canonical
from harness.store import digest
from tests.helpers_disk import mounted

text = st.text(st.characters(blacklist_categories=["Cs"]))
floats = st.floats(allow_nan=False)
answers = st.fixed_dictionaries({"text": text, "logprob": floats, "tokens": st.integers()})


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(context=text, answer=answers)
def test_round_trip_is_exact(tmp_path_factory, context, answer):
    store = ResponseStore(tmp_path_factory.mktemp("store") / "r.sqlite", "f" * 64)
    request = {"kind": "generate", "context": context}
    key = store.key(request)
    assert store.get([key]) == {}
    store.put([(key, request, answer)])
    store.close()
    again = ResponseStore(store.path, "f" * 64)
    assert again.get([again.key(request), "0" * 64]) == {key: answer}
    again.close()


def test_the_key_depends_on_model_and_on_every_part_of_the_request(tmp_path):
    one, two = ResponseStore(tmp_path / "r", "model one"), ResponseStore(tmp_path / "r", "model two")
    request = {"kind": "generate", "context": "a", "kwargs": {"do_sample": False}, "repeat": 0, "seed": 0}
    changes = [
        {"kind": "loglikelihood"},
        {"context": "a "},
        {"kwargs": {"do_sample": True}},
        {"repeat": 1},
        {"seed": 1},
    ]
    variants = [request, *(request | change for change in changes)]
    keys = {store.key(v) for store in (one, two) for v in variants}
    assert len(keys) == 12
    assert one.key(request) == one.key(dict(reversed(request.items())))
    one.put([(one.key(request), request, "of one")])
    assert two.get([two.key(request)]) == {}


def test_the_first_answer_stands_and_many_keys_are_found(tmp_path):
    store = ResponseStore(tmp_path / "r", "m")
    store.put([(str(i), {}, i) for i in range(2345)])
    store.put([("7", {}, "another"), ("new", {}, "kept")])
    assert store.get(map(str, range(3000))) == {str(i): i for i in range(2345)}
    assert store.get(["new"]) == {"new": "kept"}
    assert len(store) == 2346


def _write(path, start, network):
    os.environ["HARNESS_STORE"] = "network" if network else "local"
    store = ResponseStore(path, "m")
    for i in range(start, start + 50):
        store.put([(str(i), {}, i)])


@pytest.mark.parametrize("network", [False, True])
def test_processes_write_at_once(tmp_path, network):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_write, args=(tmp_path / "r", at, network)) for at in (0, 25, 60)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    store = ResponseStore(tmp_path / "r", "m")
    assert len(store) == 110 and store.get(map(str, range(110))) == {str(i): i for i in range(110)}
    assert store._journal() == ("delete" if network else "wal")
    assert sound(tmp_path / "r")


def sound(path):
    with contextlib.closing(sqlite3.connect(path)) as db:
        return db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_network_file_system_gets_a_rollback_journal(tmp_path, monkeypatch):
    assert shared.file_system(tmp_path) is None, "this test needs a local disk"
    local = ResponseStore(tmp_path / "r", "m")
    local.put([("a", {}, 1)])
    assert local._journal() == "wal"
    local.close()
    number = int(subprocess.check_output(["stat", "-f", "-c", "%t", tmp_path]), 16)
    monkeypatch.setitem(shared.MAGIC, number, "a network")  # the one this disk has
    moved = ResponseStore(tmp_path / "r", "m")
    assert moved._journal() == "delete" and moved.get(["a"]) == {"a": 1}
    assert moved._db.execute("PRAGMA synchronous").fetchone() == (2,), "FULL"
    moved.put([("b", {}, 2)])
    assert not list(tmp_path.glob("r-*")), "nothing beside it that other machines would have to share"
    moved.close()
    monkeypatch.setenv("HARNESS_STORE", "local")
    assert ResponseStore(tmp_path / "r", "m")._journal() == "delete", "a file keeps a network's journal"
    assert ResponseStore(tmp_path / "s", "m")._journal() == "wal"
    monkeypatch.setenv("HARNESS_STORE", "netwrok")
    with pytest.raises(HarnessError) as error:
        ResponseStore(tmp_path / "t", "m")
    assert error.value.hint == "did you mean `network`?"


def test_a_log_that_another_machine_uses_is_an_error(tmp_path, monkeypatch):
    busy = ResponseStore(tmp_path / "r", "m")
    busy.put([("a", {}, 1)])
    monkeypatch.setenv("HARNESS_STORE", "network")
    monkeypatch.setattr(store_file, "PATIENCE", 0.1)
    with pytest.raises(HarnessError, match="response store"):
        ResponseStore(tmp_path / "r", "m")
    assert busy.get(["a"]) == {"a": 1}
    busy.put([("b", {}, 2)])


@pytest.mark.parametrize(
    "path, name", [("/proc", None), ("/dev/shm", None), ("/tmp", None)], ids=["proc", "shm", "tmp"]
)
def test_local_file_systems_are_told(path, name):
    assert shared.file_system(Path(path)) is name


BIG = "x" * 3000
LIMITED = """
import resource, sys
from pathlib import Path
from harness.errors import HarnessError
from harness.evaluate import shared
from harness.evaluate import store as store_file
from harness.evaluate.store import ResponseStore, canonical
from harness.store import digest
path, network, kept = Path(sys.argv[1]), sys.argv[2] == "network", 0
store = ResponseStore(path, "m")
if sys.argv[3] == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    for i in range(1000):
        store.put([(f"{i}-{j}", {}, "x" * 3000) for j in range(4)])
        kept = i + 1
except HarnessError as error:
    print(error.message, error.hint, sep="\\n")
print(kept)
"""


def filled(path, network, how):
    """(the two lines of the error, rows that were stored) of a process that writes until nothing goes on."""
    out = subprocess.run(
        [sys.executable, "-c", LIMITED.replace("\\\\", "\\"), path, network, how],
        env={**os.environ, "HARNESS_STORE": network, "PYTHONPATH": str(Path(__file__).parents[2])},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    return out[:-1], int(out[-1])


def check_kept(path, count):
    assert 0 < count < 1000
    assert sound(path)
    store = ResponseStore(path, "m")
    keys = [f"{i}-{j}" for i in range(count) for j in range(4)]
    assert store.get(keys) == dict.fromkeys(keys, BIG), "what was stored is there"
    assert store.get([f"{count}-{j}" for j in range(4)]) == {}, "and nothing of the batch that failed"
    store.put([(f"{count}-0", {}, "goes on")])
    assert len(store) == 4 * count + 1
    store.close()


@pytest.mark.parametrize("network", ["local", "network"])
def test_a_limit_of_the_file_size_loses_the_last_batch_alone(tmp_path, network):
    path = tmp_path / "r.sqlite"
    lines, count = filled(path, network, "limit")
    assert len(lines) == 2 and str(path) in lines[0] and "what is stored stays" in lines[1]
    check_kept(path, count)


@pytest.mark.parametrize("network", ["local", "network"])
def test_a_full_disk_loses_the_last_batch_alone(tmp_path, network):
    with mounted(tmp_path / "disk", "600k") as disk:
        path = disk / "r.sqlite"
        lines, count = filled(path, network, "disk")
        assert len(lines) == 2 and str(path) in lines[0] and "what is stored stays" in lines[1]
        subprocess.run(["mount", "-o", "remount,size=4m", disk], check=True)
        check_kept(path, count)


@pytest.mark.skipif(os.getuid() != 0, reason="becomes another user")
@pytest.mark.parametrize("network", ["local", "network"])
def test_a_store_that_may_not_be_written_is_an_error(network, monkeypatch):
    monkeypatch.setenv("HARNESS_STORE", network)
    with tempfile.TemporaryDirectory() as folder:  # pytest's own lets nobody else in
        os.chmod(folder, 0o755)
        check_unwritable(Path(folder) / "r.sqlite")


def check_unwritable(path):
    store = ResponseStore(path, "m")
    store.put([("a", {}, 1)])
    store.close()
    before = path.read_bytes()
    path.chmod(0o644)
    os.seteuid(65534)
    try:
        with pytest.raises(HarnessError) as error:
            found = ResponseStore(path, "m")
            found.put([("b", {}, 2)])
        with pytest.raises(HarnessError):
            ResponseStore(path.parent / "new.sqlite", "m")
    finally:
        os.seteuid(0)
    assert str(path) in error.value.message and "writable" in error.value.hint
    assert path.read_bytes() == before


def test_damaged_pages_are_told_and_not_written_over(tmp_path):
    path = tmp_path / "r.sqlite"
    store = ResponseStore(path, "m")
    store.put([(str(i), {}, BIG) for i in range(50)])
    store.close()
    data = bytearray(path.read_bytes())
    data[4096:] = bytes(reversed(data[4096:]))
    path.write_bytes(data)
    with pytest.raises(HarnessError) as error:
        store = ResponseStore(path, "m")
        store.get(map(str, range(50)))
    assert str(path) in error.value.message and "delete it" in error.value.hint
    assert path.read_bytes() == data


def test_an_answer_that_is_no_json_is_told(tmp_path):
    store = ResponseStore(tmp_path / "r", "m")
    store._db.execute("INSERT INTO responses VALUES ('a', '{}', '{half')")
    with pytest.raises(HarnessError) as error:
        store.get(["a"])
    assert "delete it" in error.value.hint


@given(request=st.dictionaries(text, st.one_of(text, floats, st.integers(), st.lists(text))), mark=text)
def test_keys_stay_what_they_were(request, mark, tmp_path_factory):
    """A store of an earlier version is found again."""
    store = ResponseStore(tmp_path_factory.mktemp("store") / "r", mark)
    assert store.key(request) == digest({"model": mark, "request": request}) == store.key(canonical(request))
    store.close()


def test_a_damaged_file_and_a_missing_folder_are_two_line_errors(tmp_path):
    damaged = tmp_path / "r.sqlite"
    damaged.write_bytes(b"SQLite format 3\0" + b"rubbish" * 1000)
    with pytest.raises(HarnessError, match=r"response store .*r\.sqlite"):
        ResponseStore(damaged, "m")
    with pytest.raises(HarnessError, match="response store"):
        ResponseStore(tmp_path / "absent" / "r.sqlite", "m")


def test_a_write_that_fails_keeps_nothing_of_its_batch(tmp_path):
    store = ResponseStore(tmp_path / "r", "m")
    store.put([("a", {}, 1)])
    blocker = sqlite3.connect(tmp_path / "r", isolation_level=None)
    blocker.execute(
        "CREATE TRIGGER no BEFORE INSERT ON responses WHEN NEW.key = 'c' "
        "BEGIN SELECT RAISE(ABORT, 'disk is full'); END"
    )
    with pytest.raises(HarnessError, match="disk is full"):
        store.put([("b", {}, 2), ("c", {}, 3)])
    assert store.get(["a", "b", "c"]) == {"a": 1}
    store.put([("b", {}, 2)])
    assert store.get(["b"]) == {"b": 2}
