"""The benchmark scripts run, at a size that says nothing."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(script, *options):
    command = [sys.executable, str(ROOT / "benchmarks" / script), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_merge_speed_prints_every_ratio(tmp_path):
    only = ["--only", "linear", "ties", "nine", "masks", "sweep"]
    done = run("merge_speed.py", "--size", "0.001", "--no-mergekit", "--folder", str(tmp_path), *only)
    assert done.returncode == 0, done.stderr
    for line in ("command x", "merge alone x", "nine outputs", "masks.json of dare", "2 passes"):
        assert line in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_gpu_cost_runs_on_a_cpu(tmp_path):
    small = ["--size", "0.001", "--device", "cpu", "--samples", "2", "--tokens", "8"]
    done = run("gpu_cost.py", *small, "--folder", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert re.search(r"reasonany, all +\d+\.\d s", done.stdout) and "paper 33 s" in done.stdout
    assert not list(tmp_path.iterdir())
