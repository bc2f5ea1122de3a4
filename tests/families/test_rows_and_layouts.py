"""Families of the official architectures run for real; checkpoints that exist as rows beside the merges."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import yaml
from stand_ins import stand_in

from harness import cli
from harness.errors import HarnessError
from harness.family import load_family, parse_family
from harness.planner import make_plan
from harness.store import Store


def write(folder, **given):
    """A family that extends a shipped one, its models beside it, on tasks of the tiny family."""
    short = {"max_gen_toks": 8, "do_sample": False, "temperature": 0.0}
    settings = {
        "base": "base",
        "experts": {"reasoning": "reasoning", "task": {"model": "task"}},
        "calibration": {
            "reasoning": {"data": "calibration/openthoughts.jsonl", "n": 4, "max_tokens": 64},
            "task": {"data": "calibration/hh-rlhf.jsonl", "n": 4, "max_tokens": 64},
        },
        "tasks": ["tiny_refusal", "tiny_prose"],
        "generation": {
            role: {**short, "temperature": 0.0} for role in ("base", "task", "reasoning", "merge")
        },
        "collapse": {"probe": ["tiny_prose"], "n": 2},
        "chat_template": "auto",
    } | given
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    return path


def table(path):
    with (path / "report" / "table.csv").open() as file:
        return list(csv.DictReader(file))


def run(*args):
    with pytest.raises(SystemExit) as ended:
        cli.main.main(list(args))
    return ended.value.code


@pytest.mark.slow
def test_a_llama_family_with_grouped_queries_runs_whole(copied, data, workdir, capsys):
    """Sharded and untied; the base has no chat template, and another rope than the reasoning expert."""
    folder = copied("llama")
    shutil.move(data, folder / "calibration")
    stand_in(folder / "released", "llama", of=folder / "base", seed=5)
    path = write(folder, extends="llama8b-safety", rows={"released merge": "./released"})
    assert run("compare", "--family", str(path), "--limit", "3") == 0
    found = {row["row"] for row in table(Path("results/mine"))}
    assert found >= {
        "base",
        "reasoning",
        "safety",
        "released merge",
        "ReasonAny (official)",
        "LED-Merging",
        "TIES",
    }
    told = (Path("results/mine/report/table.md")).read_text()
    assert "asked in plain text, for want of a chat template: base" in told
    compat = json.loads(Path("results/mine/compat.json").read_text())
    assert any("rope" in warning for warning in compat["warnings"])


@pytest.mark.slow
def test_a_mistral_family_of_other_vocabularies_runs_whole(copied, data, workdir, capsys):
    """Tied where the base is tied; the task expert has tokens of its own, and none are lost by number."""
    folder = copied("mistral")
    shutil.move(data, folder / "calibration")
    for role, seed, given in (("base", 0, {}), ("reasoning", 1, {}), ("task", 2, {"extra": ["<extra>"]})):
        shutil.rmtree(folder / role)
        near = None if role == "base" else folder / "base"
        stand_in(folder / role, "mistral", of=near, seed=seed, tied=True, shards=2, **given)
    methods = {"ties (mergekit)": False, "dare (mergekit)": False, "sce (as FuseLLM)": False}
    path = write(folder, extends="qwen7b-safety", vocab="base", tokenizer="base", methods=methods)
    assert run("compare", "--family", str(path), "--limit", "3") == 0
    rows = table(Path("results/mine"))
    assert {row["row"] for row in rows} >= {"base", "ReasonAny", "ReasonAny (official)", "DARE"}
    assert not any("mergekit" in row["row"] for row in rows)
    merged = next(Path("results/mine/models").glob("reasonany*")) / "model"
    config = json.loads((merged / "config.json").read_text())
    assert config["model_type"] == "mistral" and config["tie_word_embeddings"]


LABELS = [row.label for row in load_family("tiny-safety").rows()]


@pytest.fixture
def tiny(workdir):
    """A family on the embedded models with an existing checkpoint and an adapter's place as rows."""
    import harness.families.tiny as embedded

    home = Path(embedded.__file__).parent
    shutil.copytree(home / "safety", workdir / "released")

    def family(rows, **given):
        settings = {
            "extends": "tiny-safety",
            "tasks": ["tiny_refusal"],
            "rows": rows,
            "methods": {label: False for label in LABELS if label != "linear"},
        } | given
        (workdir / "mine.yaml").write_text(yaml.safe_dump(settings))
        return parse_family(workdir / "mine.yaml")

    return family


def test_existing_checkpoints_are_rows_of_their_own(tiny, workdir):
    family = tiny({"their merge": "./released"})
    plan = make_plan(family, Store(Path("results"), "mine"))
    labels = [(row.label, row.role) for row in plan.rows]
    assert labels[:4] == [
        ("base", "base"),
        ("reasoning", "reasoning"),
        ("safety", "task"),
        ("their merge", "checkpoint"),
    ]
    row = plan.rows[3]
    assert row.role == "checkpoint" and row.decodes_as == "merge" and not row.is_merge
    assert row.recipe.model == plan.prints["task"]  # the same bytes as the safety expert
    asked = {step.recipe.generation.get("max_gen_toks") for step in plan.evals_of(row)}
    assert asked == {step.recipe.generation.get("max_gen_toks") for step in plan.evals_of(plan.rows[4])}
    assert plan.probes_of(row)
    assert not set(plan.prints) - {"base", "reasoning", "task"}  # no input of any merge


def test_a_row_that_is_not_there_is_told_with_its_label(tiny):
    with pytest.raises(HarnessError) as caught:
        make_plan(tiny({"theirs": "./gone"}), Store(Path("results"), "mine"))
    assert "(row theirs)" in caught.value.message and "gone" in caught.value.message
    made = make_plan(tiny({"theirs": "./gone"}), Store(Path("results"), "mine"), tasks=[], references=False)
    assert made.rows  # `harness merge` needs no rows


@pytest.mark.slow
def test_an_existing_checkpoint_is_measured_and_never_bold(tiny, workdir, capsys):
    tiny({"their merge": "./released"})
    assert run("compare", "--family", "./mine.yaml", "--limit", "10") == 0
    found = table(Path("results/mine"))
    value = {row["row"]: float(row["value"]) for row in found if row["metric"] == "refused"}
    assert value["their merge"] == value["safety"] > value["base"]
    told = Path("results/mine/report/table.md").read_text()
    assert "**" not in next(line for line in told.splitlines() if "their merge" in line)
