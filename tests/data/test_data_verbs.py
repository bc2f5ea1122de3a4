"""`harness data fetch` and `check` as a user meets them, and what a run says of data that is not there."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hub_stub import COMMIT, jsonl

from harness.data import fetch as fetching
from harness.data import repository
from harness.data.record import fetched
from harness.verbs import data as data_verbs

ROOT = Path(__file__).parents[2]
ROWS = [{"question": f"What is {n} + {n}?", "answer": f"{n} + {n} = {2 * n}\n#### {2 * n}"} for n in range(7)]
PINNED = "b" * 40
TASK = """# Sums.
# One datum: `What is 1 + 1?` -> `2`
task: harness_{name}
custom_dataset: !function {name}.rows
dataset_kwargs:
  benchmark: {benchmark}
  {place}
  commit: {revision}
  files: {{test: [test.jsonl, main/test.jsonl]}}
  fields: [question, answer]
  id: question
  rows: {{test: 7}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: answer
generation_kwargs: {{until: [], do_sample: false, max_gen_toks: 4}}
process_results: !function {name}.score
metric_list: [{{metric: accuracy, aggregation: mean, higher_is_better: true}}]
metadata:
  version: 1
  harness: {{title: Sums, group: Reasoning, paper: none, licence: MIT, revision: none, profile: standard,
            higher_is_better: true}}
"""
SCORER = """from harness import Score, benchmark, scorer

@benchmark
def rows(row):
    return row if int(row["answer"].split()[-1]) >= 0 else None

@scorer("accuracy")
def score(response, row):
    return Score(0.0)
"""


@pytest.fixture
def tasks(workdir, copy, monkeypatch):
    """Writes tasks into the working folder."""
    monkeypatch.setattr(fetching, "_silent", {})

    def write(name, place="hub: org/good", revision="null", benchmark="summing"):
        (workdir / "tasks").mkdir(exist_ok=True)
        text = TASK.format(name=name, place=place, revision=revision, benchmark=benchmark)
        (workdir / "tasks" / f"{name}.yaml").write_text(text)
        (workdir / "tasks" / f"{name}.py").write_text(SCORER)

    return write


def state(name, capsys):
    capsys.readouterr()
    code = data_verbs.check([name], as_json=True)
    (entry,) = json.loads(capsys.readouterr().out)
    assert code == (entry["state"] != "here")
    return entry


def test_fetch_then_check(online, tasks, copy, capsys):
    tasks("sums")
    online.files = {("org/good", "test.jsonl"): jsonl(ROWS)}
    assert state("sums", capsys)["state"] == "missing"
    assert data_verbs.fetch(["sums"]) == 0
    assert capsys.readouterr().out == f"✓ sums: fetched @ {COMMIT[:12]}, 1 file in {copy / 'summing'}\n"
    entry = state("sums", capsys)
    assert entry["state"] == "here" and entry["fetched"] == [COMMIT] and entry["revision"] is None
    assert entry["splits"]["test"]["rows"] == entry["splits"]["test"]["expected"] == 7
    assert entry["splits"]["test"]["files"] == {
        "test.jsonl": fetched(copy / "summing")["test.jsonl"]["sha256"]
    }
    assert data_verbs.fetch(["summing"]) == 0, "errors name the benchmark, so that is understood as well"
    assert "already here" in capsys.readouterr().out


def test_states(online, tasks, copy, capsys):
    tasks("sums")
    online.files = {("org/good", "test.jsonl"): jsonl(ROWS)}
    data_verbs.fetch(["sums"])
    path = copy / "summing" / "test.jsonl"
    capsys.readouterr()
    path.write_bytes(jsonl(ROWS[:5]))
    entry = state("sums", capsys)
    assert entry["state"] == "changed" and "test.jsonl changed since it was fetched" in entry["problem"]
    assert entry["splits"]["test"]["rows"] == 5 and "harness data fetch summing" in entry["hint"]
    path.write_bytes(jsonl([*ROWS, {"question": "?"}]))
    entry = state("sums", capsys)
    assert entry["state"] == "malformed" and "test.jsonl:8: field `answer` is missing" in entry["problem"]
    path.write_bytes(jsonl([*ROWS, {"question": "?", "answer": "none"}]))
    assert "test.jsonl:8: ValueError" in state("sums", capsys)["problem"], "the task's own function is run"
    path.unlink()
    assert state("sums", capsys)["state"] == "missing"


def test_the_table_fits_in_100_columns(online, tasks, copy, capsys):
    tasks("sums")
    tasks("long", f"url: https://example.org/{'a-very-long-folder/' * 9}data.zip", benchmark="long")
    tasks("closed", "hint: ask its authors by mail", benchmark="closed")
    tasks("pinned", "github: someone/something", PINNED, "pinned")
    (copy / "summing").mkdir(parents=True)
    (copy / "summing" / "test.jsonl").write_bytes(jsonl(ROWS[:5]))
    assert data_verbs.check([], as_json=False) == 0, "nothing was named, so nothing is wrong"
    out = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 100 for line in out[:-1])
    lines = {line.split()[0]: line for line in out if line}
    assert (
        "here" in lines["sums"] and "test 5 of 7" in lines["sums"] and "org/good, not pinned" in lines["sums"]
    )
    assert "missing" in lines["pinned"] and "github.com/someone/something @ bbbbbbbb" in lines["pinned"]
    assert "says how to obtain one" in out[-1] and str(copy) in out[-1]
    assert data_verbs.check(["closed", "sums"], as_json=False) == 1
    out = capsys.readouterr().out
    assert "closed: " in out and "hint: ask its authors by mail; " in out and "1 of 2 here" in out


def test_one_that_fails_does_not_keep_the_others(online, tasks, copy, capsys):
    tasks("sums")
    tasks("lost", "hub: org/gone", benchmark="lost")
    online.files = {("org/good", "test.jsonl"): jsonl(ROWS)}
    assert data_verbs.fetch(["lost", "sums"]) == 1
    told = capsys.readouterr()
    assert told.err.startswith("✗ lost: no data of `lost`") and len(told.err.splitlines()) == 2
    assert told.out.startswith("✓ sums: fetched")


def test_two_tasks_of_one_benchmark_are_two(online, tasks, copy, capsys):
    tasks("easy")
    tasks("hard")
    path = Path("tasks/hard.yaml")
    path.write_text(path.read_text().replace("main/test.jsonl", "hard.jsonl").replace("test.jsonl, ", ""))
    online.files = {("org/good", name): jsonl(ROWS) for name in ("test.jsonl", "hard.jsonl")}
    assert data_verbs.fetch(["easy", "hard"]) == 0
    assert set(fetched(copy / "summing")) == {"test.jsonl", "hard.jsonl"}


def test_an_own_task_of_lm_eval_is_fetched_whole_and_then_read(online, copy, workdir, capsys, monkeypatch):
    splits = [f"ARC-Easy/{split}.jsonl" for split in ("train", "validation", "test")]
    listed = "".join(f"  - {{split: {Path(path).stem}, path: {path}}}\n" for path in splits)
    card = f"---\nconfigs:\n- config_name: ARC-Easy\n  data_files:\n{listed}---\n"
    choices = {"text": ["a", "b"], "label": ["A", "B"]}
    rows = [{"id": str(n), "question": f"{n}?", "choices": choices, "answerKey": "A"} for n in range(3)]
    others = {"README.md": card.encode(), ".gitattributes": b"", "notes.json": b"[1]"}
    files = dict.fromkeys(splits, jsonl(rows)) | others
    online.files = {("allenai/ai2_arc", path): data for path, data in files.items()}
    assert state("lm_eval:arc_easy", capsys)["state"] == "missing"
    assert data_verbs.fetch(["lm_eval:arc_easy"]) == 0
    entry = state("lm_eval:arc_easy", capsys)
    assert entry["state"] == "here" and len(entry["splits"]["all"]["files"]) == 5
    folder = copy / "hub--allenai--ai2_arc"
    assert repository("allenai/ai2_arc").folder == folder and entry["fetched"] == [COMMIT]
    import datasets

    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", workdir / "cache")
    online.asked.clear()
    read = datasets.load_dataset(str(folder), "ARC-Easy", split="test", cache_dir=str(workdir / "cache"))
    assert read["question"][:] == ["0?", "1?", "2?"]
    assert not [line for line in online.asked if "ai2_arc" in line]
    (folder / "ARC-Easy" / "train.jsonl").unlink()
    assert state("lm_eval:arc_easy", capsys)["state"] == "incomplete"


def test_our_note_is_never_taken_for_data(copy, workdir):
    import datasets

    from harness.data import record

    (copy / "x").mkdir(parents=True)
    (copy / "x" / "rows.json").write_text(json.dumps(ROWS))
    record.note(copy / "x", {"rows.json": {"sha256": "0", "from": "x", "revision": None}})
    read = datasets.load_dataset(str(copy / "x"), split="train", cache_dir=str(workdir / "cache"))
    assert read.to_list() == ROWS


def harness(*words, cwd, **env):
    begun = time.perf_counter()
    given = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80", **env}
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", *words], capture_output=True, text=True, cwd=cwd, env=given
    )
    return done, time.perf_counter() - begun


def test_the_command_line(stub, tasks, workdir, copy):
    tasks("sums")
    stub.files = {("org/good", "test.jsonl"): jsonl(ROWS)}
    done, _ = harness("data", "check", "sums", cwd=workdir)
    assert done.returncode == 1 and "missing" in done.stdout and not done.stderr
    done, _ = harness("data", "fetch", "sums", cwd=workdir, HF_ENDPOINT=stub.url, HF_HUB_OFFLINE="0")
    assert (done.returncode, done.stdout[:15]) == (0, "✓ sums: fetched")
    done, _ = harness("data", "check", "sums", "--json", cwd=workdir)
    assert done.returncode == 0 and json.loads(done.stdout)[0]["state"] == "here"
    done, _ = harness("data", "check", "summs", cwd=workdir)
    assert (
        done.returncode == 2
        and done.stderr == "error: no task is called `summs`\nhint: did you mean `sums`?\n"
    )
    done, _ = harness("data", "fetch", cwd=workdir)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 2


@pytest.mark.slow
def test_missing_data_ends_a_run_before_any_work(tasks, workdir, copy):
    tasks("sums")
    tasks("more", "github: o/r", PINNED, "more")
    checkpoint = ROOT / "harness" / "families" / "tiny" / "base"
    for words in (["compare"], ["eval", str(checkpoint)]):
        done, seconds = harness(*words, "--tasks", "sums", cwd=workdir)
        lines = [line for line in done.stderr.splitlines() if line.startswith(("error", "hint"))]
        assert done.returncode == 2 and len(lines) == 2 and seconds < 20, done.stderr
        assert f"no data of `summing`: {copy / 'summing'} has no test.jsonl or main/test.jsonl" in lines[0]
        assert "org/good" in lines[0] and "`harness data fetch summing`" in lines[1]
        assert not list(workdir.glob("results/**/*.safetensors")), "no merge was begun"
    done, _ = harness("compare", "--tasks", "sums,more,tiny_chain", cwd=workdir)
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert "2 things are missing" in error and "`summing`" in error and "`more`" in error
    assert "HF_HUB_OFFLINE is set" in error
