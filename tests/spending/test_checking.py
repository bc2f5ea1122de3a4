"""`harness check FAMILY`: everything at once, each with its place."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

import harness
from harness.screen import Screen
from harness.verbs.checking import check_family, is_family, report

TINY = Path(harness.__file__).parent / "families" / "tiny"


def check(name, results="results"):
    """(exit code, findings as `level about fact`, all that was found)."""
    with Screen() as screen:
        found = report(Path(name), Path(results), False, screen)
    lines = [f"{one.level} {one.about}: {one.fact} / {one.hint}" for one in found.findings]
    return lines, found


def wanting(lines, *parts):
    return [line for line in lines if all(part in line for part in parts)]


def test_the_tiny_family_is_in_order(capsys):
    assert check_family("tiny-safety", Path("nowhere")) == 0
    out = capsys.readouterr().out
    assert "0 errors, 0 warnings" in out
    assert "calibration of task" in out and "loss on tokens" in out and "i cannot help" in out
    assert "|tau|/|theta0| reasoning 0.0952" in out


def test_as_data(capsys):
    check_family("tiny-safety", Path("nowhere"), as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["errors"] == 0 and told["examples"][0]["rows"] == 100
    assert told["lineage"]["relative_norm"]["task"] == pytest.approx(0.0914, abs=1e-3)


def test_all_faults_of_the_schema_with_their_lines(workdir):
    text = "title: t\nbase: ./x\nexperts: {task: ./y}\ncolapse: {n: 3}\nseed: many\n"
    text += "calibration:\n  task: {data: a.jsonl, txet: b}\n"
    (workdir / "bad.yaml").write_text(text)
    lines, found = check("bad.yaml")
    assert wanting(lines, "bad.yaml:4", "unknown key `colapse`", "`collapse`")
    assert wanting(lines, "bad.yaml:5", "`seed` is 'many'")
    assert wanting(lines, "bad.yaml:7", "unknown key `calibration.task.txet`", "`text`")
    assert found.errors >= 3


FAULTS = """
title: many faults
extends: tiny-safety
calibration:
  task: {n: 100, max_tokens: 4}
tasks: [tiny_chain, tiny_chian]
generation: {merge: {temperature: 0.6, do_sample: false}}
repeats: {tiny_chain: 3}
methods:
  ties: {density: 3}
  task_arithmetic: {scale: 0.0}
  nosuch: {}
"""


def test_all_faults_of_rows_tasks_and_settings(workdir):
    (workdir / "many.yaml").write_text(FAULTS)
    lines, found = check("many.yaml")
    assert wanting(lines, "error row `ties`", "`density`", "out of range")
    assert wanting(lines, "error row `nosuch`", "no method")
    assert wanting(lines, "error tasks", "tiny_chian", "`tiny_chain`")
    assert wanting(lines, "warning row `task_arithmetic`", "`scale` is 0.0, at which it changes nothing")
    assert wanting(lines, "warning generation", "`merge` sets temperature", "greedy")
    assert wanting(lines, "warning repeats", "asked once and not 3 times")
    assert wanting(lines, "error calibration of task", "no token of its completion within 4 tokens")


def test_rows_that_are_cut_are_counted(workdir):
    family = {"extends": "tiny-safety", "calibration": {"task": {"max_tokens": 24}}}
    (workdir / "cut.yaml").write_text(yaml.safe_dump(family))
    lines, found = check("cut.yaml")
    (example,) = [one for one in found.examples if one.role == "task"]
    assert 0 < example.cut < 100 and example.longest == 24
    assert wanting(lines, "warning calibration of task", f"{example.cut} of 100 rows are cut at 24 tokens")


def test_models_that_do_not_fit_and_paths_that_are_not(workdir):
    shutil.copytree(TINY / "base", workdir / "base")
    family = {
        "extends": "tiny-safety",
        "base": "./base",
        "experts": {"task": "./gone"},
        "methods": {"linear": {}},
    }
    (workdir / "own.yaml").write_text(yaml.safe_dump(family))
    lines, _ = check("own.yaml")
    assert wanting(lines, "error model", "./gone")
    config = json.loads((workdir / "base" / "config.json").read_text())
    shutil.copytree(TINY / "safety", workdir / "gone")
    (workdir / "base" / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5}))
    lines, _ = check("own.yaml")
    assert wanting(lines, "warning models", "rms_norm_eps")


def test_an_expert_of_another_base_is_told(workdir):
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(TINY / "safety", workdir / "other")
    file = workdir / "other" / "model.safetensors"
    weights = {
        n: torch.randn_like(t.float()).to(t.dtype) * t.float().std() for n, t in load_file(file).items()
    }
    save_file({n: t.to(torch.bfloat16) for n, t in weights.items()}, file, {"format": "pt"})
    family = {"extends": "tiny-safety", "experts": {"task": "./other"}, "methods": {"linear": {}}}
    (workdir / "own.yaml").write_text(yaml.safe_dump(family))
    lines, found = check("own.yaml")
    assert wanting(lines, "warning lineage", "`task` is evidently not a fine-tune")
    assert found.lineage["relative_norm"]["task"] > 1


def test_hub_errors_are_findings(workdir, online):
    online.models["org/gated"] = {"files": {"config.json": b"{}"}, "gated": "auto"}
    family = {"extends": "tiny-safety", "base": "org/none", "methods": {"linear": {}}}
    family["experts"] = {"task": "org/gated", "reasoning": "org/gated@" + "5" * 40}
    (workdir / "far.yaml").write_text(yaml.safe_dump(family))
    lines, _ = check("far.yaml")
    assert wanting(lines, "error model", "org/none", "has no model")
    assert wanting(lines, "error model", "`org/gated` is gated", "hf auth login")
    assert wanting(lines, "error model", "has no revision")
    assert wanting(lines, "warning models", "not compared")


@pytest.mark.parametrize(
    ("name", "wanted"), [("tiny-safety", True), ("./x.yaml", True), ("ties", False), ("./m.py", False)]
)
def test_what_is_a_family(name, wanted):
    assert is_family(name) is wanted
