"""Weights swapped into a running vLLM answer as in a fresh engine, to the bit; none are used without proof.

`HARNESS_SWAPS` swaps per engine (default 2); with more than 2, all eight kinds of model are tried.
"""

import json
import os
import textwrap

import pytest

from harness.errors import HarnessError
from tests.evaluate.helpers_vllm import KINDS, answers, asked, copy_of, engine, model_of

pytest.importorskip("vllm")
pytestmark = [pytest.mark.vllm, pytest.mark.slow]

SWAPS = int(os.environ.get("HARNESS_SWAPS", "2"))
CASES = [(kind, tied, dtype) for kind in KINDS for tied in (True, False) for dtype in ("float32", "bfloat16")]
CASES = CASES if SWAPS > 2 else [CASES[0], CASES[3], CASES[5], CASES[6]]


@pytest.mark.parametrize(("kind", "tied", "dtype"), CASES)
def test_a_swapped_engine_answers_as_a_fresh_one(tmp_path, kind, tied, dtype):
    one = model_of(tmp_path / "one", kind, tied, seed=1)
    near = model_of(tmp_path / "near", kind, tied, seed=2, near=one)
    far = model_of(tmp_path / "far", kind, tied, seed=3)
    models = [one, near] if SWAPS <= 2 else [one, near, far]
    order = [models[turn % len(models)] for turn in range(SWAPS + 1)]
    requests, fresh = asked(), {}
    running = engine(tmp_path / "running.txt", dtype=dtype)
    try:
        for turn, model in enumerate(order):
            told = answers(running, model, requests)
            assert running.loaded["swapped"] == (turn > 0)
            if turn == 0:
                fresh[model], pid = told, running.pid
            if model not in fresh:
                other = engine(tmp_path / "fresh.txt", dtype=dtype)
                fresh[model] = answers(other, model, requests)
                other.close()
            assert told == fresh[model], f"swap {turn}, to {model.name}"
        assert running.pid == pid and running.warnings == []
    finally:
        running.close()
    texts = [[answer["text"] for answer in told["generate"]] for told in fresh.values()]
    assert all(a != b for i, a in enumerate(texts) for b in texts[:i]), (
        "models that say the same prove nothing"
    )
    drawn = next(iter(fresh.values()))["generate"][12:]
    assert drawn[0]["text"] != drawn[1]["text"], "each repeat draws anew"


STALE = """
import os
from harness.evaluate.engines import vllm as own

class Engine(own.Engine):
    def __init__(self, settings):
        super().__init__(settings)
        own.WORKER = "stand_in.forgetful.Swap"
"""
FORGETFUL = """
from harness.evaluate.engines import vllm_worker

class Swap(vllm_worker.Swap):
    def harness_swap(self, path):
        self.model_runner.reload_weights(weights_path=path)  # what vLLM offers, and no more
        return []

    def harness_differences(self, path):
        found = super().harness_differences(path)
        return [] if os.environ["PROOF"] == "canary" else found
"""


@pytest.mark.parametrize("proof", ["weights", "canary"])
def test_a_swap_that_goes_wrong_is_noticed_and_a_new_engine_answers(tmp_path, monkeypatch, proof):
    """vLLM's own reload leaves the packed copy of a tied head as it was: either half of the proof sees it."""
    package = tmp_path / "engines" / "stand_in"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "stale.py").write_text(STALE)
    (package / "forgetful.py").write_text("import os\n" + textwrap.dedent(FORGETFUL))
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    monkeypatch.setenv("PROOF", proof)
    one, other = (model_of(tmp_path / str(seed), "qwen2", True, seed) for seed in (1, 2))
    requests = asked(4)
    stale = engine(tmp_path / "stale.txt", "stand_in.stale")
    answers(stale, one, requests)
    first = stale.pid
    told = answers(stale, other, requests)
    assert stale.pid != first
    (warning,) = stale.warnings
    assert f"the swap to {other} is not proved" in warning
    assert ("lm_head.cpu_linear" if proof == "weights" else "the canary is off by") in warning
    assert not stale.loaded["swapped"]
    stale.close()
    fresh = engine(tmp_path / "fresh.txt")
    assert told == answers(fresh, other, requests)
    fresh.close()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {name: model_of(folder / name, "qwen2", True, seed) for seed, name in enumerate(("one", "two"))}


@pytest.fixture(scope="module")
def running(tmp_path_factory, models):
    made = engine(tmp_path_factory.mktemp("log") / "engine.txt")
    answers(made, models["one"], asked(2))
    yield made
    made.close()


def without(model, to, *names):
    from safetensors.torch import load_file, save_file

    copy_of(model, to)
    tensors = load_file(to / "model.safetensors")
    for name in names:
        del tensors[name]
    save_file(tensors, to / "model.safetensors", {"format": "pt"})
    return to


def test_a_checkpoint_with_missing_tensors_is_refused_and_the_engine_goes_on(running, models, tmp_path):
    before, pid = answers(running, models["one"], asked(2)), running.pid
    lacking = without(models["two"], tmp_path / "lacking", "model.layers.1.self_attn.k_proj.weight")
    with pytest.raises(HarnessError, match="1 missing tensors .*layers.1.self_attn.k_proj.weight"):
        answers(running, lacking, asked(2))
    (tmp_path / "empty").mkdir()
    with pytest.raises(HarnessError, match="it has no config.json"):
        answers(running, tmp_path / "empty", asked(2))
    assert answers(running, models["one"], asked(2)) == before and running.pid == pid


def test_a_model_of_another_config_gets_a_new_process_without_a_warning(running, models, tmp_path):
    answers(running, models["one"], asked(2))
    pid = running.pid
    other = copy_of(
        models["one"], tmp_path / "rope", rope_parameters={"rope_type": "default", "rope_theta": 5e5}
    )
    told = answers(running, other, asked(2))
    assert running.pid != pid and running.warnings == [] and not running.loaded["swapped"]
    assert told != answers(running, models["one"], asked(2))


def test_another_model_at_the_same_place_is_not_mistaken_for_the_old_one(running, models, tmp_path):
    place = copy_of(models["one"], tmp_path / "place")
    first = answers(running, place, asked(2))
    weights = (models["two"] / "model.safetensors").read_bytes()
    (place / "model.safetensors").write_bytes(weights)
    assert answers(running, place, asked(2)) == answers(running, models["two"], asked(2)) != first


def test_a_merge_of_ours_loads(running, tmp_path):
    import subprocess
    import sys
    from pathlib import Path

    tiny = Path(__file__).parents[2] / "harness" / "families" / "tiny"
    command = [
        "-m",
        "harness.cli",
        "merge",
        "ties",
        "--to",
        str(tmp_path / "merge"),
        "--results",
        str(tmp_path),
    ]
    subprocess.run([sys.executable, *command], check=True, capture_output=True, cwd=tmp_path)
    answers(running, tiny / "reasoning", asked(2))
    pid = running.pid
    told = answers(running, tmp_path / "merge", asked(2))
    assert running.pid == pid and running.loaded["swapped"], "it fits the engine of the family"
    assert json.loads((tmp_path / "merge" / "config.json").read_text())["vocab_size"] == 866
    assert told != answers(running, tiny / "reasoning", asked(2))
