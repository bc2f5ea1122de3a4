"""A merge goes to the hub whole, with its card; an unfinished or broken one does not."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

import harness
from harness.checkpoint import fingerprint
from harness.errors import HarnessError
from harness.verbs.push import push

TINY = Path(harness.__file__).parent / "families" / "tiny"


@pytest.fixture
def results(tmp_path):
    """A store with one merge: the tiny base under another name."""
    row = tmp_path / "results" / "tiny-safety" / "models" / "ties--density=0.4--12345678"
    shutil.copytree(TINY / "base", row / "model")
    (row / "model" / "README.md").write_text("---\ntags: [merge]\n---\n\n# card\n")
    (row / "model" / ".part").write_text("not for anybody")
    recipe = {"recipe": "MergeRecipe", "label": "ties", "method": "ties", "base": "b" * 64}
    (row / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (row / "done.json").write_text(json.dumps({"fingerprint": fingerprint(row / "model")}))
    return tmp_path / "results"


@pytest.fixture
def run(online, monkeypatch, results):
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    return lambda row="ties", **given: push(
        row, "org/mine", "tiny-safety", results, **{"private": True, **given}
    )


def folder(results):
    return results / "tiny-safety" / "models" / "ties--density=0.4--12345678"


def records(results, base: dict, mine: dict):
    """An evaluation of the base and of the merge."""
    reference = results / "tiny-safety" / "models" / "base--1"
    reference.mkdir()
    (reference / "recipe.yaml").write_text(yaml.safe_dump({"recipe": "ReferenceRecipe", "model": "b" * 64}))
    for row, record in ((reference, base), (folder(results), mine)):
        where = row / "evals" / "tiny_refusal--1"
        where.mkdir(parents=True)
        recipe = {"recipe": "EvalRecipe", "task": "tiny_refusal", "limit": None}
        (where / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        (where / "done.json").write_text(json.dumps(record))


def test_it_arrives_whole(run, online, results, capsys):
    assert run() == 0
    model = folder(results) / "model"
    pushed = online.pushed["org/mine"]
    assert "README.md" in pushed and ".part" not in pushed
    assert all(content == (model / name).read_bytes() for name, content in pushed.items())
    assert set(pushed) == {p.name for p in model.iterdir()} - {".part"}
    assert online.private == {"org/mine": "private"}
    said = capsys.readouterr().out
    assert "commit/" in said and "hf_good" not in said


def test_a_dry_run_asks_nothing_of_the_hub(run, online, capsys):
    assert run(dry_run=True) == 0
    assert not online.asked and "model.safetensors" in capsys.readouterr().out


def test_the_tables_label_will_do(run, online):
    assert run("TIES") == 0 and online.pushed


def test_public_is_public(run, online):
    run(private=False)
    assert online.private == {"org/mine": "public"}


def test_unfinished(run, results, online):
    (folder(results) / "done.json").unlink()
    (folder(results) / "error.txt").write_text("the disk was full\n")
    with pytest.raises(HarnessError, match="not finished: the disk was full"):
        run()
    assert not online.pushed
    assert run(force=True) == 0 and online.pushed


def test_without_weights_no_force_helps(run, results):
    (folder(results) / "model" / "model.safetensors").unlink()
    with pytest.raises(HarnessError, match="has no weights"):
        run(force=True)


def test_changed_since_it_was_merged(run, results):
    config = folder(results) / "model" / "config.json"
    config.write_text(config.read_text().replace('"rope_theta"', '"rope_theta2"').replace("silu", "gelu"))
    with pytest.raises(HarnessError, match="was changed since"):
        run()


def test_collapsed(run, results, online):
    rates = {"unfinished": 0.0, "repetition": 0.0, "empty": 0.0}
    records(results, {"rates": rates}, {"rates": {**rates, "repetition": 0.9}})
    with pytest.raises(HarnessError, match="has collapsed: repetition 90%"):
        run()
    assert run(force=True) == 0


def test_one_that_works_is_not_collapsed(run, results, online):
    rates = {"unfinished": 0.0, "repetition": 0.1, "empty": 0.0}
    records(results, {"rates": rates}, {"rates": rates})
    assert run() == 0


def test_a_repository_with_weights_is_left_alone(run, online):
    online.models["org/mine"] = {"files": {"model.safetensors": b"theirs"}}
    with pytest.raises(HarnessError, match="holds weights already"):
        run()
    assert not online.pushed


@pytest.mark.parametrize(
    ("status", "hint"), [(401, "hf auth login"), (403, "may not write"), (500, "tries again")]
)
def test_refusals_of_the_hub(run, online, status, hint):
    online.refuses = status
    with pytest.raises(HarnessError) as told:
        run()
    assert f"HTTP {status}" in told.value.message and hint in told.value.hint
    assert "hf_good" not in str(told.value)


def test_no_login(run, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HarnessError, match="no login"):
        run()


def test_no_network(unreachable, monkeypatch, results):
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    with pytest.raises(HarnessError, match="cannot be reached"):
        push("ties", "org/mine", "tiny-safety", results, private=True)


def test_what_is_not_there(run):
    with pytest.raises(HarnessError, match="is called `tise`") as told:
        run("tise")
    assert "`ties`" in told.value.hint


def test_a_name_that_is_none(results):
    with pytest.raises(HarnessError, match="no repository's name"):
        push("ties", "mine", "tiny-safety", results, private=True)
