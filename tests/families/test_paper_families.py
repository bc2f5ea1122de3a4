"""The nine families against the paper's appendices, written down here from its text; each of them plans."""

import socket

import pytest
import yaml

from harness.errors import HarnessError
from harness.family import load_family, parse_family
from harness.paper import FAMILIES
from harness.planner import make_plan
from harness.store import Store

R1 = "deepseek-ai/DeepSeek-R1-Distill-"
# appendix D: base, reasoning expert, task expert (trained on, where it is trained)
MODELS = {
    "qwen7b-safety": ("Qwen/Qwen2.5-7B", R1 + "Qwen-7B", "Qwen/Qwen2.5-7B-Instruct"),
    "qwen14b-safety": ("Qwen/Qwen2.5-14B", R1 + "Qwen-14B", "Qwen/Qwen2.5-14B-Instruct"),
    "qwen32b-safety": ("Qwen/Qwen2.5-32B", R1 + "Qwen-32B", "Qwen/Qwen2.5-32B-Instruct"),
    "qwq32b-safety": ("Qwen/Qwen2.5-32B", "Qwen/QwQ-32B-Preview", "Qwen/Qwen2.5-32B-Instruct"),
    "llama8b-safety": ("meta-llama/Llama-3.1-8B", R1 + "Llama-8B", "meta-llama/Llama-3.1-8B-Instruct"),
    "qwen7b-biomedicine": ("Qwen/Qwen2.5-7B", R1 + "Qwen-7B", "OpenMeditron/Meditron3-Qwen2.5-7B"),
    "llama8b-biomedicine": ("meta-llama/Llama-3.1-8B", R1 + "Llama-8B", "Henrychur/MMed-Llama-3-8B"),
    "qwen7b-finance": ("Qwen/Qwen2.5-7B", R1 + "Qwen-7B", "WiroAI/WiroAI-Finance-Qwen-7B"),
    "llama8b-finance": ("meta-llama/Llama-3.1-8B", R1 + "Llama-8B", "WiroAI/WiroAI-Finance-Llama-8B"),
}
# appendix C.2: the first 100 rows of each
CALIBRATION = {
    "reasoning": "open-r1/OpenThoughts-114k-math",
    "safety": "Anthropic/hh-rlhf",
    "biomedicine": "qiaojin/PubMedQA",
    "finance": "AfterQuery/FinanceQA",
}
# appendix F; a dropout rate of 0.9 keeps 0.1
SETTINGS = {
    "linear": {},
    "task_arithmetic": {"scale": 0.3},
    "ties": {"scale": 0.3, "density": 0.1},
    "dare": {"scale": 0.3, "density": 0.1},
    "led": {"p": 0.1, "scale": 1.0},
    "reasonany": {"p": 0.05, "scale": 1.0},
}
GREEDY = {"max_gen_toks": 4096, "do_sample": False}
LONG = {"max_gen_toks": 32768, "do_sample": True, "temperature": 0.6, "top_p": 0.95}
BENCHMARKS = {
    "safety": {"safety_tuned", "harmbench", "safechain", "advbench"},
    "biomedicine": {"pubmedqa", "medqa"},
    "finance": {"convfinqa", "openfindata"},
}
PERFORMANCE = {
    "gsm8k", "math500", "aime24", "humaneval", "livecodebench", "arc_c", "arc_e", "mmlu", "gpqa_diamond",
}  # fmt: skip


def domain(name):
    return name.rpartition("-")[2]


def test_the_nine_are_there():
    assert set(MODELS) == set(FAMILIES)


@pytest.mark.parametrize("name", MODELS)
def test_models_are_those_of_appendix_d(name):
    family = load_family(name)
    task = family.experts["task"]
    named = (family.base, family.experts["reasoning"].model, task.model or task.train.base)
    assert named == MODELS[name]
    assert family.roles == ("reasoning", "task") and family.donor == "reasoning"
    assert family.label("task") == domain(name)
    assert (task.train is not None) == (domain(name) == "safety")


@pytest.mark.parametrize("name", MODELS)
def test_settings_are_those_of_appendix_f(name):
    family = load_family(name)
    rows = {row.label: row for row in family.rows()}
    for method, settings in SETTINGS.items():
        assert rows[method].method == method and rows[method].settings == settings
    official = rows["reasonany (official)"]
    assert official.settings == {"profile": "official", **SETTINGS["reasonany"]}
    for method in ("ties", "dare"):  # appendix F: the baselines were run with mergekit
        assert rows[f"{method} (mergekit)"].settings == {"profile": "mergekit", **SETTINGS[method]}
    assert family.generation_for("base") == family.generation_for("task") == GREEDY
    assert family.generation_for("reasoning") == family.generation_for("merge") == LONG


