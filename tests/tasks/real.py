"""Real rows in the official layouts under a HARNESS_DATA of the test's own, and the tasks' scorers."""

import json
import shutil
from functools import cache
from pathlib import Path

import pytest

from harness.evaluate.syntax import load_module
from harness.evaluate.task_file import load_task

ROOT = Path(__file__).parents[2]
TASKS = ROOT / "tasks"
SHARED = ROOT.parent / "shared" / "data"


def lay_out(home: Path) -> None:
    """The given samples where each task's official layout has them."""
    if not SHARED.is_dir():
        pytest.skip(f"real rows are not here: {SHARED}")
    as_they_are = {
        "gsm8k/test_first300.jsonl": "gsm8k/test.jsonl",
        "math500/test_first200.jsonl": "math500/test.jsonl",
        "aime24/test_first12.jsonl": "aime24/test.jsonl",
        "mmlu/dev.parquet": "mmlu/all/test-00000-of-00001.parquet",
        "medqa/medqa_hf_layout_first50.jsonl": "medqa/test.jsonl",
        "pubmedqa/ori_pqal_first100.json": "pubmedqa/data/ori_pqal.json",
        "pubmedqa/test_ground_truth.json": "pubmedqa/data/test_ground_truth.json",
        "convfinqa/clean_dev_first30.json": "convfinqa/convfinqa_dataset.json",
    }
    for given, official in as_they_are.items():
        (home / official).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(SHARED / given, home / official)
    _arc(home / "arc_c" / "ARC-Challenge" / "test-00000-of-00001.parquet")


def _arc(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = []
    for line in (SHARED / "arc" / "arc_challenge_test_first50.jsonl").read_text().splitlines():
        row = json.loads(line)
        choices = {"text": [o["text"] for o in row["options"]], "label": [o["label"] for o in row["options"]]}
        rows.append(
            {"id": row["id"], "question": row["question"], "choices": choices, "answerKey": row["answer"]}
        )
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def rows_of(name: str) -> list[dict]:
    """A task's rows, as lm-eval gets them."""
    file = load_task(TASKS / f"{name}.yaml")
    made = function(name, "custom_dataset")(**file.config["dataset_kwargs"])
    return list(made[file.split("test")])


@cache
def function(name: str, key: str):
    """The function that a task's YAML names under `key`."""
    module, _, found = load_task(TASKS / f"{name}.yaml").config[key].rpartition(".")
    return getattr(load_module(TASKS / f"{module}.py"), found)


def scored(name: str, row: dict, response: str) -> dict:
    return function(name, "process_results")(row, [response])
