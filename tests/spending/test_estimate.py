"""Estimates: shapes against headers, memory against arithmetic, a plan against what its run then took."""

import json
from pathlib import Path

import pytest
import yaml

import harness
from harness.costs import bill as bills
from harness.costs import demand, sizes
from harness.costs.bill import Bill, Item, Room, bill
from harness.costs.draft import drafted
from harness.costs.machine import Gpu, Machine
from harness.errors import HarnessError
from harness.family import load_family
from harness.store import Store
from harness.verbs import estimate
from tests.helpers_checkpoints import CONFIG, weights, write

TINY = Path(harness.__file__).parent / "families" / "tiny"
GB = 10**9
A100 = Machine(16, 500 * GB, 400 * GB, (Gpu("NVIDIA A100-SXM4-80GB", 80 * GB, 79 * GB),))
LAPTOP = Machine(2, 16 * GB, 12 * GB, ())
SEVEN = {"model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
         "vocab_size": 152064, "num_attention_heads": 28, "num_key_value_heads": 4, "torch_dtype": "bfloat16",
         "tie_word_embeddings": False, "max_position_embeddings": 131072}  # fmt: skip
THIRTY_TWO = {**SEVEN, "hidden_size": 5120, "intermediate_size": 27648, "num_hidden_layers": 64,
              "num_attention_heads": 40, "num_key_value_heads": 8}  # fmt: skip

ROWS = {"kinds": 1, "votes": False, "rows": 100, "tokens": 512}


def plan_of(name="tiny-safety", results="results", **chosen):
    family = load_family(name)
    with drafted(family, Store(Path(results), family.name), **chosen) as draft:
        return draft, bill(draft, here=LAPTOP)


@pytest.mark.parametrize("tied", [True, False])
def test_shapes_from_a_config_are_those_of_the_headers(tmp_path, tied):
    config = {**CONFIG, "tie_word_embeddings": tied}
    size, implied = sizes.of_folder(write(tmp_path / "m", weights(config), config)), sizes.of_config(config)
    assert size.shapes == implied.shapes and size.nbytes == implied.nbytes
    assert (size.layer, size.embedding, size.cached) == (implied.layer, implied.embedding, implied.cached)


def test_published_counts_of_parameters():
    """Qwen2.5-7B and 32B by their model cards: 7.61 and 32.5 billion parameters."""
    assert sizes.of_config(SEVEN).parameters / GB == pytest.approx(7.61, abs=0.01)
    assert sizes.of_config(THIRTY_TWO).parameters / GB == pytest.approx(32.8, abs=0.3)
    assert sizes.of_config({"model_type": "mamba"}) is None


def test_scores_hold_weights_sums_and_a_layers_gradients():
    size = sizes.of_config(SEVEN)
    given = {
        "kinds": 1,
        "votes": False,
        "rows": 100,
        "tokens": 512,
        "dtype": "bfloat16",
        "accumulate": "bfloat16",
    }
    need = demand.scores(size, A100, **given)
    least = 2 * size.parameters * 2 + size.layer * 2
    assert least < need.gpu < 1.25 * least and not need.note
    on_cpu = demand.scores(size, LAPTOP, **{**given, "dtype": "float32", "accumulate": "float32"})
    assert on_cpu.gpu == 0 and on_cpu.host > 8 * size.parameters


def test_thirty_two_billion_keep_their_sums_in_host_memory():
    size = sizes.of_config(THIRTY_TWO)
    given = {
        "kinds": 1,
        "votes": False,
        "rows": 100,
        "tokens": 512,
        "dtype": "bfloat16",
        "accumulate": "float32",
    }
    need = demand.scores(size, A100, **given)
    assert "host memory" in need.note
    assert need.host > 4 * size.parameters and 2 * size.parameters < need.gpu < 80 * GB


def test_merging_never_holds_a_model():
    size = sizes.of_config(THIRTY_TWO)
    assert demand.merging(size, A100, models=3, statistics=4, methods=12).host < 2 * GB


