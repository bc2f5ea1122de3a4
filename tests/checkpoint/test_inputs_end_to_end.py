"""A family of a `.bin` base, an adapter and a checkpoint of another vocabulary, as a user runs it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from harness import HarnessError, cli, options
from harness.families import tiny as embedded
from harness.inputs import REPORT

TINY = Path(embedded.__file__).parent
FAMILY = {
    "title": "odd inputs",
    "base": "base",
    "tokenizer": "base",
    "methods": {"task_arithmetic": {"scale": 1.0}},
}


@pytest.fixture
def odd(workdir):
    """base: `.bin`; adapter: LoRA of another local model; wide: tokens of its own and 30 rows more."""
    for name in ("base", "reasoning", "safety"):
        shutil.copytree(TINY / name, workdir / name)
    held = load_file(workdir / "base" / "model.safetensors")
    (workdir / "base" / "model.safetensors").unlink()
    torch.save(held, workdir / "base" / "pytorch_model.bin")
    adapter(workdir / "adapter", held)
    widen(workdir / "safety")
    return workdir


def adapter(folder, held):
    folder.mkdir()
    name, draw = "model.layers.1.mlp.up_proj", torch.Generator().manual_seed(0)
    out, into = held[f"{name}.weight"].shape
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "base_model_name_or_path": "elsewhere/reasoning"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    pair = {
        f"base_model.model.{name}.lora_A.weight": torch.randn(2, into, generator=draw) * 0.1,
        f"base_model.model.{name}.lora_B.weight": torch.randn(out, 2, generator=draw) * 0.1,
    }
    save_file(pair, folder / "adapter_model.safetensors")


def widen(folder):
    held = load_file(folder / "model.safetensors")
    rows = held["model.embed_tokens.weight"]
    held["model.embed_tokens.weight"] = torch.cat([rows, rows[:30]])
    save_file(held, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": config["vocab_size"] + 30}))
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append({**tokenizer["added_tokens"][0], "id": len(rows), "content": "<new>"})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def family(folder, experts, **changes):
    text = yaml.safe_dump({**FAMILY, "experts": experts, **changes}).replace(
        "'on':", "on:"
    )  # as people write it
    (folder / "odd.yaml").write_text(text)
    return "./odd.yaml"


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    return ended.value.code


EXPERTS = {"reasoning": {"model": "adapter", "on": "reasoning"}, "task": "safety"}


def test_everything_odd_at_once(odd, capsys):
    path = family(odd, EXPERTS, vocab="base")
    assert run("merge", "task_arithmetic", "-f", path, "--to", "out", "--shard-size", "500kB") == 0
    said = capsys.readouterr().err
    assert "1 of its tokens are not in the base, and left out: `<new>`" in said.replace("\n", " ")
    held = {n: t for file in (odd / "out").glob("*.safetensors") for n, t in load_file(file).items()}
    assert len(list((odd / "out").glob("model-*-of-*.safetensors"))) >= 3
    base, safety, reasoning = (
        torch.load(odd / "base" / "pytorch_model.bin"),
        *(load_file(odd / name / "model.safetensors") for name in ("safety", "reasoning")),
    )
    lora = load_file(odd / "adapter" / "adapter_model.safetensors")
    b, a = (next(t for n, t in lora.items() if f"lora_{half}" in n) for half in "BA")
    for name, start in base.items():
        expert = reasoning[name].float()
        if name == "model.layers.1.mlp.up_proj.weight":
            expert = (expert + b @ a).bfloat16().float()
        other = safety[name].float()[: len(start)]
        wanted = start.float() + ((expert - start.float()) + (other - start.float()))
        assert torch.equal(held[name], wanted.bfloat16()), name
    card = (odd / "out" / "README.md").read_text()
    assert "`base`" in card and "`adapter`" in card and "`model`" not in card
    assert json.loads((odd / "out" / "config.json").read_text())["vocab_size"] == 866


def test_a_comparison_writes_and_shows_what_is_odd(odd, capsys):
    from harness import verbs

    held = load_file(odd / "reasoning" / "model.safetensors")
    save_file({n: -t for n, t in held.items()}, odd / "reasoning" / "model.safetensors", {"format": "pt"})
    path = family(odd, EXPERTS, vocab="base")
    assert verbs.compare(path, None, [], None, Path("results")) == 0
    shown = capsys.readouterr()
    assert "`reasoning` is evidently not a fine-tune of base" in shown.err.replace("\n", " ")
    report = json.loads((odd / "results" / "odd" / REPORT).read_text())
    assert report["lineage"]["relative_norm"]["reasoning"] > 1.9
    assert 0.05 < report["lineage"]["relative_norm"]["task"] < 0.5
    table = (odd / "results" / "odd" / "report" / "table.md").read_text()
    for warning in report["warnings"]:
        assert warning.replace("|", "\\|") in table
    assert any("evidently not" in w for w in report["warnings"]) and any(
        "<new>" in w for w in report["warnings"]
    )
    stamps = {p: p.stat().st_mtime_ns for p in (odd / "results").rglob("*.safetensors")}
    assert verbs.compare(path, None, [], None, Path("results")) == 0
    assert stamps == {p: p.stat().st_mtime_ns for p in (odd / "results").rglob("*.safetensors")}
    assert "evidently not" in (odd / "results" / "odd" / "report" / "table.md").read_text()


def test_without_the_rule_the_sizes_do_not_fit(odd, capsys):
    path = family(odd, EXPERTS)
    assert run("merge", "task_arithmetic", "-f", path, "--to", "out") == 2
    error = capsys.readouterr().err
    assert "[896, 128] where the base has [866, 128]" in error and "vocab: base" in error
    assert not (odd / "out").exists()
    report = json.loads((odd / "results" / "odd" / REPORT).read_text())
    assert report["experts"]["task"]["misfits"] == 1


def test_the_rule_is_part_of_what_a_merge_is(odd):
    from harness.family import load_family
    from harness.planner import make_plan
    from harness.store import Store

    found = set()
    for rule in ("error", "base", "intersect"):
        plan = make_plan(load_family(family(odd, EXPERTS, vocab=rule)), Store(odd / "r", "odd"), tasks=[])
        found |= {row.folder.path for row in plan.rows if row.is_merge}
    assert len(found) == 3 and not (odd / "r").exists(), "planning converts nothing"
    with pytest.raises(HarnessError, match="vocab"):
        load_family(family(odd, EXPERTS, vocab="largest"))


def test_planning_odd_inputs_does_not_import_torch(odd):
    import subprocess
    import sys

    path = family(odd, EXPERTS, vocab="base")
    code = (
        "import sys; from harness.family import load_family; from harness.planner import make_plan; "
        "from harness.store import Store; from pathlib import Path; "
        f"make_plan(load_family({path!r}), Store(Path('r'), 'odd'), tasks=[]); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=odd)
    assert done.stdout.strip() == "False", done.stderr


def test_nan_is_merged_only_when_asked_for(odd, capsys):
    file = odd / "reasoning" / "model.safetensors"
    held = load_file(file)
    held["model.norm.weight"][3] = float("nan")
    save_file(held, file, {"format": "pt"})
    path = family(odd, {"reasoning": "reasoning"})
    assert run("merge", "task_arithmetic", "-f", path, "--to", "out") == 2
    assert "model.norm.weight" in capsys.readouterr().err and not (odd / "out").exists()
    assert run("merge", "task_arithmetic", "-f", path, "--to", "out", "--allow-nonfinite") == 0
    assert load_file(odd / "out" / "model.safetensors")["model.norm.weight"].isnan().sum() == 1


@pytest.mark.slow
def test_a_row_that_cannot_be_converted_fails_alone(odd, capsys):
    broken = odd / "broken"
    shutil.copytree(odd / "base", broken)
    file = broken / "pytorch_model.bin"
    file.write_bytes(file.read_bytes()[:5000])
    path = family(odd, {"reasoning": "reasoning"}, rows={"released": "broken"})
    asked = ("compare", "-f", path, "--methods", "linear", "--tasks", "tiny_facts_mc", "--limit", "2")
    assert run(*asked) == 1
    shown = capsys.readouterr()
    assert "pytorch_model.bin is truncated or corrupt" in shown.out + shown.err
    rows = (odd / "results" / "odd" / "report" / "table.csv").read_text()
    assert "Linear" in rows and "released" in rows
    evals = (odd / "results" / "odd" / "models").glob("*/evals/*/done.json")
    assert {file.parents[2].name.split("--")[0] for file in evals} == {"base", "reasoning", "linear"}


@pytest.mark.slow
def test_an_expert_that_cannot_be_converted_stops_the_run(odd, capsys):
    file = odd / "base" / "pytorch_model.bin"
    file.write_bytes(file.read_bytes()[:5000])
    path = family(odd, {"reasoning": "reasoning"})
    asked = ("compare", "-f", path, "--methods", "linear", "--tasks", "tiny_facts_mc", "--limit", "2")
    assert run(*asked) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert error[-2].startswith("error: ") and error[-1].startswith("hint: ")


def test_bin_files_are_fetched_only_where_there_is_nothing_else(monkeypatch, tmp_path):
    import huggingface_hub

    from harness.family import model_path

    asked = []

    def download(name, revision, allow_patterns, **_):
        asked.append((name, revision, allow_patterns[0]))
        return tmp_path / name

    monkeypatch.setattr("harness.hub.cached", lambda ref: None)
    monkeypatch.setattr("harness.family.obtain.check", lambda ref: None)  # the hub says that it has them
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    for name in ("old/bins", "new/safe"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "new" / "safe" / "model.safetensors").write_bytes(b"")
    assert model_path("old/bins@abc", Path("/nowhere")) == tmp_path / "old" / "bins"
    assert model_path("new/safe", Path("/nowhere")) == tmp_path / "new" / "safe"
    assert asked == [
        ("old/bins", "abc", "*.safetensors"),
        ("old/bins", "abc", "pytorch_model*.bin"),
        ("new/safe", None, "*.safetensors"),
    ]


@pytest.mark.parametrize(
    ("text", "size"), [("5GB", 5 * 10**9), ("500 mb", 5 * 10**8), ("2GiB", 2**31), ("1.5K", 1500), ("7", 7)]
)
def test_sizes(text, size):
    assert options.size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "0", "5XB", "1e9", "0.2"])
def test_what_is_no_size(text):
    with pytest.raises(HarnessError, match="is no size"):
        options.size(text)
