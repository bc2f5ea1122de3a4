"""A family that trains its safety expert, from the command line: killed, gone on with, evaluated."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.family import load_family
from harness.store import Store
from harness.train import experts
from tests.train.lora_family import Told

pytestmark = pytest.mark.slow
ONLY = ("--family", "tiny-trained", "--methods", "task_arithmetic", "--tasks", "tiny_refusal")


def harness(*words):
    return [sys.executable, "-m", "harness.cli", *words]


def run(*words):
    done = subprocess.run(harness(*words), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def states():
    return {(e["step"], e["what"]): e["state"] for e in json.loads(run("status", *ONLY, "--json").stdout)}


def kill_within_the_training():
    process = subprocess.Popen(
        harness("compare", *ONLY), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        curves = list(Path("results").glob("tiny-trained/experts/*/training/training.jsonl"))
        if curves and len(curves[0].read_text().splitlines()) >= 20:
            break
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def test_compare_trains_what_is_missing_once(workdir, tmp_path):
    before = states()
    assert before["train", "safety"] == "to do" and before["merge", "Task Arithmetic"] == "waiting"
    assert before["eval", "base / tiny_refusal"] == "to do"
    assert before["eval", "safety / tiny_refusal"] == "waiting" and not Path("results").exists()

    kill_within_the_training()
    assert states()["train", "safety"] == "to do"

    told = run("compare", *ONLY)
    assert "125 steps" in told.stderr and set(states().values()) == {"done"}
    rows = {row["row"]: row for row in csv.DictReader(Path("results/tiny-trained/report/table.csv").open())
            if row["metric"] == "refused"}  # fmt: skip
    assert float(rows["base"]["value"]) == 0.0 and float(rows["safety"]["value"]) >= 0.9
    assert float(rows["Task Arithmetic"]["value"]) >= 0.5

    again = run("compare", *ONLY)
    assert "steps ·" not in again.stderr and "from store" in again.stderr

    family, store = load_family("tiny-trained"), Store(tmp_path / "whole", "tiny-trained")
    begun = time.process_time()
    experts.make(family, store, Told())
    assert time.process_time() - begun < 60
    name = "tiny-trained/experts/*/model/model.safetensors"
    whole, resumed = (next(folder.glob(name)) for folder in (tmp_path / "whole", Path("results")))
    assert whole.read_bytes() == resumed.read_bytes()


def test_merge_and_clean_know_the_trained_expert(workdir):
    assert (
        "is not trained yet"
        in subprocess.run(
            harness("clean", "--family", "tiny-trained", "--rows", "task_arithmetic"),
            capture_output=True,
            text=True,
        ).stderr
    )
    run("merge", "task_arithmetic", "--family", "tiny-trained", "--to", "merged")
    assert Path("merged/model.safetensors").is_file()
    run("clean", "--family", "tiny-trained", "--weights")
    assert not list(Path("results").glob("tiny-trained/experts/*/model"))
    told = run("merge", "linear", "--family", "tiny-trained", "--to", "merged-too")
    assert "rebuilt from its adapter" in told.stderr


def test_what_else_is_wrong_is_told_before_the_training(workdir):
    for words, fact in (
        (("--methods", "tiess"), "no method or row is called `tiess`"),
        (("--tasks", "tiny_chian"), "tiny_chian"),
    ):
        done = subprocess.run(
            harness("compare", "--family", "tiny-trained", *words), capture_output=True, text=True
        )
        assert done.returncode == 2 and fact in done.stderr and len(done.stderr.splitlines()) == 2
    assert not list(Path(".").glob("results/tiny-trained/experts/*"))
