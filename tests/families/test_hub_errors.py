"""The hub, played by a server on this machine: what it refuses is told, what is missing is listed at once."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hub_of_models import COMMIT, Hub

import harness.families.tiny as tiny

ROOT = Path(__file__).parents[2]
HOME = Path(tiny.__file__).parent
NOWHERE = "http://127.0.0.1:9"  # the port of `discard`, where nothing listens


@pytest.fixture(scope="module")
def served():
    hub = Hub({file.name: file.read_bytes() for file in (HOME / "base").iterdir()})
    yield hub
    hub.shutdown()


@pytest.fixture
def harness(tmp_path):
    """harness(args, endpoint) runs the command line in a process of its own, with an empty cache."""

    def run(*args, endpoint=NOWHERE, **more):
        own = {"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "PYTHONPATH": str(ROOT)}
        own |= {"HF_HOME": str(tmp_path / "hf"), "HARNESS_DATA": str(tmp_path / "data")}
        environment = {k: v for k, v in os.environ.items() if k not in ("HF_TOKEN", "OPENAI_API_KEY")}
        command = [sys.executable, "-m", "harness.cli", *args]
        began = time.monotonic()
        done = subprocess.run(
            command, cwd=tmp_path, env=environment | own | more, capture_output=True, text=True, timeout=120
        )
        done.seconds = time.monotonic() - began
        return done

    return run


def family(tmp_path, base, **given):
    lines = [f"title: t\nbase: {base}\nexperts: {{task: {HOME / 'safety'}}}\ntasks: [tiny_chain]"]
    lines += [f"{key}: {value}" for key, value in given.items()]
    (tmp_path / "mine.yaml").write_text("\n".join(lines) + "\n")
    return "./mine.yaml"


@pytest.mark.parametrize(
    ("base", "why", "hint"),
    [
        ("org/gated", "`org/gated` is gated, and this login has no access", "accept its terms at"),
        ("org/open@v9", "`org/open` has no revision `v9`", "/org/open/commits/main"),
        ("org/none", "the hub has no model `org/none`", "hf auth login"),
        ("org/broken", "cannot be reached", ""),
    ],
)
def test_what_the_hub_refuses_is_told_before_any_download(harness, served, tmp_path, base, why, hint):
    served.asked.clear()
    done = harness("compare", "--family", family(tmp_path, base), "-m", "linear", endpoint=served.url)
    assert done.returncode == 2, done.stderr
    assert why in done.stderr and hint in done.stderr and "Traceback" not in done.stderr
    assert not [path for _, path in served.asked if "resolve" in path]
    assert not (tmp_path / "results").exists()


def test_a_model_is_fetched_at_its_revision_and_kept_for_later(harness, served, tmp_path):
    mine = family(tmp_path, "org/open@v1", methods="{linear: }")
    done = harness("status", "--family", mine, endpoint=served.url)
    assert done.returncode == 0, done.stderr
    assert "/api/models/org/open/revision/v1" in {path.partition("?")[0] for _, path in served.asked}
    assert (
        tmp_path / "hf" / "hub" / "models--org--open" / "snapshots" / COMMIT / "model.safetensors"
    ).exists()
    for more in ({"endpoint": NOWHERE}, {"endpoint": NOWHERE, "HF_HUB_OFFLINE": "1"}):
        again = harness("status", "--family", mine, **more)  # without network, from the cache
        assert again.returncode == 0, again.stderr
        assert "Linear" in again.stdout


def test_what_else_is_missing_is_told_before_a_model_is_fetched(harness, served, tmp_path):
    served.asked.clear()
    mine = family(tmp_path, "org/open@v1", methods="{linear: }")
    done = harness("compare", "--family", mine, "-t", "gsm8k", endpoint=served.url)
    assert done.returncode == 2 and "gsm8k" in done.stderr and "Traceback" not in done.stderr
    assert not [path for _, path in served.asked if "resolve" in path]


def test_a_model_that_is_given_alone_is_told_in_two_lines(harness, served):
    done = harness("eval", "org/gated", "-t", "tiny_chain", endpoint=served.url)
    assert done.returncode == 2
    message, hint = done.stderr.strip().splitlines()
    assert message.startswith("error: cannot fetch `org/gated` from the hub") and hint.startswith("hint: ")


def test_the_papers_family_without_network_ends_in_seconds_with_a_list(harness, tmp_path):
    done = harness("compare", "--family", "qwen7b-safety")
    assert done.returncode == 2, done.stderr
    assert done.seconds < 30  # 3 on an idle machine
    first, *listed, hint = done.stderr.strip().splitlines()
    assert first.startswith("error: ") and first.endswith(" things are missing") and hint.startswith("hint: ")
    told = "\n".join(listed)
    for name in (
        "`Qwen/Qwen2.5-7B` (base)",
        "`deepseek-ai/DeepSeek-R1-Distill-Qwen-7B` (reasoning)",
        "`Qwen/Qwen2.5-7B-Instruct` (task is trained on it)",
        "`open-r1/OpenThoughts-114k-math` (reasoning)",
        "`Anthropic/hh-rlhf` (task)",
        "saferpaca_Instructions_2000.json",
        "`gsm8k`",
        "`lm_eval:wikitext`",
        "`cais/HarmBench-Llama-2-13b-cls@",
        "`o4-mini`",
    ):
        assert name.removesuffix("@") in told, name
    for how in ("`hf download Qwen/Qwen2.5-7B`", "`harness data fetch gsm8k", "`extends: qwen7b-safety`"):
        assert how in hint
    assert "Traceback" not in done.stderr and not done.stdout
    assert not (tmp_path / "results").exists()


def test_local_things_that_are_missing_are_listed_together(harness, tmp_path):
    given = {
        "rows": "{old: ./gone}",
        "calibration": '{task: {data: rows.jsonl, text: "{a}", completion: "{a}"}}',
    }
    done = harness("compare", "--family", family(tmp_path, "./nowhere", **given), "-m", "led")
    assert done.returncode == 2
    assert "error: 3 things are missing" in done.stderr
    for part in (
        "`./nowhere` (base): no checkpoint at",
        "`./gone` (row old)",
        "`rows.jsonl` (task): no file at",
    ):
        assert part in done.stderr
