"""The whole line, from the tiny family to its table, as a user runs it: in processes of its own."""

import csv
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.families import tiny

TINY = Path(tiny.__file__).parent
TASKS = "tiny_chain,tiny_refusal,tiny_prose"
SMALL = ["compare", "--methods", "linear,ties (paper),reasonany (paper)", "--tasks", TASKS, "--limit", "8"]


def harness(*args, cwd, **extra):
    command = [sys.executable, "-m", "harness.cli", *map(str, args)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, **extra)


def table(cwd, family="tiny-safety"):
    with (cwd / "results" / family / "report" / "table.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    # what a step cost is not part of the table's numbers, nor is the folder it was made in
    return [
        {
            k: v
            for k, v in line.items()
            if k not in ("merge_seconds", "peak_mib", "model_folder", "eval_folder")
        }
        for line in lines
    ]


def completed(cwd):
    """When each step was completed."""
    return {p: p.stat().st_mtime_ns for p in (cwd / "results").rglob("done.json")}


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A finished small comparison; copy it before changing it."""
    cwd = tmp_path_factory.mktemp("compared")
    done = harness(*SMALL, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return cwd, done


def test_the_table_has_references_merges_and_every_column(compared):
    cwd, done = compared
    lines = table(cwd)
    assert {line["row"] for line in lines} == {
        "base",
        "reasoning",
        "safety",
        "Linear",
        "TIES (paper)",
        "ReasonAny (paper)",
    }
    assert all(line["value"] and line["n"] and line["stderr"] for line in lines)
    assert {line["limit"] for line in lines} == {"8"}
    assert "no evidence about large models" in done.stdout
    assert "--limit 8" in done.stdout
    assert done.stdout.startswith("**tiny-safety**"), "piped output is Markdown"


def test_each_done_json_has_seconds_and_peak_memory_of_its_phases(compared):
    steps = [json.loads(p.read_text()) for p in (compared[0] / "results").rglob("done.json")]
    worked = [s for s in steps if "checkpoint" not in s]
    assert len(worked) > 10
    for step in worked:
        assert step["seconds"] and all(v >= 0 for v in step["seconds"].values())
        assert step["peak_mib"] and all(v > 0 for v in step["peak_mib"].values())


def test_again_nothing_is_done_and_the_table_is_the_same(compared, tmp_path):
    cwd = tmp_path / "again"
    shutil.copytree(compared[0], cwd)
    before, lines = completed(cwd), table(cwd)
    done = harness(*SMALL, cwd=cwd)
    assert done.returncode == 0 and "from store" in done.stderr
    assert completed(cwd) == before and table(cwd) == lines


def test_a_merge_loads_in_plain_transformers_and_generates(compared):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    (folder,) = (compared[0] / "results" / "tiny-safety" / "models").glob("linear--*/model")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    chat = [{"role": "user", "content": "hello"}]
    given = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    made = model.generate(**given, max_new_tokens=8, do_sample=False)
    assert made.shape[1] > given["input_ids"].shape[1]


def test_deleted_weights_are_rebuilt_only_when_an_evaluation_needs_them(compared, tmp_path):
    cwd = tmp_path / "weights"
    shutil.copytree(compared[0], cwd)
    assert harness("clean", "--weights", cwd=cwd).returncode == 0
    assert not list(cwd.rglob("model/model.safetensors"))
    before = completed(cwd)
    assert harness(*SMALL, cwd=cwd).returncode == 0
    assert completed(cwd) == before and not list(cwd.rglob("model/model.safetensors"))
    (evaluation,) = cwd.glob("results/tiny-safety/models/linear--*/evals/tiny_chain--????????")
    shutil.rmtree(evaluation)
    assert harness(*SMALL, cwd=cwd).returncode == 0
    assert len(list(cwd.rglob("model/model.safetensors"))) == 1


@pytest.mark.slow
def test_killed_at_random_moments_it_goes_on_where_it_stopped(compared, tmp_path):
    """Finished steps are not done again, no stored response is asked again, and the table is the same."""
    draw = random.Random(int(os.environ.get("HARNESS_KILL_SEED", "7")))
    for _ in range(int(os.environ.get("HARNESS_KILLS", "2"))):
        cwd = tmp_path / f"kill-{draw.random():.6f}"
        cwd.mkdir()
        command = [sys.executable, "-m", "harness.cli", *SMALL]
        process = subprocess.Popen(
            command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        time.sleep(draw.uniform(2.0, 14.0))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(0.3)  # the engines notice that their parent is gone
        before, answered = completed(cwd), _responses(cwd)
        done = harness(*SMALL, cwd=cwd)
        assert done.returncode == 0, done.stderr
        after = completed(cwd)
        assert {p: after[p] for p in before} == before, "a finished step was done again"
        again = _responses(cwd)
        assert all(again[key] == value for key, value in answered.items()), (
            "a stored response was asked again"
        )
        assert table(cwd) == table(compared[0])
        print(f"killed with {len(before)} steps done and {len(answered)} responses; {len(after)} steps after")


def _responses(cwd):
    """Every stored response by file and key, with its row's content."""
    found = {}
    for path in (
        sorted((cwd / "results").glob("*/responses/*/*.sqlite")) if (cwd / "results").exists() else []
    ):
        with sqlite3.connect(path) as db:
            (name,) = db.execute(
                "select name from sqlite_master where type = 'table' limit 1"
            ).fetchone() or (None,)
            for row in db.execute(f"select rowid, * from {name}") if name else []:
                found[path.relative_to(cwd), row[1]] = row
    return found


def test_a_users_method_file_is_a_row(compared, tmp_path):
    cwd = tmp_path / "mine"
    shutil.copytree(compared[0], cwd)
    (cwd / "mine.py").write_text(
        '"""Half the sum of the task vectors."""\nfrom harness import merge_method, param\n\n\n'
        '@merge_method("mine", title="Mine")\nclass Mine:\n'
        '    scale: float = param(0.5, "scaling coefficient", low=0, high=2, noop=0.0)\n\n'
        "    def merge(self, group, state):\n        merged = group.base.clone()\n"
        "        for delta in group.deltas.values():\n            merged += self.scale * delta\n"
        "        return merged\n"
    )
    before = completed(cwd)
    done = harness("compare", "--methods", "ties (paper),./mine.py", "--tasks", TASKS, "--limit", 8, cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert {line["row"] for line in table(cwd)} == {"base", "reasoning", "safety", "TIES (paper)", "Mine"}
    assert all(completed(cwd)[p] == t for p, t in before.items())


@pytest.mark.slow
def test_a_method_that_raises_fails_alone(compared, tmp_path):
    cwd = tmp_path / "raises"
    shutil.copytree(compared[0], cwd)
    (cwd / "mine.py").write_text(
        "from harness import merge_method\n\n\n@merge_method('mine', title='Mine')\nclass Mine:\n"
        "    def merge(self, group, state):\n        raise RuntimeError('no idea')\n"
    )
    done = harness(
        "compare",
        "--methods",
        "linear,./mine.py,task_arithmetic",
        "--tasks",
        "tiny_chain",
        "--limit",
        8,
        cwd=cwd,
    )
    assert done.returncode == 1, done.stderr
    assert "RuntimeError: no idea" in done.stderr and "Traceback" not in done.stderr
    values = {line["row"]: line["value"] for line in table(cwd) if line["task"] == "tiny_chain"}
    assert values["Mine"] == "" and values["Task Arithmetic"] != ""
    assert "| Mine | – |" in done.stdout
    assert "failed" in harness("status", "--methods", "./mine.py", "--limit", 8, cwd=cwd).stdout


def family_of_copies(cwd):
    """The tiny family as a user's own: checkpoints copied beside a family file."""
    for role in ("base", "reasoning", "safety"):
        shutil.copytree(TINY / role, cwd / role)
    (cwd / "mine.yaml").write_text(
        "title: copies\nbase: ./base\nexperts: {reasoning: ./reasoning, task: ./safety}\n"
        "tasks: [tiny_chain]\nmethods: {linear: , task_arithmetic: {scale: 0.5}}\n"
    )


@pytest.mark.slow
def test_a_failed_evaluation_does_not_stop_the_others(tmp_path):
    family_of_copies(tmp_path)
    built_in = TINY.parent.parent.parent / "tasks"
    (tmp_path / "tasks").mkdir()
    yaml, scorer = ((built_in / f"tiny_chain.{end}").read_text() for end in ("yaml", "py"))
    (tmp_path / "tasks" / "odd.yaml").write_text(yaml.replace("tiny_chain", "odd"))
    bad = scorer.replace("    found =", "    raise RuntimeError('no idea')\n    found =")
    (tmp_path / "tasks" / "odd.py").write_text(bad)
    command = ["compare", "--family", "./mine.yaml", "--tasks", "odd,tiny_chain", "--limit", 4]
    done = harness(*command, cwd=tmp_path)
    assert done.returncode == 1 and "no idea" in done.stderr and "Traceback" not in done.stderr, done.stderr
    values = {(line["row"], line["task"]): line["value"] for line in table(tmp_path, "mine")}
    assert not values["Linear", "odd"] and values["Linear", "tiny_chain"] and values["base", "tiny_chain"]
    (tmp_path / "tasks" / "odd.py").write_text(scorer)
    done = harness(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    values = {(line["row"], line["task"]): line["value"] for line in table(tmp_path, "mine")}
    assert values["Linear", "odd"] == values["Linear", "tiny_chain"] != ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda cwd: (cwd / "safety" / "model.safetensors").unlink(), "safety"),
        (lambda cwd: os.truncate(cwd / "safety" / "model.safetensors", 100_000), "safety"),
        (lambda cwd: (cwd / "safety" / "model.safetensors").write_bytes(b"\xff" * 64), "safety"),
        (lambda cwd: shutil.rmtree(cwd / "safety"), "safety"),
        (lambda cwd: _reshape(cwd / "safety"), "("),
    ],
    ids=["missing file", "truncated", "garbage", "missing folder", "other shapes"],
)
def test_bad_checkpoints_are_told_in_two_lines(tmp_path, spoil, told):
    family_of_copies(tmp_path)
    spoil(tmp_path)
    done = harness("compare", "--family", "./mine.yaml", "--limit", 4, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith(("error: ", "hint: "))]
    assert len(lines) == 2 and told in lines[0] and "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("models/*/model/config.json")), "nothing may look finished"


def _reshape(folder):
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = torch.ones(7, dtype=torch.bfloat16)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def test_an_unwritable_results_folder_is_told(tmp_path):
    (tmp_path / "results").write_text("in the way")
    done = harness(*SMALL, cwd=tmp_path)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 2
    assert "cannot write" in done.stderr


@pytest.mark.slow
def test_merge_and_eval_agree_with_compare(compared, tmp_path):
    cwd = tmp_path / "verbs"
    shutil.copytree(compared[0], cwd)
    done = harness("merge", "linear", "--to", "out", cwd=cwd)
    assert done.returncode == 0, done.stderr
    (made,) = (cwd / "results" / "tiny-safety" / "models").glob("linear--*/model")
    assert (cwd / "out" / "model.safetensors").read_bytes() == (made / "model.safetensors").read_bytes()
    again = harness("merge", "linear", "--to", "out", cwd=cwd)
    assert again.returncode == 2 and "not empty" in again.stderr
    done = harness("eval", "out", "--tasks", "tiny_chain,tiny_refusal", "--limit", 8, cwd=cwd)
    assert done.returncode == 0, done.stderr
    expected = [line for line in table(cwd) if line["row"] == "Linear" and line["task"] == "tiny_chain"]
    assert f"{float(expected[0]['value']) * 100:.1f}" in done.stdout
