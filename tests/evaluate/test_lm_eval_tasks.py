"""lm-eval's own tasks on our engine: found without its index, read from a local copy, the same numbers."""

import json

import pytest
import yaml

from harness import HarnessError
from harness.evaluate import EvalRequest, Evaluator
from harness.evaluate.lm_eval_tasks import lm_eval_task
from harness.families.tiny import data

WORDS = [row["answer"] for row in data.rows("facts", "test")]


def lay(home, dataset, configs):
    """A local copy of a hub data set: `configs` is {config: {split: rows}}."""
    folder = home / ("hub--" + dataset.replace("/", "--"))
    listed = []
    for config, splits in configs.items():
        files = []
        for split, rows in splits.items():
            path = folder / config / f"{split}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
            files.append({"split": split, "path": f"{config}/{split}.jsonl"})
        listed.append({"config_name": config, "data_files": files})
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': listed})}---\n")


def choices(count, seed=0):
    return [WORDS[(seed + 7 * i) % len(WORDS)] for i in range(count)]


def arc(split):
    rows = [row for row in data.rows("facts", split)][:12]
    return [
        {
            "id": f"{split}{i}",
            "question": row["question"],
            "choices": {"text": row["choices"], "label": list("ABCD")},
            "answerKey": "ABCD"[row["label"]],
        }
        for i, row in enumerate(rows)
    ]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "data"


def measured(engine, model, mark, task, tmp_path):
    name = task.name.replace(":", "-")
    folder, responses = tmp_path / name, tmp_path / f"{name}.sqlite"
    return engine.evaluate(
        EvalRequest(model, mark, task, folder, responses, chat_template=task.chat_template)
    )


def theirs(name, model, where, monkeypatch):
    """What lm-eval itself says, on the same local copies."""
    import datasets
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    real = datasets.load_dataset
    manager = TaskManager(include_defaults=False, include_path=str(lm_eval_task(name).path.parent))
    with monkeypatch.context() as patched:
        patched.setattr(datasets, "load_dataset", lambda path, *a, **k: real(str(where(path)), *a, **k))
        return simple_evaluate(
            model="hf",
            model_args={"pretrained": str(model), "dtype": "float32"},
            tasks=[name],
            batch_size=128,
            device="cpu",
            task_manager=manager,
            bootstrap_iters=0,
        )


@pytest.mark.slow
def test_a_task_and_a_group_give_lm_evals_own_numbers(home, tmp_path, monkeypatch):
    from harness.checkpoint import fingerprint
    from harness.evaluate.lm_eval_tasks import local_folder
    from harness.families import tiny

    model = type(home)(tiny.__file__).parent / "base"
    lay(home, "allenai/ai2_arc", {"ARC-Easy": {s: arc("test") for s in ("train", "validation", "test")}})
    group = lm_eval_task("mmlu_humanities")
    subjects = [member.config["dataset_name"] for member in group.members]
    rows = {
        subject: [
            {"question": f"which word is number {i} ?", "choices": choices(4, i + n), "answer": (i + n) % 4}
            for i in range(3 + n % 2)
        ]
        for n, subject in enumerate(subjects)
    }
    lay(home, "cais/mmlu", {subject: {"test": rows[subject], "dev": rows[subject]} for subject in subjects})
    mark = fingerprint(model)
    with Evaluator("hf", log=tmp_path / "engine.log") as engine:
        easy = measured(engine, model, mark, lm_eval_task("arc_easy"), tmp_path)
        pooled = measured(engine, model, mark, group, tmp_path)
    own = theirs("arc_easy", model, local_folder, monkeypatch)["results"]["arc_easy"]
    assert easy["metrics"]["acc_norm"]["value"] == own["acc_norm,none"]
    assert easy["metrics"]["acc"]["value"] == own["acc,none"] and easy["metrics"]["acc"]["n"] == 12
    found = theirs("mmlu_humanities", model, local_folder, monkeypatch)
    assert pooled["metrics"]["acc"]["value"] == pytest.approx(
        found["results"]["mmlu_humanities"]["acc,none"], abs=1e-12
    )
    assert pooled["metrics"]["acc"]["n"] == sum(map(len, rows.values())) and len(subjects) == 13


def test_what_lm_eval_does_not_have_is_told_with_the_nearest_name():
    with pytest.raises(HarnessError) as caught:
        lm_eval_task("arc_chalenge")
    assert "`arc_chalenge`" in caught.value.message and "arc_challenge" in caught.value.hint


def test_known_tasks_have_the_columns_of_the_field():
    for name, metric, better in (
        ("arc_challenge", "acc_norm", True),
        ("mmlu", "acc", True),
        ("wikitext", "word_perplexity", False),
    ):
        (column,) = lm_eval_task(name).columns
        assert (column.key, column.higher_is_better) == (metric, better)
    assert len(lm_eval_task("mmlu").members) == 57


def test_missing_data_names_the_way_to_get_it(home, tmp_path):
    from harness.evaluate.building import build

    with pytest.raises(HarnessError) as caught:
        build(lm_eval_task("wikitext"), "test")
    assert "harness data fetch lm_eval:wikitext" in caught.value.hint
    assert "hub--EleutherAI--wikitext_document_level" in caught.value.hint
