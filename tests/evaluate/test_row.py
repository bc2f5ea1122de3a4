"""All tasks of one model as one stream: whose answer is whose, what fails alone, what a kill costs."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from harness.errors import HarnessError
from harness.evaluate import EvalRequest, Evaluator, load_task
from harness.evaluate.engine import Engine, EvaluationError
from harness.evaluate.row import evaluate_row
from harness.evaluate.store import ResponseStore

TASKS = Path(__file__).parents[2] / "tasks"
ALL = ("tiny_chain", "tiny_facts", "tiny_facts_mc", "tiny_prose", "tiny_refusal")


@pytest.fixture
def evaluator(scripted):
    name, settings = scripted
    with Evaluator() as made:
        made.engine = Engine(name, settings)
        yield made


@pytest.fixture
def request_for(tmp_path):
    def make(task, mark="row", **changes):
        (tmp_path / "model").mkdir(exist_ok=True)
        file = load_task(TASKS / f"{task}.yaml") if isinstance(task, str) else task
        folder = tmp_path / mark / file.name
        folder.mkdir(parents=True, exist_ok=True)
        return EvalRequest(tmp_path / "model", "f", file, folder, folder / "r.sqlite", **changes)

    return make


def asked(scripted):
    return Path(scripted[1]["record"]).read_text().splitlines()


def run(evaluator, requests, progress=None):
    """What became of each task, by name."""
    told = {}

    def finished(request, record):
        assert request.task.name not in told, "told twice"
        told[request.task.name] = record

    evaluate_row(evaluator, requests, progress or (lambda *_: None), finished).wait()
    return told


def rows_of(request):
    return pq.read_table(request.folder / "samples.parquet").to_pylist()


def stored(request):
    store = ResponseStore(request.responses, "f")
    rows = store._db.execute("SELECT request FROM responses").fetchall()
    store.close()
    return sum('"kind":"render"' not in text for (text,) in rows)


def own_task(folder, name, code, rows, **settings):
    """A task of one file: `code` is the body of `score(response, row)`, `rows` Python for a list of rows."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(
        "import time\nfrom harness import Score, generated, scorer\n\n"
        f'@generated("test")\ndef rows(split):\n    return {rows}\n\n'
        f'@scorer("accuracy")\ndef score(response, row):\n{textwrap.indent(code, "    ")}\n'
    )
    settings = {"until": "[]", "do_sample": "false", **settings}
    kwargs = ", ".join(f"{key}: {value}" for key, value in settings.items())
    (folder / f"{name}.yaml").write_text(
        f"task: harness_{name}\ncustom_dataset: !function {name}.rows\ntest_split: test\n"
        "output_type: generate_until\ndoc_to_text: question\ndoc_to_target: answer\n"
        f"generation_kwargs: {{{kwargs}}}\nprocess_results: !function {name}.score\n"
        "metric_list:\n  - {metric: accuracy, aggregation: mean, higher_is_better: true}\n"
        "metadata:\n  version: 1\n  harness: {title: t, group: g, paper: p, licence: l,\n"
        "    revision: generated, profile: standard, higher_is_better: true}\n"
    )
    return load_task(folder / f"{name}.yaml")


ROWS = "[{'question': f'what is {i}', 'answer': str(i)} for i in range(12)]"


def test_a_row_gives_what_its_tasks_give_alone_in_one_call_per_kind(evaluator, request_for, scripted):
    alone = {name: evaluator.evaluate(request_for(name, "alone")) for name in ALL}
    count = len(asked(scripted))
    calls, run_engine = [], evaluator.engine.run
    evaluator.engine.run = lambda model, kind, sent: (calls.append(kind), run_engine(model, kind, sent))[1]
    together = run(evaluator, [request_for(name) for name in ALL])
    assert calls == ["generate", "loglikelihood", "loglikelihood_rolling"]
    assert len(asked(scripted)) == 2 * count == 2 * (200 + 150 + 600 + 60 + 200)
    for name in ALL:
        for key in ("metrics", "rates", "tokens_per_response", "generated", "from_store"):
            assert together[name][key] == alone[name][key], (name, key)
        assert rows_of(request_for(name)) == rows_of(request_for(name, "alone"))
    again = run(evaluator, [request_for(name) for name in ALL])
    assert {name: again[name]["generated"] for name in ALL} == dict.fromkeys(ALL, 0)
    assert len(asked(scripted)) == 2 * count


