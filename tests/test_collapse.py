"""When a merge counts as broken, and that the probe says so right after the merge."""

import json
import subprocess
import sys

import pytest

from harness.collapse import reasons
from harness.evaluate.task_file import load_task
from harness.family import Collapse
from harness.registry import BUILT_IN

TASKS = {
    name: load_task(BUILT_IN / "tasks" / f"{name}.yaml")
    for name in ("tiny_prose", "tiny_chain", "tiny_facts")
}


def prose(value):
    return {"metrics": {"word_perplexity": {"value": value}}, "rates": {}}


def chat(**rates):
    told = {"unparsed": 0.0, "unfinished": 0.0, "empty": 0.0, "truncated": 0.0, "repetition": 0.0} | rates
    return {"metrics": {"accuracy": {"value": 0.0}}, "rates": told}


@pytest.mark.parametrize(
    "found, base, why",
    [
        ({"tiny_prose": prose(3.0)}, {"tiny_prose": prose(1.0)}, []),
        ({"tiny_prose": prose(3.01)}, {"tiny_prose": prose(1.0)}, ["ppl 3.01 > 3 × base's 1"]),
        ({"tiny_prose": prose(float("nan"))}, {"tiny_prose": prose(1.0)}, ["ppl nan > 3 × base's 1"]),
        ({"tiny_prose": prose(float("inf"))}, {"tiny_prose": prose(1.0)}, ["ppl inf > 3 × base's 1"]),
        ({"tiny_prose": prose(1e9)}, {}, []),  # nothing to compare with
        ({"tiny_chain": chat(unfinished=0.5)}, {}, []),
        ({"tiny_chain": chat(unfinished=0.51)}, {}, ["unfinished 51% > 50% of responses"]),
        ({"tiny_chain": chat(empty=0.9), "tiny_facts": chat()}, {}, []),
        (
            {"tiny_chain": chat(empty=0.9), "tiny_facts": chat(empty=0.2)},
            {},
            ["empty 55% > 50% of responses"],
        ),
        ({"tiny_chain": chat(repetition=1.0)}, {}, ["repetition 100% > 50% of responses"]),
        ({"tiny_chain": {"metrics": {}, "rates": {"unfinished": None}}}, {}, []),
    ],
)
def test_the_rule(found, base, why):
    assert reasons(Collapse(), TASKS, found, base) == why


BROKEN = '''
"""Noise."""

from harness import merge_method, param


@merge_method("broken", title="Broken")
class Broken:
    scale: float = param(1.0, "how much noise", low=0, noop=0.0)

    def merge(self, group, state):
        return group.base + self.scale * (group.uniform("task") - 0.5)
'''


@pytest.mark.slow
def test_a_broken_merge_is_marked_by_its_probe_and_can_be_left_out(workdir):
    (workdir / "broken.py").write_text(BROKEN)
    tiny = (BUILT_IN / "harness" / "families" / "tiny-safety.yaml").read_text()
    tiny = tiny.replace("base: tiny/", f"base: {BUILT_IN}/harness/families/tiny/")
    for role in ("reasoning", "safety"):
        tiny = tiny.replace(f" tiny/{role}", f" {BUILT_IN}/harness/families/tiny/{role}")
    head, rows = tiny.split("methods:\n", 1)
    skip = head.replace("n: 16}", "n: 8, skip: true}")
    (workdir / "fam.yaml").write_text(skip + "methods: {linear: {}, broken: {method: ./broken.py}}\n")
    command = ["compare", "--family", "./fam.yaml", "--tasks", "tiny_refusal,tiny_facts", "--limit", "8"]
    done = subprocess.run([sys.executable, "-m", "harness.cli", *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "broken has collapsed: " in done.stderr.lower() and "ppl" in done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("| Broken")]
    assert lines and "*" not in lines[0] and "–" in lines[0], "left out: – for not run"
    assert "Broken: probe: ppl" in done.stdout.replace("\\*", "*")
    evals = list((workdir / "results" / "fam" / "models").glob("broken--*/evals/*/done.json"))
    assert {path.parent.name.split("--")[0] for path in evals} == {"tiny_chain", "tiny_refusal", "tiny_prose"}
    assert all(json.loads((p.parent / "done.json").read_text())["metrics"] for p in evals)
