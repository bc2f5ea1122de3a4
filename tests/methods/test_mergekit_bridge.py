"""`mergekit:<name>`: the bridge gives what mergekit run by hand gives, in a folder like any merge's."""

import json
import os
import traceback

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from harness import registry
from harness.bridge import child, definitions, merging
from harness.checkpoint import Checkpoint
from harness.errors import HarnessError
from harness.merge import Inputs, Job, merge
from tests import helpers_checkpoints as tiny

ROLES = ("reasoning", "task")
TINY = registry.PACKAGE / "families" / "tiny"
FOLDERS = {"base": TINY / "base", "reasoning": TINY / "reasoning", "task": TINY / "safety"}
SEED = 7

# method, our settings, mergekit's per-model parameters, mergekit's shared parameters, base_model, models
BOTH, NONE = list(ROLES), {}
CASES = [
    ("linear", {}, {"weight": 1.0}, {}, None, BOTH),
    ("linear", {"weight": {"task": 0.3}}, {"weight": (1.0, 0.3)}, {"normalize": True}, None, BOTH),
    ("task_arithmetic", {"scale": 0.3, "weight": 0.5}, {"weight": 0.5}, {"lambda": 0.3}, "base", BOTH),
    ("ties", {"density": 0.2, "scale": 0.7}, {"weight": 1.0, "density": 0.2}, {"lambda": 0.7}, "base", BOTH),
    ("ties", {"density": {"reasoning": 0.5, "task": [0.1, 0.9]}, "normalize": False},
     {"weight": 1.0, "density": (0.5, [0.1, 0.9])}, {"normalize": False}, "base", BOTH),
    ("dare_ties", {"density": 0.5}, {"weight": 1.0, "density": 0.5}, {}, "base", BOTH),
    ("dare_linear", {"density": 0.3, "rescale": False},
     {"weight": 1.0, "density": 0.3}, {"rescale": False}, "base", BOTH),
    ("della", {"density": 0.5, "epsilon": 0.1},
     {"weight": 1.0, "density": 0.5, "epsilon": 0.1}, {}, "base", BOTH),
    ("della_linear", {"density": 0.5}, {"weight": 1.0, "density": 0.5}, {}, "base", BOTH),
    ("breadcrumbs", {"density": 0.8}, {"weight": 1.0, "density": 0.8, "gamma": 0.01}, {}, "base", BOTH),
    ("breadcrumbs_ties", {"density": 0.8, "gamma": 0.1},
     {"weight": 1.0, "density": 0.8, "gamma": 0.1}, {}, "base", BOTH),
    ("sce", {"select_topk": 0.5}, NONE, {"select_topk": 0.5}, "base", BOTH),
    ("ram", {}, NONE, {}, "base", BOTH),
    ("ramplus_tl", {"r": 0.3}, NONE, {"r": 0.3}, "base", BOTH),
    ("model_stock", {"filter_wise": True}, NONE, {"filter_wise": True}, "base", BOTH),
    ("slerp", {"t": 0.3}, NONE, {"t": 0.3}, "reasoning", BOTH),
    ("slerp", {"t": [{"filter": "mlp", "value": [0, 1]}, {"value": 0.5}], "models": ["task", "base"]},
     NONE, {"t": [{"filter": "mlp", "value": [0, 1]}, {"value": 0.5}]}, "task", ["task", "base"]),
    ("nuslerp", {"weight": {"task": 2.0}}, {"weight": (1.0, 2.0)}, {}, "base", BOTH),
    ("nuslerp", {"use_base": False}, {"weight": 1.0}, {}, None, BOTH),
    ("multislerp", {}, {"weight": 1.0}, {}, "base", BOTH),
    ("multislerp", {"use_base": False, "models": ["base", *ROLES]},
     {"weight": 1.0}, {}, None, ["base", *ROLES]),
    ("karcher", {"max_iter": 20}, NONE, {"max_iter": 20}, None, BOTH),
    ("nearswap", {"t": 0.001}, NONE, {"t": 0.001}, "reasoning", BOTH),
    ("arcee_fusion", {"models": ["base", "task"]}, NONE, {}, "base", ["base", "task"]),
    ("passthrough", {"models": ["task"], "scale": 0.5}, {"scale": 0.5}, {}, None, ["task"]),
]  # fmt: skip