def test_the_engine_stays_from_kind_to_kind_and_from_row_to_row(evaluator, request_for):
    run(evaluator, [request_for("tiny_chain", "first", limit=4)])
    pid = evaluator.engine.pid
    assert pid is not None
    run(evaluator, [request_for(task, "second", limit=4) for task in ALL])
    assert evaluator.engine.pid == pid


def test_an_identical_request_of_two_tasks_is_asked_once_and_reaches_both(
    evaluator, request_for, scripted, tmp_path
):
    folder = tmp_path / "tasks"
    right = own_task(folder, "right", "return Score(float(response.startswith('answer')))", ROWS)
    wrong = own_task(folder, "wrong", "return Score(float(not response.startswith('answer')))", ROWS)
    other = own_task(folder, "other", "return Score(1.0)", ROWS.replace("what is", "who is"))
    requests = [request_for(task) for task in (right, wrong, other)]
    told = run(evaluator, requests)
    assert len(asked(scripted)) == 24
    assert [told[name]["metrics"]["accuracy"]["value"] for name in ("right", "wrong", "other")] == [1, 0, 1]
    assert [stored(request) for request in requests] == [12, 12, 12]
    for request in requests:
        for row in rows_of(request):
            assert row["response"] == f"answer {len(row['prompt']) % 20}"


def test_repeats_and_seeds_are_each_tasks_own(evaluator, request_for, scripted, tmp_path):
    folder = tmp_path / "tasks"
    drawn = own_task(folder, "drawn", "return Score(1.0)", ROWS, do_sample="true", temperature=0.7)
    greedy = own_task(folder, "greedy", "return Score(1.0)", ROWS)
    wanted = [
        request_for(drawn, "three", repeats=3, seed=5),
        request_for(drawn, "one", seed=6),
        request_for(greedy, seed=7),
    ]
    records = []
    evaluate_row(
        evaluator, wanted, lambda *_: None, lambda request, record: records.append((request, record))
    ).wait()
    assert sorted(record["generated"] for _, record in records) == [12, 12, 36]
    lines = asked(scripted)
    seeds = sorted(line.split("'seed': ")[1].rstrip("}") for line in lines if "'do_sample': True" in line)
    assert seeds == sorted(["[5, 0]", "[5, 1]", "[5, 2]", "[6, 0]"] * 12)
    assert sum("'do_sample': False" in line for line in lines) == 12
    three = next(record for request, record in records if request.repeats == 3)
    assert {"pass@1", "pass@2"} <= set(three["metrics"])
    assert rows_of(wanted[0])[0]["tokens"] == 6, "all three responses count"


def test_tasks_that_fail_fail_alone(evaluator, request_for, scripted, tmp_path):
    folder = tmp_path / "tasks"
    good = own_task(folder, "good", "return Score(1.0)", ROWS)
    broken_scorer = own_task(folder, "broken_scorer", "raise KeyError('no such field')", ROWS)
    own_task(folder, "broken_yaml", "return Score(1.0)", ROWS)
    path = folder / "broken_yaml.yaml"
    path.write_text(path.read_text() + "no_such_key: 1\n")
    damaged = request_for("tiny_facts")
    damaged.responses.write_bytes(b"SQLite format 3\0" + b"rubbish" * 1000)
    requests = [request_for(load_task(path)), request_for(broken_scorer), damaged]
    told = run(evaluator, [*requests, request_for(good), request_for("tiny_chain")])
    assert len(told) == 5
    assert isinstance(told["broken_yaml"], HarnessError) and "no_such_key" in told["broken_yaml"].message
    assert isinstance(told["broken_scorer"], KeyError)
    assert isinstance(told["tiny_facts"], HarnessError) and "r.sqlite" in told["tiny_facts"].message
    assert told["good"]["metrics"]["accuracy"]["value"] == 1 and told["tiny_chain"]["generated"] == 200
    before = len(asked(scripted))
    assert run(evaluator, [request_for(broken_scorer)])["broken_scorer"] and len(asked(scripted)) == before, (
        "its responses are stored all the same"
    )


