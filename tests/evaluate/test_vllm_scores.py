"""What the vllm engine says is what lm-eval's own command line gets out of vLLM."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from harness.errors import HarnessError
from harness.evaluate import EvalRequest, Evaluator, load_task
from tests.evaluate.helpers_vllm import answers, asked, engine, prompts

pytest.importorskip("vllm")
pytestmark = [pytest.mark.vllm, pytest.mark.slow]

TASKS = Path(__file__).parents[2] / "tasks"
NAMES = ("tiny_chain", "tiny_facts", "tiny_facts_mc", "tiny_prose", "tiny_refusal")
TINY = TASKS.parent / "harness" / "families" / "tiny"
LIMIT = 60


def command_line(model, to):
    """({task: {metric: value}}, {task: samples in the order of documents}) of `lm_eval --model vllm`."""
    arguments = {
        "--model": "vllm",
        "--model_args": f"pretrained={model},dtype=float32,enforce_eager=True",
        "--tasks": ",".join(f"harness_{name}" for name in NAMES),
        "--include_path": str(TASKS),
        "--batch_size": "auto",
        "--limit": str(LIMIT),
        "--output_path": str(to),
    }
    subprocess.run(
        [sys.executable, "-m", "harness.evaluate.lm_eval_cli", "--apply_chat_template", "--log_samples"]
        + [part for pair in arguments.items() for part in pair],
        env={
            **os.environ,
            "PYTHONPATH": str(TASKS.parent),
            "OMP_NUM_THREADS": "2",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        },
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


def test_scores_and_responses_equal_those_of_lm_evals_command_line(tmp_path):
    results, samples = command_line(TINY / "reasoning", tmp_path / "cli")
    with Evaluator("vllm", threads=2, log=tmp_path / "engine.txt") as evaluator:
        for name in NAMES:
            folder = tmp_path / name
            folder.mkdir()
            request = EvalRequest(
                TINY / "reasoning",
                "f",
                load_task(TASKS / f"{name}.yaml"),
                folder,
                folder / "responses.sqlite",
                limit=LIMIT,
            )
            record = evaluator.evaluate(request)
            for metric, cell in record["metrics"].items():
                assert cell["value"] == results[f"harness_{name}"][f"{metric},none"], (name, metric)
            rows = pq.read_table(folder / "samples.parquet").to_pylist()
            for row, sample in zip(rows, samples[name], strict=True):
                assert row["prompt"] == sample["arguments"]["gen_args_0"]["arg_0"]
                if name == "tiny_facts_mc":
                    ours = [choice["logprob"] for choice in json.loads(row["response"])]
                    assert ours == [float(pair[0][0]) for pair in sample["resps"]], "to the digit"
                elif request.task.uses_generation:
                    assert row["response"] == sample["resps"][0][0]
    assert record["engine"]["engine"] == "vllm" and record["engine"]["dtype"] == "float32"


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    made = engine(tmp_path_factory.mktemp("log") / "engine.txt")
    yield made
    made.close()


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    made = engine(tmp_path_factory.mktemp("log") / "hf.txt", "hf")
    yield made
    made.close()


def test_both_engines_answer_alike(running, other):
    """Not to the bit: their kernels differ. Greedy text, why it ended and its tokens agree, but for special
    tokens within a text, which lm-eval's class for vLLM shows and that for transformers hides."""
    requests = asked(8)
    requests["generate"] = requests["generate"][:8]
    for request in requests["generate"][::2]:
        request["kwargs"] = {**request["kwargs"], "max_gen_toks": 3}
    ours, theirs = (answers(one, TINY / "safety", requests) for one in (running, other))
    assert ours["generate"] == theirs["generate"]
    assert {answer["finish"] for answer in ours["generate"]} == {"stop", "length"}
    for kind in ("loglikelihood", "loglikelihood_rolling"):
        for mine, its in zip(ours[kind], theirs[kind], strict=True):
            near = pytest.approx(its.pop("logprob"), rel=1e-5)
            if kind == "loglikelihood_rolling" and its["tokens"] > 500:  # windows of 510 tokens, not of 511
                near = pytest.approx(near.expected, rel=0.02)
            assert mine.pop("logprob") == near
            assert mine == its


def test_stop_strings_lengths_and_seeds(running):
    def one(context, seed=(0, 0), **kwargs):
        return {"context": context, "kwargs": {"max_gen_toks": 40, "until": [], **kwargs}, "seed": list(seed)}

    (prompt,) = prompts(1)
    (whole,) = answers(running, TINY / "base", {"generate": [one(prompt, max_gen_toks=12)]})["generate"]
    assert len(whole["text"]) > 4 and whole["tokens"] <= 12
    term = whole["text"][3:5]
    drawn = {"do_sample": True, "temperature": 2.0}
    sent = [
        one(prompt, until=[term, ""]),
        one(prompt, max_gen_toks=3),
        *(one(prompt, seed, **drawn) for seed in ((0, 0), (0, 1), (0, 0), (1, 0))),
    ]
    stopped, short, first, second, again, third = answers(running, TINY / "base", {"generate": sent})[
        "generate"
    ]
    assert stopped["text"] == whole["text"].split(term)[0] and stopped["finish"] == "stop"
    assert short["tokens"] == 3 and short["finish"] == "length"
    assert first == again, "the same seed, whatever runs beside it"
    assert len({first["text"], second["text"], third["text"]}) == 3


def test_a_setting_that_vllm_lacks_is_refused_where_it_was_not_seen_before(running):
    sent = [{"context": "a", "kwargs": {"until": [], "num_beams": 4}, "seed": [0, 0]}]
    with pytest.raises(HarnessError, match="vLLM cannot generate with `num_beams: 4`"):
        answers(running, TINY / "base", {"generate": sent})
    sent = [{"context": "a", "kwargs": {"until": [], "max_gen_toks": 512}, "seed": [0, 0]}]
    with pytest.raises(HarnessError, match="512 new tokens leave no room for a prompt in the model's 512"):
        answers(running, TINY / "base", {"generate": sent})


def test_templates_are_the_checkpoints_own(running, other, tmp_path):
    chat = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]
    assert running.render(TINY / "base", chat, True) == other.render(TINY / "base", chat, True)
    from tests.evaluate.helpers_vllm import copy_of

    mine = copy_of(TINY / "base", tmp_path / "mine")
    (mine / "chat_template.jinja").write_text("{% for m in messages %}[{{ m.content }}]{% endfor %}")
    pid = running.pid
    assert running.render(mine, chat, True) == "[be brief][hello]"
    assert running.pid == pid, "a template is no reason for another engine"