def in_process(part):
    """What the child does, without its start; one process for all."""
    from mergekit.io.tasks import LoaderCache

    here = os.getcwd()
    os.chdir(part)
    LoaderCache().loaders.clear()
    try:
        child.run(json.loads((part / "spec.json").read_text()))
        (part / merging.LOG).write_text("done\n")
        return 0
    except BaseException:
        (part / merging.LOG).write_text(traceback.format_exc())
        return 1
    finally:
        LoaderCache().loaders.clear()
        os.chdir(here)


@pytest.fixture
def shared(monkeypatch):
    monkeypatch.setattr(merging, "launch", in_process)
    monkeypatch.setattr(merging, "_threads", lambda: 1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def opened(folders=FOLDERS, donor="reasoning"):
    models = {role: Checkpoint.open(path) for role, path in folders.items()}
    return Inputs(models.pop("base"), models, folders[donor])


def bridged(make, to, name, settings, inputs=None, **job):
    method = make(f"mergekit:{name}", **settings)
    return merge(inputs or opened(), [Job(method, to, **{"seed": SEED, **job})])[0]


def by_hand(to, name, per_model, shared, base, models):
    from mergekit.config import MergeConfiguration
    from mergekit.io.tasks import LoaderCache
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    def own(i):
        return {key: v[i] if isinstance(v, tuple) else v for key, v in per_model.items()}

    listed = [{"model": str(FOLDERS[role]), "parameters": own(i)} for i, role in enumerate(models)]
    config = {"merge_method": name, "models": listed, "parameters": shared, "dtype": "float32",
              "out_dtype": "bfloat16"}  # fmt: skip
    if base:
        config["base_model"] = str(FOLDERS[base])
    LoaderCache().loaders.clear()
    options = MergeOptions(random_seed=SEED, copy_tokenizer=False, write_model_card=False, quiet=True)
    run_merge(MergeConfiguration.model_validate(config), str(to), options)
    return load_file(to / "model.safetensors")


def same(one, other):
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_every_method_gives_what_mergekit_gives_by_hand(shared, make, tmp_path, case):
    from transformers import AutoModelForCausalLM

    name, settings, per_model, common, base, models = case
    bridged(make, tmp_path / "ours", name, settings)
    ours = load_file(tmp_path / "ours" / "model.safetensors")
    assert same(ours, by_hand(tmp_path / "theirs", name, per_model, common, base, models))
    model, report = AutoModelForCausalLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report.values()) and model.dtype == torch.bfloat16


def test_every_method_that_mergekit_registers_is_tried_above():
    assert {case[0] for case in CASES} == set(definitions.names())


def test_the_stored_definitions_are_mergekits_own():
    """In a mergekit of another version they are asked of it instead; this file has to follow the pin."""
    assert json.loads(definitions.FILE.read_text()) == json.loads(json.dumps(child.describe()))
    assert json.loads(definitions.FILE.read_text())["mergekit"] == definitions.installed()


def test_definitions_of_another_version_are_asked_of_it(monkeypatch, tmp_path):
    (tmp_path / "other.json").write_text('{"mergekit": "0.0.1", "methods": {}}')
    monkeypatch.setattr(definitions, "FILE", tmp_path / "other.json")
    definitions._definitions.cache_clear()
    try:
        asked = definitions.definition("ties")
    finally:
        definitions._definitions.cache_clear()
    monkeypatch.undo()
    assert asked == definitions.definition("ties")


