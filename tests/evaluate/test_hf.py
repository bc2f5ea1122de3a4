"""The hf engine against lm-eval's own command line, and what it does with kills and broken checkpoints."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from harness.errors import HarnessError
from harness.evaluate import EvalRequest, Evaluator, load_task

TASKS = Path(__file__).parents[2] / "tasks"
NAMES = ("tiny_chain", "tiny_facts", "tiny_facts_mc", "tiny_prose", "tiny_refusal")
REASONING = TASKS.parent / "harness" / "families" / "tiny" / "reasoning"
LIMIT, BATCH = 24, 8


@pytest.fixture(scope="module")
def evaluator(tmp_path_factory):
    with Evaluator(threads=1, batch_size=BATCH, log=tmp_path_factory.mktemp("log") / "engine.txt") as made:
        made.start()
        yield made


@pytest.fixture
def request_for(tmp_path):
    def make(model, task="tiny_chain", fingerprint="f", **changes):
        folder = tmp_path / fingerprint / task
        folder.mkdir(parents=True, exist_ok=True)
        return EvalRequest(
            model,
            fingerprint,
            load_task(TASKS / f"{task}.yaml"),
            folder,
            folder / "responses.sqlite",
            **{"limit": LIMIT, **changes},
        )

    return make


def command_line(model, to):
    """What lm-eval's own command says: ({metric: value}, {task: samples in the order of documents})."""
    names = ",".join(f"harness_{name}" for name in NAMES)
    subprocess.run(
        [
            sys.executable,
            "-m",
            "lm_eval",
            "--model",
            "hf",
            "--model_args",
            f"pretrained={model},dtype=float32",
            "--tasks",
            names,
            "--include_path",
            str(TASKS),
            "--apply_chat_template",
            "--batch_size",
            str(BATCH),
            "--device",
            "cpu",
            "--limit",
            str(LIMIT),
            "--log_samples",
            "--output_path",
            str(to),
        ],
        env={**os.environ, "PYTHONPATH": str(TASKS.parent), "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"},
        check=True,
        capture_output=True,
        cwd=to.parent,
    )
    results = json.loads(next(to.glob("*/results_*.json")).read_text())["results"]
    samples = {}
    for name in NAMES:
        lines = next(to.glob(f"*/samples_harness_{name}_2*.jsonl")).read_text().splitlines()
        samples[name] = sorted(map(json.loads, lines), key=lambda sample: sample["doc_id"])
    return results, samples


@pytest.mark.slow
def test_scores_and_responses_equal_lm_evals_command_line_to_the_digit(evaluator, request_for, tmp_path):
    model = REASONING
    results, samples = command_line(model, tmp_path / "cli")
    different = set()
    for name in NAMES:
        request = request_for(model, name)
        record = evaluator.evaluate(request)
        theirs = results[f"harness_{name}"]
        for metric, cell in record["metrics"].items():
            assert cell["value"] == theirs[f"{metric},none"]
            told = theirs[f"{metric}_stderr,none"]
            if told != "N/A":
                assert cell["stderr"] == pytest.approx(told, rel=1e-12)
        rows = pq.read_table(request.folder / "samples.parquet").to_pylist()
        assert len(rows) == len(samples[name]) == LIMIT
        for row, sample in zip(rows, samples[name], strict=True):
            assert row["prompt"] == sample["arguments"]["gen_args_0"]["arg_0"]
            if request.task.uses_generation:
                assert row["response"] == sample["resps"][0][0]
                different.add(row["response"])
            elif name == "tiny_facts_mc":
                ours = [choice["logprob"] for choice in json.loads(row["response"])]
                assert ours == [float(pair[0][0]) for pair in sample["resps"]]
            else:
                assert float(row["response"]) == float(sample["resps"][0][0])
    assert len(different) > 40, "the model says many different things, so equality means something"


def test_batches_change_no_response_in_float32(model, evaluator, request_for, tmp_path):
    alone = Evaluator(threads=1, batch_size=1)
    for name in NAMES:
        ours = evaluator.evaluate(request_for(model, name, "eight", limit=9))
        theirs = alone.evaluate(request_for(model, name, "one", limit=9))
        for metric, cell in ours["metrics"].items():
            assert cell["value"] == pytest.approx(theirs["metrics"][metric]["value"], rel=1e-5)
        if ours["rates"]:
            tables = [pq.read_table(tmp_path / mark / name / "samples.parquet") for mark in ("eight", "one")]
            assert tables[0].column("response").to_pylist() == tables[1].column("response").to_pylist()
            assert tables[0].column("tokens").to_pylist() == tables[1].column("tokens").to_pylist()
    alone.close()


def test_a_killed_engine_costs_one_batch_and_no_number(model, evaluator, request_for):
    limit, chunk, killed = 200, 32, []  # answers are handed on 32 at a time; some may be on their way
    whole = evaluator.evaluate(request_for(model, "tiny_refusal", "undisturbed", limit=limit))

    def kill_once(done, total):
        if chunk <= done < limit and not killed:
            killed.append(evaluator.engine.pid)
            os.kill(killed[0], signal.SIGKILL)

    before = evaluator.engine.asked
    found = evaluator.evaluate(request_for(model, "tiny_refusal", "disturbed", limit=limit), kill_once)
    assert killed and evaluator.engine.pid != killed[0]
    assert found["metrics"] == whole["metrics"] and found["rates"] == whole["rates"]
    assert found["generated"] == limit
    assert evaluator.engine.asked - before <= limit + (limit - chunk)


