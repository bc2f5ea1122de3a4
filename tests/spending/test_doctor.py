"""`harness doctor`: ok, missing or not needed, with what mends it; nothing secret, nothing slow."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.costs.machine import Gpu, Machine
from harness.verbs import doctor

ROOT = Path(__file__).resolve().parents[2]
FAR = """
title: on the hub
base: org/base
experts: {reasoning: org/gated, task: {train: {base: org/none, data: rows.jsonl}}}
tasks: [harmbench, humaneval, safechain]
"""


def found(family=None, results="results"):
    """(exit code, what -> finding)"""
    loaded = doctor.load_family(family) if family else None
    wanted = doctor.Wanted(loaded, doctor.asked.tasks(loaded, None)) if loaded else doctor.Wanted()
    listed = {one.what: one for one in doctor.findings(wanted, Path(results))}
    return int(any(one.state == "missing" for one in listed.values())), listed


def test_versions_are_those_that_the_tests_run_with():
    lines = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    )
    pinned = {name.lower().replace("_", "-"): version for name, version in lines.items()}
    for name, version in doctor.TESTED.items():
        assert pinned[name.lower().replace("_", "-")].split("+")[0] == version, name


def test_a_laptop_without_anything_is_fine(no_login, workdir):
    code, listed = found()
    assert code == 0, [one for one in listed.values() if one.state == "missing"]
    assert listed["Python"].state == "ok" and listed["torch"].state == "ok"
    assert listed["hub login"].state == "not needed"


def test_what_a_family_on_the_hub_lacks(online, workdir, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("HARNESS_DATA", str(workdir / "data"))
    monkeypatch.setattr(doctor, "machine", lambda: Machine(2, 8 << 30, 8 << 30, ()))
    (workdir / "far.yaml").write_text(FAR)
    online.models["org/base"] = {"files": {"config.json": b"{}"}}
    online.models["org/gated"] = {"files": {"config.json": b"{}"}, "gated": "auto"}
    code, listed = found("./far.yaml")
    assert code == 1
    assert listed["org/base"].state == "ok"
    assert listed["org/gated"].state == "missing" and "hf auth login" in listed["org/gated"].fix
    assert listed["org/none"].state == "missing" and "has no model" in listed["org/none"].detail
    assert listed["GPU"].state == "missing"
    keys = listed["judges' keys"]
    assert keys.state == "missing" and "OPENAI_API_KEY is not set" in keys.detail and "export" in keys.fix
    data = listed["HARNESS_DATA"]
    assert data.state == "missing" and data.fix == "harness data fetch harmbench humaneval safechain"
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    _, listed = found("./far.yaml")
    assert listed["judges' keys"].state == "ok"
    assert "sk-secret" not in str(listed)


def test_a_token_that_is_refused(online, monkeypatch, workdir):
    monkeypatch.setenv("HF_TOKEN", "hf_bad")
    _, listed = found()
    assert listed["hub login"].state == "missing" and "hf_bad" not in str(listed)
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    assert found()[1]["hub login"].detail == "as someone"


def test_a_gpu_that_torch_cannot_use(monkeypatch, no_login, workdir):
    gpu = Gpu("NVIDIA A100-SXM4-80GB", 80 << 30, 79 << 30)
    monkeypatch.setattr(doctor, "machine", lambda: Machine(8, 64 << 30, 60 << 30, (gpu,)))
    monkeypatch.setattr(doctor, "_version", lambda name: "2.13.0+cpu" if name == "torch" else "1.0.0")
    assert found()[1]["GPU"].state == "missing" and "CUDA" in found()[1]["GPU"].fix
    monkeypatch.setattr(doctor, "_version", lambda name: "2.13.0+cu130")
    assert found()[1]["GPU"].state == "ok"


def test_a_full_disk_and_no_sandbox(monkeypatch, no_login, workdir):
    from harness import sandbox

    monkeypatch.setattr(doctor, "disk", lambda folder: (1, 1 << 20))
    monkeypatch.setattr(sandbox, "available", lambda: False)
    _, listed = found()
    assert listed["disk, results"].state == "missing"
    assert listed["bubblewrap"].state == "not needed"  # no task here runs code


def test_gpus_are_those_that_are_visible(monkeypatch, tmp_path):
    from harness.costs import machine

    tool = tmp_path / "nvidia-smi"
    rows = "0, GPU-aaaa, NVIDIA H100 80GB HBM3, 81559, 81000\\n1, GPU-bbbb, NVIDIA A100, 40960, 100"
    tool.write_text(f"#!/bin/sh\nprintf '{rows}\\n'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [gpu.total >> 20 for gpu in machine.gpus()] == [81559, 40960]
    for given, names in (("1", ["NVIDIA A100"]), ("GPU-aaaa", ["NVIDIA H100 80GB HBM3"]), ("", [])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
        assert [gpu.name for gpu in machine.gpus()] == names


@pytest.mark.parametrize("heavy", ["torch", "transformers", "lm_eval", "datasets", "openai", "mergekit"])
def test_it_imports_nothing_heavy(heavy, tmp_path):
    code = (
        "import sys; from pathlib import Path; from harness.verbs.doctor import doctor;"
        f"doctor('tiny-safety', Path('results'), True); sys.exit({heavy!r} in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    states = {one["state"] for one in json.loads(done.stdout)}
    assert states <= {"ok", "missing", "not needed"}
