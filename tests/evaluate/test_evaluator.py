"""Evaluations with an engine that needs no model: what is stored, asked, scored and written."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from harness.errors import HarnessError
from harness.evaluate import EvalRequest, Evaluator, load_task
from harness.evaluate.engine import Engine
from harness.evaluate.store import ResponseStore

TASKS = Path(__file__).parents[2] / "tasks"


@pytest.fixture
def evaluator(scripted):
    name, settings = scripted
    with Evaluator() as made:
        made.engine = Engine(name, settings)
        yield made


@pytest.fixture
def request_for(tmp_path):
    def make(task="tiny_chain", model="model", fingerprint="f1", **changes):
        (tmp_path / model).mkdir(exist_ok=True)
        file = load_task(TASKS / f"{task}.yaml") if isinstance(task, str) else task
        folder = tmp_path / "results" / fingerprint / file.name
        folder.mkdir(parents=True, exist_ok=True)
        return EvalRequest(
            tmp_path / model, fingerprint, file, folder, folder / "responses.sqlite", **changes
        )

    return make


def test_a_second_evaluation_asks_nothing_and_says_the_same(evaluator, request_for, scripted):
    seen = []
    first = evaluator.evaluate(request_for(), lambda done, total: seen.append((done, total)))
    assert (first["generated"], first["from_store"]) == (200, 0)
    assert seen[0] == (0, 200) and seen[-1] == (200, 200) and seen == sorted(seen)
    evaluator.close()
    second = evaluator.evaluate(request_for())
    assert (second["generated"], second["from_store"]) == (0, 200)
    assert evaluator.engine.pid is None, "no engine is started when every answer is stored"
    assert second["metrics"] == first["metrics"] and second["rates"] == first["rates"]


def test_metrics_samples_and_log(evaluator, request_for):
    request = request_for()
    record = evaluator.evaluate(request)
    rows = pq.read_table(request.folder / "samples.parquet").to_pylist()
    assert len(rows) == 200 and len({row["doc_id"] for row in rows}) == 200
    for row in rows:
        assert row["prompt"].startswith("<user>start ") and row["prompt"].endswith("<assistant>")
        assert row["response"] == f"answer {len(row['prompt']) % 20}"
        assert row["accuracy"] == float(row["response"] == f"answer {row['target']}")
        assert (row["tokens"], row["finish"], row["unparsed"], row["unfinished"]) == (2, "stop", 0, 0)
    cell = record["metrics"]["accuracy"]
    mean = sum(row["accuracy"] for row in rows) / 200
    assert 0 < mean < 1
    assert cell == {
        "value": pytest.approx(mean),
        "n": 200,
        "higher_is_better": True,
        "stderr": pytest.approx((mean * (1 - mean) / 199) ** 0.5),
    }
    assert record["rates"] == dict.fromkeys(
        ["unparsed", "unfinished", "empty", "truncated", "repetition"], 0.0
    )
    assert record["tokens_per_response"] == 2
    assert "200 generated, 0 from store" in (request.folder / "log.txt").read_text()


def test_two_columns_have_their_own_n(evaluator, request_for):
    metrics = evaluator.evaluate(request_for("tiny_refusal"))["metrics"]
    assert {name: cell["n"] for name, cell in metrics.items()} == {"refused": 100, "complied": 100}


def test_choices_and_perplexity(evaluator, request_for):
    request = request_for("tiny_facts_mc", limit=10)
    record = evaluator.evaluate(request)
    assert record["generated"] == 40 and record["rates"] == {} and record["metrics"]["acc"]["n"] == 10
    row = pq.read_table(request.folder / "samples.parquet").to_pylist()[0]
    assert row["response"].count("logprob") == 4
    request = request_for("tiny_prose")
    record = evaluator.evaluate(request)
    rows = pq.read_table(request.folder / "samples.parquet").to_pylist()
    cell = record["metrics"]["word_perplexity"]
    from math import exp

    total = sum(row["loglikelihood"] for row in rows)
    assert cell["value"] == pytest.approx(exp(-total / sum(row["weight"] for row in rows)), rel=1e-12)
    assert cell["n"] == 60 and cell["stderr"] > 0 and not cell["higher_is_better"]


def test_models_with_different_weights_never_share_and_equal_ones_do(evaluator, request_for):
    first = request_for(fingerprint="f1")
    evaluator.evaluate(first)
    same_file = EvalRequest(first.model, "f2", first.task, first.folder, first.responses)
    assert evaluator.evaluate(same_file)["generated"] == 200
    twin = request_for(model="twin", fingerprint="f1")
    assert evaluator.evaluate(twin)["from_store"] == 200


def test_settings_that_change_an_answer_ask_anew(evaluator, request_for):
    evaluator.evaluate(request_for(limit=8))
    changes = [
        {"generation": {"max_gen_toks": 5}},
        {"generation": {"do_sample": True, "temperature": 0.5}},
        {"generation": {"do_sample": True, "temperature": 0.5}, "seed": 1},
        {"chat_template": False},
        {"split": "validation"},
    ]
    for change in changes:
        assert evaluator.evaluate(request_for(limit=8, **change))["generated"] == 8, change
    for change in [
        {"seed": 3},
        {"generation": {"do_sample": False, "temperature": 0.5, "top_p": 0.9}},
        *changes,
    ]:
        assert evaluator.evaluate(request_for(limit=8, **change))["generated"] == 0, change
    assert evaluator.evaluate(request_for(limit=10))["generated"] == 2


def test_a_changed_scorer_scores_again_without_asking(evaluator, request_for, tmp_path):
    folder = tmp_path / "tasks"
    folder.mkdir()
    for suffix in (".yaml", ".py"):
        shutil.copy(TASKS / f"tiny_chain{suffix}", folder)
    before = load_task(folder / "tiny_chain.yaml")
    first = evaluator.evaluate(request_for(before))
    code = folder / "tiny_chain.py"
    code.write_text(code.read_text().replace('float(int(found[1]) == int(row["answer"]))', "1.0"))
    after = load_task(folder / "tiny_chain.yaml")
    assert after.prompt_hash == before.prompt_hash and after.score_hash != before.score_hash
    request = request_for(before)
    second = evaluator.evaluate(EvalRequest(request.model, "f1", after, request.folder, request.responses))
    assert (second["generated"], second["from_store"]) == (0, 200)
    assert first["metrics"]["accuracy"]["value"] < 1 == second["metrics"]["accuracy"]["value"]


def test_a_template_that_opens_the_thinking_makes_an_unclosed_answer_unfinished(
    evaluator, request_for, scripted
):
    name, settings = scripted
    module = Path(os.environ["PYTHONPATH"]) / "stand_in" / "scripted.py"
    module.write_text(module.read_text().replace('+ "<assistant>"', '+ "<think>\\n"'))
    record = evaluator.evaluate(request_for(limit=20))
    assert record["rates"]["unfinished"] == 1 and record["metrics"]["accuracy"]["value"] == 0
    assert record["rates"]["unparsed"] == 0


def test_a_task_that_lm_eval_refuses_names_its_file(evaluator, request_for, tmp_path):
    path = tmp_path / "tiny_chain.yaml"
    path.write_text((TASKS / "tiny_chain.yaml").read_text() + "no_such_key: 1\n")
    shutil.copy(TASKS / "tiny_chain.py", tmp_path)
    with pytest.raises(HarnessError, match="no_such_key") as error:
        evaluator.evaluate(request_for(load_task(path)))
    assert str(path) in error.value.hint


def test_a_missing_checkpoint_and_an_unknown_engine(evaluator, request_for, tmp_path):
    request = request_for()
    (tmp_path / "model").rmdir()
    with pytest.raises(HarnessError, match="is not a folder"):
        evaluator.evaluate(request)
    with pytest.raises(HarnessError) as error:
        Evaluator("hff")
    assert error.value.hint == "did you mean `hf`?"


def test_two_evaluators_in_two_threads(scripted, request_for):
    from concurrent.futures import ThreadPoolExecutor

    name, settings = scripted
    jobs = [
        request_for(task, fingerprint=f"f{i}") for i in range(3) for task in ("tiny_chain", "tiny_refusal")
    ]

    def work(index):
        with Evaluator() as made:
            made.engine = Engine(name, settings)
            return [made.evaluate(job)["metrics"] for job in jobs[index::2]]

    with ThreadPoolExecutor(2) as pool:
        chains, refusals = pool.map(work, range(2))
    assert all(found == chains[0] for found in chains) and all(found == refusals[0] for found in refusals)
    for job in jobs:
        text = (job.folder / "log.txt").read_text()
        assert f"{job.task.name} on " in text
        other = "tiny_refusal" if job.task.name == "tiny_chain" else "tiny_chain"
        assert other not in text, "a thread's log holds only its own"


@pytest.mark.parametrize("moment", [3, 20])
def test_kill_9_of_the_parent_costs_at_most_the_batch_in_flight(request_for, scripted, evaluator, moment):
    name, settings = scripted
    request = request_for()
    script = textwrap.dedent(f"""
        from pathlib import Path
        from harness.evaluate import EvalRequest, Evaluator, load_task
        from harness.evaluate.engine import Engine
        made = Evaluator()
        made.engine = Engine({name!r}, {settings | {"delay": 0.02}!r})
        made.start()
        task = load_task(Path({str(request.task.path)!r}))
        made.evaluate(EvalRequest(Path({str(request.model)!r}), "f1", task, Path({str(request.folder)!r}),
                                  Path({str(request.responses)!r})))
    """)
    path = os.pathsep.join([str(TASKS.parent), os.environ["PYTHONPATH"]])
    parent = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": path})
    record = Path(settings["record"])
    end = time.monotonic() + 60
    while record.read_text().count("\n") < 4 * moment:
        assert time.monotonic() < end and parent.poll() is None
        time.sleep(0.005)
    (child,) = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    asked_by_then = record.read_text().count("\n")
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    while Path(f"/proc/{child}").exists():  # it notices that its parent is gone, after another batch perhaps
        assert time.monotonic() < end
        time.sleep(0.01)
    asked_before = set(record.read_text().splitlines())
    store = ResponseStore(request.responses, "f1")
    rows = store._db.execute("SELECT request FROM responses").fetchall()
    stored = sum('"kind":"generate"' in text for (text,) in rows)
    store.close()
    # the batch in flight, and one that the child had sent when the parent died
    assert stored <= len(asked_before) and asked_by_then - stored <= 8
    resumed = evaluator.evaluate(request)
    assert (resumed["generated"], resumed["from_store"]) == (200 - stored, stored)
    lines = record.read_text().splitlines()
    assert len(lines) - len(asked_before) == 200 - stored, "nothing that was stored is asked again"
    assert resumed["metrics"]["accuracy"]["n"] == 200