def test_a_request_that_the_engine_cannot_take_costs_its_task_only(evaluator, request_for, tmp_path):
    folder = tmp_path / "tasks"
    raises = own_task(folder, "raises", "return Score(1.0)", "[{'question': 'RAISE', 'answer': ''}]")
    told = run(evaluator, [request_for("tiny_chain"), request_for(raises), request_for("tiny_refusal")])
    assert isinstance(told["raises"], EvaluationError) and "cannot do this" in told["raises"].message
    assert told["tiny_chain"]["generated"] == 200 and told["tiny_refusal"]["generated"] == 200


def test_a_model_that_cannot_be_had_fails_all_its_tasks_after_three_tries(evaluator, request_for, scripted):
    requests = [request_for(name, limit=4, chat_template=False) for name in ALL]
    (requests[0].model / "deadly").touch()
    told = run(evaluator, requests)
    assert sorted(told) == sorted(ALL)
    assert all("exit code 7" in error.message for error in told.values())
    assert evaluator.engine.log.read_text().count("about to fall") == 9, "three strikes, three times"


def test_what_was_answered_is_stored_when_the_user_stops(scripted, request_for):
    name, settings = scripted
    requests = [request_for(name) for name in ALL]
    told, done = [], {}

    def stop(request, count, total, tokens):
        assert tokens in (2 * count, 0), "of what is generated"
        done[request.task.name] = count
        if sum(done.values()) >= 160:
            raise KeyboardInterrupt

    with Evaluator() as made:
        made.engine = Engine(name, settings | {"delay": 0.01})
        with pytest.raises(KeyboardInterrupt):
            evaluate_row(made, requests, stop, lambda request, record: told.append(record))
        assert made.engine.pid is None and not told, "no task was complete"
        kept = {request.task.name: stored(request) for request in requests}
        assert kept == done and sum(kept.values()) == 160
        assert len(asked(scripted)) <= 168, "the engine was stopped as well"
        before = made.engine.asked
        found = run(made, requests)
        assert {n: found[n]["from_store"] for n in ALL} == kept
        assert made.engine.asked - before == 1210 - 160
        whole = run(made, [request_for("tiny_chain", "undisturbed")])
    assert found["tiny_chain"]["metrics"] == whole["tiny_chain"]["metrics"]


def test_a_task_is_scored_while_the_engine_goes_on_and_after_the_row_has_returned(
    scripted, request_for, tmp_path
):
    name, settings = scripted
    folder, go_on = tmp_path / "tasks", tmp_path / "go_on"
    wait = f"from pathlib import Path\nwhile not Path({str(go_on)!r}).exists():\n    time.sleep(0.01)\n"
    slow = own_task(folder, "slow", wait + "return Score(1.0)", ROWS)
    told, order = threading.Event(), []

    def finished(request, record):
        order.append(request.task.name)
        told.set()

    with Evaluator() as made:
        made.engine = Engine(name, settings)
        # generated first, so `slow` is being scored while the log-likelihoods are computed
        scoring = evaluate_row(
            made, [request_for(slow), request_for("tiny_prose")], lambda *_: None, finished
        )
        assert not told.is_set(), "the row has returned, and nothing is scored yet"
        assert len(asked(scripted)) == 72
        following = evaluate_row(made, [request_for("tiny_chain", "next")], lambda *_: None, finished)
        following.wait()
        assert order == ["tiny_chain"]
        go_on.touch()
        scoring.wait()
        assert order == ["tiny_chain", "slow", "tiny_prose"]