def test_a_long_response_takes_keys_and_values():
    size, given = sizes.of_config(SEVEN), {"items": 100, "generates": True}
    short = demand.evaluation(size, A100, longest=128, **given)
    long = demand.evaluation(size, A100, longest=32768, **given)
    assert long.gpu - short.gpu == 8 * (32768 - 128) * size.cached * 2
    assert long.seconds > 50 * short.seconds


def a_bill(machine=LAPTOP, need=None, needed=1, free=100 * GB):
    items = [Item("scores", "gradient task", 1, need)] if need else []
    return Bill(machine, items, [], [Room(Path("results"), needed, free, {"merge": needed})], 1, {})


def test_a_disk_that_is_too_small_is_refused():
    (error,) = estimate._refusals(a_bill(needed=99_500_000_000, free=100 * GB))
    assert "needs 99.5 GB (merge 99.5 GB) and its disk has 100.0 GB free" in error.message
    assert "--results" in error.hint and not estimate._refusals(a_bill(needed=90 * GB))


def test_memory_that_is_too_small_is_refused():
    (error,) = estimate._refusals(a_bill(need=demand.Need(17 * GB)))
    assert "scores `gradient task` needs 17.0 GB of memory; this machine has 16.0 GB" in error.message
    (error,) = estimate._refusals(a_bill(A100, demand.Need(1, 90 * GB)))
    assert "90.0 GB on a GPU and the largest here has 80.0 GB" in error.message
    assert not estimate._refusals(a_bill(A100, demand.Need(1, 70 * GB)))


def test_a_plan_is_refused_before_it_starts(workdir, monkeypatch):
    from harness.planner import make_plan

    family = load_family("tiny-safety")
    plan = make_plan(family, Store(workdir / "results", family.name), limit=4)
    estimate.refuse_plan(plan)
    monkeypatch.setattr(bills, "disk", lambda folder: (1, 10_000_000))
    with pytest.raises(HarnessError, match="its disk has 10 MB free"):
        estimate.refuse_plan(plan)


FAR = """
title: on the hub
base: org/base
experts: {reasoning: org/reasoning, task: {train: {base: org/instruct, data: rows.jsonl, n: 2500}}}
calibration: {reasoning: {data: org/rows, text: "{text}"}, task: {data: org/rows, text: "{text}"}}
tasks: [gsm8k, harmbench]
generation: {reasoning: {max_gen_toks: 32768}, merge: {max_gen_toks: 32768}}
methods: {linear: {}, reasonany: {}, fusellm: {}}
"""


def test_a_family_on_the_hub_is_counted_without_a_download(workdir, online, monkeypatch, capsys):
    (workdir / "far.yaml").write_text(FAR)
    monkeypatch.setenv("HARNESS_DATA", str(workdir / "data"))
    for name in ("base", "reasoning", "instruct"):
        files = {"config.json": json.dumps(SEVEN).encode(), "model.safetensors": b"w" * 1000}
        online.models[f"org/{name}"] = {"files": files, "dtypes": {"BF16": 7_615_616_512}}
    online.data["org/rows"] = {"files": {"train.parquet": b"r" * 5000}}
    online.data["openai/gsm8k"] = {"files": {"main/test-00000-of-00001.parquet": b"t" * 700},
                                   "revisions": ["740312add88f781978c0658806c59bc2815b9866"]}  # fmt: skip
    draft, found = plan_of("./far.yaml")
    kinds = {item.kind for item in found.items}
    assert {"train", "scores", "merge", "eval", "judge"} <= kinds
    assert all(item.need for item in found.items if item.kind in ("train", "scores", "merge", "eval"))
    fetched = {one.ref: one.nbytes for one in found.downloads}
    assert fetched["org/base"] == 1000  # its config has just been read
    assert fetched["org/rows"] == 5000 and fetched["openai/gsm8k @ 740312add88f"] == 700
    assert draft.missing["task"] == "it is trained first" and "base" in draft.missing
    assert not any("safetensors" in line for line in online.asked)
    assert any("cais/HarmBench" in line and "names say" in line for line in found.unknown)


