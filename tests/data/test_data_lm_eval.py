"""lm-eval's own command on a benchmark with a local copy: its rows, responses and score are ours."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from harness.answers import math_answer
from harness.evaluate import EvalRequest, Evaluator, load_task
from harness.families.tiny import data

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "harness" / "families" / "tiny" / "reasoning"
LIMIT, BATCH, TOKENS = 6, 3, 24


def lay(copy, golds):
    """GSM8K's layout with questions of the tiny family, more of them than are asked."""
    asked = [row["question"] for row in data.rows("chain", "test", LIMIT + 2)]
    rows = [{"question": q, "answer": f"it is so\n#### {gold}"} for q, gold in zip(asked, golds, strict=True)]
    (copy / "gsm8k").mkdir(parents=True, exist_ok=True)
    (copy / "gsm8k" / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def ours(engine, tmp_path, mark):
    folder = tmp_path / mark
    folder.mkdir()
    task = load_task(ROOT / "tasks" / "gsm8k.yaml")
    asked = {"limit": LIMIT, "generation": {"max_gen_toks": TOKENS}}
    record = engine.evaluate(EvalRequest(MODEL, "f", task, folder, tmp_path / "r.sqlite", **asked))
    return record, pq.read_table(folder / "samples.parquet").to_pylist()


def theirs(to):
    words = ["run", "--model", "hf", "--model_args", f"pretrained={MODEL},dtype=float32"]
    words += ["--tasks", "harness_gsm8k", "--include_path", str(ROOT / "tasks"), "--apply_chat_template"]
    words += ["--gen_kwargs", f"max_gen_toks={TOKENS}", "--batch_size", str(BATCH), "--device", "cpu"]
    words += ["--limit", str(LIMIT), "--log_samples", "--output_path", str(to)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "lm_eval", *words], env=env, cwd=to.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = next(to.glob("*/samples_harness_gsm8k_2*.jsonl")).read_text().splitlines()
    samples = sorted(map(json.loads, lines), key=lambda sample: sample["doc_id"])
    return json.loads(next(to.glob("*/results_*.json")).read_text())["results"]["harness_gsm8k"], samples


@pytest.mark.slow
def test_lm_evals_command_gives_the_same_score_from_the_local_copy(copy, tmp_path):
    lay(copy, range(LIMIT + 2))
    with Evaluator(threads=1, batch_size=BATCH, log=tmp_path / "engine.txt") as engine:
        _, rows = ours(engine, tmp_path, "before")
        said = [math_answer(row["response"].rpartition("</think>")[2]) for row in rows]
        lay(copy, [*(gold if n % 3 else "-7" for n, gold in enumerate(said)), "0", "0"])
        record, rows = ours(engine, tmp_path, "after")
    assert record["from_store"] == LIMIT, "other answers, the same questions"
    results, samples = theirs(tmp_path / "cli")
    assert [row["response"] for row in rows] == [sample["resps"][0][0] for sample in samples]
    assert 0 < results["accuracy,none"] < 1
    for metric, cell in record["metrics"].items():
        assert cell["value"] == results[f"{metric},none"]