def test_the_folder_is_like_any_merges(shared, make, tmp_path):
    record = bridged(make, tmp_path / "ties", "ties", {"density": 0.5}, recipe={"family": "tiny"})
    merge(opened(), [Job(make("ties", density=0.5), tmp_path / "plain")])
    names = {name: {file.name for file in (tmp_path / name).iterdir()} for name in ("ties", "plain")}
    assert names["ties"] - names["plain"] == {"mergekit_config.yml", "mergekit.log"}
    assert names["plain"] <= names["ties"]
    for name in names["plain"] - {"README.md", "merge.json", "model.safetensors"}:
        assert (tmp_path / "ties" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes(), name
    modes = {(tmp_path / "ties" / name).stat().st_mode & 0o777 for name in names["ties"]}
    assert len(modes) == 1, "one file is more private than the others"
    card = (tmp_path / "ties" / "README.md").read_text()
    config = yaml.safe_load((tmp_path / "ties" / "mergekit_config.yml").read_text())
    written = yaml.safe_load(card.split("```yaml\n")[1].split("```")[0])
    assert written["mergekit"] == record["mergekit"] == definitions.installed()
    assert written["mergekit_config"] == config and written["family"] == "tiny"
    assert config["base_model"] == "base" and config["dtype"] == "float32"
    assert [m["parameters"]["density"] for m in config["models"]] == [0.5, 0.5]
    assert not list(tmp_path.glob(".*")), "the private folder is gone"
    again = bridged(make, tmp_path / "ties", "ties", {"density": 0.5})
    assert again["mergekit"] == record["mergekit"] and again["seconds"]["build"] < 0.5
    with pytest.raises(HarnessError, match="already holds something else"):
        bridged(make, tmp_path / "ties", "ties", {"density": 0.4})
    bridged(make, tmp_path / "ties", "ties", {"density": 0.4}, replace=True)
    assert "density: 0.4" in (tmp_path / "ties" / "mergekit_config.yml").read_text()


@pytest.mark.parametrize("name", ["dare_linear", "dare_ties", "della", "della_linear"])
def test_random_methods_follow_the_seed(shared, make, tmp_path, name):
    for folder, seed in (("one", 1), ("again", 1), ("other", 2)):
        bridged(make, tmp_path / folder, name, {"density": 0.5}, seed=seed)
    one, again, other = (tmp_path / f / "model.safetensors" for f in ("one", "again", "other"))
    assert one.read_bytes() == again.read_bytes() != other.read_bytes()
    with pytest.raises(HarnessError, match="seed is -1"):
        bridged(make, tmp_path / "negative", name, {"density": 0.5}, seed=-1)


def test_config_comes_from_the_base_whichever_way_mergekit_would_turn(shared, make, tmp_path):
    """Other rope_theta, hidden copies of a tied head, shards, and names that mergekit would misread."""
    base = tiny.weights(tiny.CONFIG)
    one, other = tiny.tuned(base, 1), tiny.tuned(base, 2)
    tiny.write(tmp_path / "in+base@1", base)
    tiny.write(tmp_path / "one", one | {"lm_head.weight": one["model.embed_tokens.weight"].clone()},
               {**tiny.CONFIG, "rope_theta": 5e5})  # fmt: skip
    tiny.write(tmp_path / "other", other, {**tiny.CONFIG, "rope_theta": 7e5}, shards=3)
    inputs = opened(
        {"base": tmp_path / "in+base@1", "r@1": tmp_path / "one", "s+x": tmp_path / "other"}, "s+x"
    )
    bridged(make, tmp_path / "out+1@2", "linear", {}, inputs)
    merge(inputs, [Job(make("linear"), tmp_path / "plain")])
    config = json.loads((tmp_path / "out+1@2" / "config.json").read_text())
    assert config["rope_theta"] == tiny.CONFIG["rope_theta"]
    ours, plain = (load_file(tmp_path / f / "model.safetensors") for f in ("out+1@2", "plain"))
    assert set(ours) == set(plain) == set(base)
    assert all(torch.allclose(ours[n].float(), plain[n].float(), rtol=0.01, atol=1e-6) for n in ours)


def test_a_base_of_several_dtypes_is_said(shared, make, tmp_path):
    base = tiny.weights(tiny.CONFIG)
    base["model.norm.weight"] = base["model.norm.weight"].float()
    tiny.write(tmp_path / "base", base)
    tiny.write(tmp_path / "task", tiny.tuned(base, 1))
    record = bridged(make, tmp_path / "out", "ram", {},
                     opened({"base": tmp_path / "base", "task": tmp_path / "task"}, "task"))  # fmt: skip
    assert "stores all as BF16" in record["warnings"][0]


def test_nan_is_an_error_and_leaves_only_the_log(shared, make, tmp_path):
    base = tiny.weights(tiny.CONFIG)
    tiny.write(tmp_path / "base", base)
    spoilt = tiny.tuned(base, 1)
    spoilt["model.norm.weight"][3] = float("nan")
    tiny.write(tmp_path / "task", spoilt)
    inputs = opened({"base": tmp_path / "base", "task": tmp_path / "task"}, "task")
    with pytest.raises(HarnessError) as caught:
        bridged(make, tmp_path / "out", "ram", {"epsilon": 0.0}, inputs)
    assert "model.norm.weight" in caught.value.message
    assert not (tmp_path / "out").exists()
    assert {f.name for f in (tmp_path / ".out.part").iterdir()} == {"mergekit.log", ".lock"}
    save_file(tiny.tuned(base, 1), tmp_path / "task" / "model.safetensors", {"format": "pt"})
    inputs = opened({"base": tmp_path / "base", "task": tmp_path / "task"}, "task")
    bridged(make, tmp_path / "out", "ram", {"epsilon": 0.0}, inputs)
    assert not (tmp_path / ".out.part").exists()