def test_two_models_answer_for_themselves(model, other_model, evaluator, request_for):
    rows = []
    for path, mark in ((model, "one"), (other_model, "two"), (model, "one again")):
        request = request_for(path, fingerprint=mark)
        evaluator.evaluate(request)
        rows.append(pq.read_table(request.folder / "samples.parquet").column("response").to_pylist())
    assert rows[0] == rows[2]
    assert sum(a == b for a, b in zip(rows[0], rows[1], strict=True)) <= 2


def test_token_counts_and_reasons(model, evaluator, request_for):
    request = request_for(model, "tiny_facts", generation={"max_gen_toks": 7})
    record = evaluator.evaluate(request)
    rows = pq.read_table(request.folder / "samples.parquet").to_pylist()
    for row in rows:
        assert 1 <= row["tokens"] <= 7
        assert row["finish"] == "length" or row["tokens"] < 7 or row["finish"] == "stop"
        assert row["truncated"] == (row["finish"] == "length")
    assert any(row["finish"] == "length" and row["tokens"] == 7 for row in rows)
    assert record["tokens_per_response"] == pytest.approx(sum(row["tokens"] for row in rows) / LIMIT)


def test_a_stop_text_ends_a_response(model, evaluator, request_for):
    request = request_for(model, fingerprint="free")
    evaluator.evaluate(request)
    free = pq.read_table(request.folder / "samples.parquet").to_pylist()
    letter = "e"
    request = request_for(model, fingerprint="stopped", generation={"until": [letter]})
    evaluator.evaluate(request)
    for row, before in zip(pq.read_table(request.folder / "samples.parquet").to_pylist(), free, strict=True):
        assert row["response"] == before["response"].split(letter)[0]
        if letter in before["response"]:
            assert row["finish"] == "stop" and row["tokens"] <= before["tokens"]


def test_sampling_depends_on_the_seed_alone(model, evaluator, request_for):
    def texts(mark, seed):
        request = request_for(model, "tiny_facts", mark, seed=seed, generation={"temperature": 1.0})
        assert evaluator.evaluate(request)["generated"] == LIMIT
        return pq.read_table(request.folder / "samples.parquet").column("response").to_pylist()

    first = texts("a", 0)
    evaluator.evaluate(request_for(model, "tiny_refusal", limit=3))
    assert texts("a again", 0) != texts("c", 1)
    # the fingerprint is part of no seed: an equal model elsewhere draws the same
    assert texts("b", 0) == first


def test_long_documents_are_cut_into_windows_as_lm_eval_does(model, evaluator):
    import torch
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoModelForCausalLM

    texts = ["a red lamp was old . " * count for count in (1, 200, 3, 90)]
    torch.set_num_threads(1)
    reference = HFLM(
        AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval(), batch_size=BATCH
    )
    wanted = reference.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, (t,), 0) for t in texts])
    asked = [{"text": text, "seed": None} for text in texts]
    found = dict(
        pair for part in evaluator.engine.run(model, "loglikelihood_rolling", asked) for pair in part
    )
    assert [found[i]["logprob"] for i in range(4)] == wanted
    assert max(found[i]["tokens"] for i in range(4)) > reference.max_length


def broken(model, to, kind):
    shutil.copytree(model, to)
    weights = to / "model.safetensors"
    if kind == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif kind == "no weights":
        weights.unlink()
    elif kind == "no config":
        (to / "config.json").unlink()
    elif kind == "config not json":
        (to / "config.json").write_text("{")
    elif kind == "tensor missing":
        from safetensors.torch import load_file, save_file

        tensors = load_file(weights)
        del tensors["model.layers.1.mlp.up_proj.weight"]
        save_file(tensors, weights, {"format": "pt"})
    elif kind == "other shape":
        text = (to / "config.json").read_text().replace('"intermediate_size": 64', '"intermediate_size": 48')
        (to / "config.json").write_text(text)
    elif kind == "no tokenizer":
        for path in to.glob("token*"):
            path.unlink()
    return to


@pytest.mark.parametrize(
    "kind",
    [
        "truncated",
        "no weights",
        "no config",
        "config not json",
        "tensor missing",
        "other shape",
        "no tokenizer",
    ],
)
def test_a_broken_checkpoint_is_an_error_that_names_it(model, evaluator, request_for, tmp_path, kind):
    path = broken(model, tmp_path / "broken", kind)
    with pytest.raises(HarnessError) as error:
        evaluator.evaluate(request_for(path, "tiny_facts"))
    assert str(path) in error.value.message and error.value.hint
    assert "Traceback" not in error.value.message


def test_no_chat_template_is_said(model, evaluator, request_for, tmp_path):
    path = shutil.copytree(model, tmp_path / "plain")
    (path / "chat_template.jinja").unlink()
    with pytest.raises(HarnessError, match="no chat template") as error:
        evaluator.evaluate(request_for(path, "tiny_facts"))
    assert "chat_template: false" in error.value.hint
    assert evaluator.evaluate(request_for(path, "tiny_facts", chat_template=False))["generated"] == LIMIT