@pytest.mark.parametrize("name", MODELS)
def test_calibration_is_that_of_appendix_c(name):
    family = load_family(name)
    for role, wanted in (("reasoning", CALIBRATION["reasoning"]), ("task", CALIBRATION[domain(name)])):
        rows = family.calibration[role]
        assert rows.data.partition("@")[0] == wanted
        assert (rows.n, rows.seed, rows.max_tokens) == (100, 0, 512)  # the first, as they stand
        assert rows.completion or rows.completion_after  # LED's loss is on the answer
    alternatives = family.calibration_sets["reasoning"]
    assert alternatives["openr1-math"].data == "open-r1/OpenR1-Math-220k"
    assert alternatives["opencode"].data == "nvidia/OpenCodeReasoning"
    assert alternatives["openthoughts"] == family.calibration["reasoning"]


def test_official_finance_rows_are_read_by_the_released_scripts_columns():
    official = load_family("qwen7b-finance").calibration["task"].in_profile("official")
    assert official.text == "{QUERY}{eos}{ANSWER}" and official.n == 100


@pytest.mark.parametrize("name", MODELS)
def test_benchmarks_are_the_papers(name):
    from harness import tasks

    asked = {file.name for file in tasks.named(load_family(name).tasks)}
    assert asked >= PERFORMANCE | BENCHMARKS[domain(name)] | {"lm_eval:wikitext"}
    others = set().union(*(names for key, names in BENCHMARKS.items() if key != domain(name)))
    assert not asked & others


def test_no_revision_is_made_up():
    """What is pinned was read in a public source: PubMedQA's data, and the safety training set's commit."""
    from harness.family.pins import pins

    pinned = {
        text for name in MODELS for text in pins(load_family(name)).values() if "not pinned" not in text
    }
    assert pinned == {
        "qiaojin/PubMedQA @ 9001f2853fb87cab8d220904e0de81ac6973b318",
        "github.com/vinid/safety-tuned-llamas/data/training/saferpaca_Instructions_2000.json @ 36a4b8d5c217",
    }


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_each_plans_without_network_on_local_stand_ins(name, stand_ins, data, tmp_path, no_network):
    kind = "llama" if name.startswith("llama") else "qwen2"
    models = {role: str(stand_ins / kind / role) for role in ("base", "reasoning", "task")}
    task = {"safety": "hh-rlhf", "biomedicine": "pubmedqa", "finance": "financeqa"}[domain(name)]
    own = {
        "extends": name,
        "base": models["base"],
        "experts": {"reasoning": models["reasoning"], "task": {"model": models["task"]}},
        "calibration": {
            "reasoning": {"data": "calibration/openthoughts.jsonl"},
            "task": {"data": f"calibration/{task}.jsonl"},
        },
    }
    if domain(name) == "finance":
        own["calibration"]["task"]["official"] = {"data": "calibration/financeqa-official.jsonl"}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(own))
    family = parse_family(path)
    plan = make_plan(family, Store(tmp_path / "results", family.name))
    merges = [row for row in plan.rows if row.is_merge]
    assert len(merges) == len(load_family(name).rows()) == 10
    assert {step.task.name for step in plan.evals} >= PERFORMANCE | BENCHMARKS[domain(name)]
    assert len({row.folder.path for row in plan.rows}) == len(plan.rows)
    kinds = {(s.need.kind, s.need.role, s.need.model, s.need.profile) for s in plan.scores}
    assert len(kinds) == len(plan.scores) == 10  # LED: 4; ReasonAny: 2, and 4 for its released code
    base = [step.recipe.chat_template for step in plan.evals if step.row.role == "base"]
    assert any(base) == (kind == "qwen2")  # Llama's base has no chat template, and is asked in plain text
    assert any(step.recipe.chat_template for step in plan.evals if step.row.is_merge)


def test_an_expert_that_is_not_trained_yet_is_told(tmp_path, stand_ins):
    with pytest.raises(HarnessError) as caught:
        load_family("qwen7b-safety").model_path("task")
    assert "expert `task` of `qwen7b-safety` is not trained yet" in caught.value.message