def test_few_shot_examples_are_those_of_lm_evals_command_for_every_row(
    evaluator, request_for, scripted, tmp_path
):
    folder = tmp_path / "tasks"
    own_task(folder, "shots", "return Score(1.0)", ROWS)
    path = folder / "shots.yaml"
    path.write_text(path.read_text() + "num_fewshot: 2\nfewshot_split: test\n")
    task = load_task(path)
    prompts = []
    for mark, limit in (("one", 12), ("two", 12), ("three", 5)):
        request = request_for(task, mark, chat_template=False, limit=limit)
        run(evaluator, [request])
        prompts.append([row["prompt"] for row in rows_of(request)])
    assert prompts[0] == prompts[1] and prompts[2] == prompts[0][:5]
    assert len(set(prompts[0])) == 12 and prompts[0][0].count("what is") == 3


def test_a_stored_row_is_scored_again_without_an_engine(evaluator, request_for, scripted, tmp_path):
    folder = tmp_path / "tasks"
    task = own_task(folder, "scored", "return Score(0.0)", ROWS)
    first = run(evaluator, [request_for(task), request_for("tiny_chain")])
    evaluator.close()
    code = folder / "scored.py"
    code.write_text(code.read_text().replace("Score(0.0)", "Score(1.0)"))
    with Evaluator() as fresh:
        fresh.engine = Engine(*scripted)
        second = run(fresh, [request_for(load_task(folder / "scored.yaml")), request_for("tiny_chain")])
        assert fresh.engine.pid is None and fresh.engine.asked == 0
    values = [told["scored"]["metrics"]["accuracy"]["value"] for told in (first, second)]
    assert values == [0, 1] and second["tiny_chain"]["from_store"] == 200


@pytest.mark.parametrize("moment", [5, 100])
def test_kill_9_in_the_middle_of_a_row_costs_at_most_the_batch_in_flight(
    request_for, scripted, evaluator, moment
):
    name, settings = scripted
    requests = [request_for(task) for task in ALL]
    script = textwrap.dedent(f"""
        from pathlib import Path, PosixPath
        from harness.evaluate import EvalRequest, Evaluator, load_task
        from harness.evaluate.engine import Engine
        from harness.evaluate.row import evaluate_row
        made = Evaluator()
        made.engine = Engine({name!r}, {settings | {"delay": 0.02}!r})
        made.start()
        folder, tasks = Path({str(requests[0].folder.parent)!r}), Path({str(TASKS)!r})
        requests = [
            EvalRequest(Path({str(requests[0].model)!r}), "f", load_task(tasks / f"{{task}}.yaml"),
                        folder / task, folder / task / "r.sqlite")
            for task in {ALL!r}
        ]
        evaluate_row(made, requests, lambda *_: None, lambda *_: None).wait()
    """)
    path = os.pathsep.join([str(TASKS.parent), os.environ["PYTHONPATH"]])
    parent = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": path})
    record, end = Path(settings["record"]), time.monotonic() + 60
    while record.read_text().count("\n") < 4 * moment:
        assert time.monotonic() < end and parent.poll() is None
        time.sleep(0.002)
    (child,) = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    by_then = len(asked(scripted))
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    while Path(f"/proc/{child}").exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    before, kept = len(asked(scripted)), sum(stored(request) for request in requests)
    assert by_then - kept <= 12 and kept <= before, "the batch in flight, and what was on its way"
    found = run(evaluator, requests)
    assert sum(record["generated"] for record in found.values()) == 1210 - kept
    assert len(asked(scripted)) - before == 1210 - kept == evaluator.engine.asked
    whole = run(evaluator, [request_for(task, "undisturbed") for task in ALL])
    assert {n: found[n]["metrics"] for n in ALL} == {n: whole[n]["metrics"] for n in ALL}