def test_a_comparison_is_refused_before_anything_is_fetched(workdir, online, monkeypatch):
    (workdir / "far.yaml").write_text(FAR)
    files = {"config.json": json.dumps(SEVEN).encode(), "model.safetensors": b"w"}
    online.models["org/base"] = {"files": files, "dtypes": {"BF16": 7_615_616_512}}
    family, store = load_family("./far.yaml"), Store(workdir / "results", "far")
    with pytest.raises(HarnessError, match="(?s)missing.*org/reasoning"):  # first of all what cannot be had
        estimate.refuse(family, store)
    online.models |= {"org/reasoning": online.models["org/base"], "org/instruct": online.models["org/base"]}
    online.data["org/rows"] = {"files": {"train.parquet": b"r"}}
    (workdir / "rows.jsonl").write_text("")
    monkeypatch.setattr(bills, "disk", lambda folder: (1, 50 * GB))
    with pytest.raises(HarnessError, match="its disk has 50.0 GB free"):
        estimate.refuse(family, store, tasks=["tiny_chain"])
    assert not any("safetensors" in line for line in online.asked)


def test_where_nothing_is_known_that_is_said(workdir, unreachable, capsys):
    (workdir / "far.yaml").write_text(FAR)
    assert estimate.print_plan("./far.yaml", None, ["gsm8k"], None, Path("results")) == 0
    out = capsys.readouterr().out
    assert "unknown: the size of the models" in out and "not final: base: not here yet" in out
    assert "cannot be reached" in out and "memory: at least" in out and "time: more than" in out


def test_a_name_says_how_large_a_model_is():
    assert sizes.of_name("Qwen/Qwen2.5-7B").parameters == 7 * GB
    assert sizes.of_name("Qwen/Qwen2.5-1.5B-Instruct@main").nbytes == 3 * GB
    assert sizes.of_name("cais/HarmBench-Llama-2-13b-cls").parameters == 13 * GB
    assert sizes.of_name("org/base") is None and sizes.of_name("org/model-7base") is None


def test_the_plan_as_data(workdir, capsys):
    assert (
        estimate.print_plan("tiny-safety", ["linear"], ["tiny_chain"], 4, Path("results"), as_json=True) == 0
    )
    told = json.loads(capsys.readouterr().out)
    assert told["refused"] == [] and told["missing"] == {} and told["downloads"] == []
    assert {step["kind"] for step in told["steps"]} == {"merge", "eval"}
    assert told["assumptions"] and told["host_bytes"] > 0


def resident(results, pattern, *path):
    """The largest of a figure in `done.json`, MiB."""
    found = []
    for file in results.glob(pattern):
        value = json.loads(file.read_text())
        for key in path:
            value = value.get(key, {})
        found.append(value)
    return max(found)


@pytest.mark.slow
def test_the_estimate_is_within_twice_what_a_run_took(workdir):
    from harness import verbs

    family = {
        "extends": "tiny-safety",
        "methods": {name: False for name in load_family("tiny-safety").methods},
    }
    family["methods"] |= {"mine": {"method": "ties", "density": 0.4}, "ours": {"method": "reasonany"}}
    (workdir / "own.yaml").write_text(yaml.safe_dump(family))
    _, before = plan_of("./own.yaml", limit=8, tasks=["tiny_chain", "tiny_facts"])
    assert verbs.compare("./own.yaml", None, ["tiny_chain", "tiny_facts"], 8, workdir / "results") == 0
    store = workdir / "results" / "own"
    took = sum(file.stat().st_size for file in store.rglob("*") if file.is_file())
    planned = {kind: max(i.need.host for i in before.items if i.kind == kind) / 2**20
               for kind in ("scores", "merge", "eval")}  # fmt: skip
    measured = {
        "scores": resident(store, "scores/*/done.json", "peak_mib", "scores"),
        "merge": resident(store, "models/*/model/../done.json", "peak_mib", "merge"),
        "eval": resident(store, "models/*/evals/*/done.json", "peak_mib", "engine"),
    }
    print(f"disk: planned {before.rooms[0].needed}, took {took}; memory: planned {planned}, took {measured}")
    assert 0.5 < before.rooms[0].needed / took < 2
    for kind, value in measured.items():
        assert 0.5 < planned[kind] / value < 2, kind
    _, after = plan_of("./own.yaml", limit=8, tasks=["tiny_chain", "tiny_facts"])
    assert not after.items and after.done["merge"] == 2
