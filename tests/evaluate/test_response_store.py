"""The response store: what goes in comes out, models never share, a damaged or full file is an error."""

import multiprocessing
import sqlite3

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import HarnessError
from harness.evaluate.store import ResponseStore

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


def _write(path, start):
    store = ResponseStore(path, "m")
    for i in range(start, start + 50):
        store.put([(str(i), {}, i)])


def test_two_processes_write_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_write, args=(tmp_path / "r", start)) for start in (0, 25)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert len(ResponseStore(tmp_path / "r", "m")) == 75


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
