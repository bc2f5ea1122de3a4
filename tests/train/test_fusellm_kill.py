"""A killed training never looks finished, and the same command ends in the same bytes."""

import json
import signal
import subprocess
import sys
import time

import pytest

from harness.checkpoint import fingerprint
from harness.errors import HarnessError
from tests.train.conftest import SMALL, fused
from tests.train.killing import killed, train_and_die_naming, train_until

STORED = ("model.safetensors", "config.json", "training.jsonl", "README.md", "tokenizer.json")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, inputs, rows):
    to = tmp_path_factory.mktemp("whole") / "out"
    fused(inputs, rows, to, SMALL)
    return content(to)


def content(folder):
    return {name: (folder / name).read_bytes() for name in STORED}


@pytest.mark.parametrize(
    ("phase", "done", "resumed"),
    [
        ("teacher reasoning", 4, 0),
        ("teacher task", "last", 0),
        ("train", 0, 0),
        ("train", 3, 3),
        ("train", "last", 5),
        ("write", 2, 5),
        ("write", "last", 5),
    ],
)
def test_resume_gives_the_same_bytes(fuse, inputs, rows, whole, tmp_path, phase, done, resumed):
    killed(train_until, inputs, rows, tmp_path / "out", phase, done)
    assert [p.name for p in tmp_path.iterdir()] == [".out.part"]
    assert not list((tmp_path / ".out.part").glob("model/merge.json"))
    seen = []
    record = fuse(tmp_path / "out", progress=lambda what, i, n: seen.append((what, i)))
    assert content(tmp_path / "out") == whole
    assert record["resumed"] == resumed and [p.name for p in tmp_path.iterdir()] == ["out"]
    if phase in ("train", "write"):  # the teachers' predictions were kept
        assert not any(what.startswith("teacher") for what, _ in seen)


def test_a_disk_too_small_to_go_on_costs_nothing_that_was_done(
    fuse, inputs, rows, whole, tmp_path, monkeypatch
):
    killed(train_until, inputs, rows, tmp_path / "out", "train", 0)
    with monkeypatch.context() as full:
        full.setattr("harness.checkpoint.write.SLACK", 1 << 60)
        with pytest.raises(HarnessError, match="GB free"):
            fuse(tmp_path / "out")
    seen = []
    fuse(tmp_path / "out", progress=lambda what, *_: seen.append(what))
    assert content(tmp_path / "out") == whole and not any(what.startswith("teacher") for what in seen)


def test_several_kills_in_a_row(fuse, inputs, rows, whole, tmp_path):
    for phase, done in [("teacher task", 8), ("train", 2), ("train", 3), ("train", 5), ("write", 1)]:
        killed(train_until, inputs, rows, tmp_path / "out", phase, done)
    assert fuse(tmp_path / "out")["resumed"] == 5
    assert content(tmp_path / "out") == whole


@pytest.mark.parametrize("after", [False, True])
def test_a_kill_around_the_last_rename(fuse, inputs, rows, whole, tmp_path, after):
    killed(train_and_die_naming, inputs, rows, tmp_path / "out", after)
    assert (tmp_path / "out").exists() == after
    fuse(tmp_path / "out")
    assert content(tmp_path / "out") == whole
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("change", ["seed", "top_k", "rows"])
def test_other_work_is_not_continued(fuse, inputs, rows, tmp_path, change):
    other = {"seed": 1, "top_k": 3, "rows": {role: found[::-1] for role, found in rows.items()}}[change]
    killed(train_until, inputs, rows, tmp_path / "out", "train", 4)
    assert fuse(tmp_path / "out", **{change: other})["resumed"] == 0


RUN = """
import sys
from harness.train import loop
from harness.cli import main
loop.SECONDS = loop.TIMES = float(sys.argv.pop(1))
main(sys.argv[1:])
"""


def command(to, seconds):
    words = ["merge", "fusellm", "--family", "tiny-safety", "--set", "steps=20", "--to", str(to)]
    return [sys.executable, "-c", RUN, str(seconds), *words]


@pytest.mark.slow
def test_kill_9_of_the_command(tmp_path):
    """At no chosen moment: when the parent happens to see five steps. How often a checkpoint is written makes
    no difference to the bytes."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run(command(tmp_path / "whole", 30), check=True, timeout=120, **quiet)
    curve = tmp_path / ".out.part" / "training" / "training.jsonl"
    running = subprocess.Popen(command(tmp_path / "out", 0), **quiet)
    deadline = time.monotonic() + 120
    while running.poll() is None and time.monotonic() < deadline:
        if curve.exists() and curve.read_bytes().count(b"\n") >= 5:
            break
        time.sleep(0.005)
    running.kill()
    assert running.wait() == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    subprocess.run(command(tmp_path / "out", 30), check=True, timeout=120, **quiet)
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    assert fingerprint(tmp_path / "out") == fingerprint(tmp_path / "whole")
    record = json.loads((tmp_path / "out" / "merge.json").read_text())["record"]
    assert record["resumed"] >= 4 and record["last"]["loss"] < record["first"]["loss"]
