"""`mergekit:<name>`: what is said before anything is read, and how the process that runs mergekit ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness import registry
from harness.bridge import definitions
from harness.checkpoint import Checkpoint
from harness.cli import main
from harness.errors import HarnessError
from harness.family import parse_family
from harness.merge import Inputs, Job, merge
from harness.method import parameters
from harness.planner import make_plan
from harness.store import Store

TINY = registry.PACKAGE / "families" / "tiny"
THREE = ("a", "b", "c")


def run(*args):
    return CliRunner().invoke(main, [str(a) for a in args])


@pytest.mark.parametrize(
    ("name", "given", "told", "hint"),
    [
        ("ties", {}, "needs `density`", "density=0.5"),
        ("slerp", {}, "needs `t`", "t=0.5"),
        ("ties", {"densty": 0.5}, "no parameter `densty`", "`density`"),
        ("ties", {"lambda": 0.5, "density": 0.5}, "no parameter `lambda`", "`scale`"),
        ("task_arithmetic", {"density": 0.5}, "no parameter `density`", "known"),
        ("slerp", {"t": "half"}, "'half'", "a number"),
        ("slerp", {"t": True}, "True", "a number"),
        ("ties", {"density": 1.5}, "1.5, out of range", "<= 1"),
        ("ties", {"density": [0.5, 2]}, "2, out of range", "<= 1"),
        ("ties", {"density": {"task": 2}}, "`density.task` of method `mergekit:ties` is 2", "<= 1"),
        ("ties", {"density": {"task": "x"}}, "`density.task` of method `mergekit:ties` is 'x'", "a number"),
        ("ties", {"density": [{"value": 1, "filtr": "mlp"}]}, "filtr", "filter"),
        ("ties", {"density": [{"value": -1}]}, "`density[0].value`", "0 <="),
        ("ties", {"density": 0.5, "normalize": "yes"}, "'yes'", "true or false"),
        ("karcher", {"max_iter": 2.5}, "2.5", "a whole number"),
        ("slrp", {"t": 1}, "no method `slrp`", "`slerp`"),
    ],
)
def test_wrong_settings_are_told(make, name, given, told, hint):
    with pytest.raises(HarnessError) as caught:
        make(f"mergekit:{name}", **given)
    assert told in caught.value.message and hint in caught.value.hint


@pytest.mark.parametrize(
    ("name", "given", "roles", "told"),
    [
        ("slerp", {"t": 0.5}, THREE, "takes 2 models, and was given 3: a, b, c"),
        ("arcee_fusion", {"models": ["a"]}, THREE, "takes 2 models, and was given 1: a"),
        ("nuslerp", {}, ("a",), "takes 2 models besides the base, and was given 1: a"),
        ("nuslerp", {"use_base": False}, THREE, "takes 2 models, and was given 3"),
        ("model_stock", {}, ("a",), "takes 2 or more models besides the base, and was given 1: a"),
        ("passthrough", {}, ("a", "b"), "takes 1 model, and was given 2"),
        ("ram", {"models": ["d"]}, THREE, "names `d`"),
        ("ram", {"models": ["base"]}, THREE, "names the base"),
        ("ram", {"models": ["a", "a"]}, THREE, "['a', 'a']"),
        ("linear", {"weight": {"d": 1.0}}, THREE, "`d`"),
        ("linear", {"weight": {"a": 1.0, "b": -1.0, "c": 0}}, THREE, "add up to 0"),
        ("multislerp", {"weight": 0}, THREE, "add up to 0"),
        ("ties", {"density": {"a": 0.5, "b": 0.5}}, THREE, "says nothing of `c`"),
        ("della", {"density": 0.1}, THREE, "with probability 0.1 ± 0.15"),
    ],
)
def test_what_does_not_suit_the_roles_is_told(make, name, given, roles, told):
    with pytest.raises(HarnessError) as caught:
        make(f"mergekit:{name}", **given).needs(roles)
    assert told in caught.value.message and caught.value.hint


@pytest.mark.parametrize(
    ("name", "given", "roles"),
    [
        ("slerp", {"t": 0.5}, ("a",)),
        ("slerp", {"t": 0.5, "models": ["c", "base"]}, THREE),
        ("model_stock", {}, THREE),
        ("karcher", {}, ("a",)),
        ("linear", {"models": ["base", "b"]}, THREE),
        ("della", {"density": {"a": 0.5, "b": 1.0, "c": [0.3, 0.6]}}, THREE),
        ("ties", {"density": 0.5, "models": ["c"]}, THREE),
    ],
)
def test_what_suits_is_taken(make, name, given, roles):
    assert make(f"mergekit:{name}", **given).needs(roles) == ()


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("ties", {"density": 0.5}, []),
        ("ties", {"density": 0.5, "weight": 0.3}, ["weight 0.3 on every expert changes nothing"]),
        ("ties", {"density": 0.5, "weight": 0.3, "normalize": False}, []),
        ("ties", {"density": 0.5, "weight": {"a": 0.3}}, []),
        ("nuslerp", {"weight": 2}, ["weight 2 on every expert changes nothing"]),
        ("linear", {"weight": 2.0}, ["weight 2 on every expert changes nothing"]),
        ("dare_ties", {"density": 1}, ["density 1: nothing is dropped"]),
        ("dare_ties", {"density": {"a": 1, "b": 0.5}}, []),
        ("ties", {"density": 0}, ["density 0: the result is the base"]),
        ("task_arithmetic", {"scale": 0}, ["scale 0: the result is the base"]),
        ("task_arithmetic", {"weight": 0}, ["weight 0 on every expert: the result is the base"]),
        ("sce", {"select_topk": 0}, ["select_topk 0: the result is the base"]),
        ("slerp", {"t": 0}, ["t 0: the result is `a`"]),
        ("slerp", {"t": 1.0}, ["t 1: the result is `b`"]),
        ("slerp", {"t": [0, 1]}, []),
        ("passthrough", {"models": ["a"], "scale": 0}, []),
    ],
)
def test_settings_that_change_nothing_are_said(make, name, given, said):
    found = make(f"mergekit:{name}", **given).degenerate(("a", "b"))
    assert len(found) == len(said) and all(f.startswith(s) for f, s in zip(found, said, strict=True)), found


def test_wrong_input_reads_and_writes_nothing(workdir, monkeypatch):
    monkeypatch.setattr("harness.checkpoint.read.read_header", lambda *_: pytest.fail("the inputs were read"))
    for args in (["ties"], ["ties", "--set", "density=2"], ["passthrough"], ["nearswap", "--set", "tt=1"]):
        result = run("merge", f"mergekit:{args[0]}", *args[1:], "--to", "out")
        assert result.exit_code == 2 and len(result.stderr.strip().splitlines()) == 2, result.output
    assert not list(workdir.iterdir())


def test_variants_are_methods_like_others(workdir):
    listed = run("list", "methods").stdout
    assert all(f"mergekit:{name} " in listed for name in definitions.names())
    shown = run("show", "method", "mergekit:ties").stdout
    assert "TIES (mergekit)" in shown and "density" in shown and "0 … 1" in shown
    assert set(parameters(registry.method("mergekit:della"))) == {
        "models", "weight", "density", "epsilon", "scale", "normalize", "rescale", "int8_mask"}  # fmt: skip
    assert registry.method("mergekit:ties") is registry.method("mergekit:ties")
    for name, told in (
        ("mergekit", "many methods"),
        ("ties:x", "no variants"),
        ("mergkit:ties", "`mergkit`"),
    ):
        with pytest.raises(HarnessError, match=told):
            registry.method(name)


def test_rows_of_a_family(workdir):
    text = f"title: t\nbase: {TINY}/base\nexperts: {{reasoning: {TINY}/reasoning, task: {TINY}/safety}}\n"
    text += 'methods:\n  "mergekit:della": {density: 0.5, epsilon: 0.1}\n'
    text += '  soft: {method: "mergekit:sce", select_topk: 1.0}\n'
    (workdir / "f.yaml").write_text(text)
    family = parse_family(workdir / "f.yaml")
    store = Store(workdir / "results", "f")
    rows = make_plan(family, store, tasks=[], references=False).rows
    assert [row.label for row in rows] == ["DELLA (mergekit)", "soft"]
    assert rows[0].recipe.method == "mergekit:della" and rows[0].recipe.plugin is None
    assert rows[0].folder.path.name.startswith("mergekit-della--density=0.5,epsilon=0.1--")
    (row,) = make_plan(family, store, methods=["mergekit:karcher"], tasks=[], references=False).rows
    assert row.label == "Karcher Mean (mergekit)"
    bare = family.model_copy(update={"methods": {}})
    assert not any(row.method.startswith("mergekit") for row in bare.rows())


def test_planning_and_listing_import_neither_mergekit_nor_torch(workdir):
    code = (
        "import sys; from click.testing import CliRunner; from harness.cli import main\n"
        "for args in (['list'], ['show', 'method', 'mergekit:ties'],\n"
        "             ['status', '--methods', 'mergekit:karcher']):\n"
        "    result = CliRunner().invoke(main, args); assert result.exit_code == 0, result.output\n"
        "print({'torch', 'mergekit', 'transformers'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


def test_without_mergekit_one_line_says_so(workdir, monkeypatch):
    monkeypatch.setitem(sys.modules, "mergekit", None)
    with pytest.raises(HarnessError) as caught:
        registry.method("mergekit:linear")
    assert "not installed" in caught.value.message and "merge-harness[mergekit]" in caught.value.hint
    listed = run("list", "methods").stdout
    (line,) = [line for line in listed.splitlines() if line.strip().startswith("mergekit")]
    assert "not installed" in line and "pip install 'merge-harness[mergekit]'" in line
    assert "  ties " in listed


def tiny_inputs():
    models = {role: Checkpoint.open(TINY / name) for role, name in
              (("base", "base"), ("reasoning", "reasoning"), ("task", "safety"))}  # fmt: skip
    return Inputs(models.pop("base"), models, TINY / "reasoning")


def test_a_mergekit_that_cannot_start_is_told_with_its_last_words(make, tmp_path, monkeypatch):
    (tmp_path / "shim").mkdir()
    (tmp_path / "shim" / "mergekit.py").write_text("raise ImportError('no libmerge.so')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "shim"))
    with pytest.raises(HarnessError) as caught:
        merge(tiny_inputs(), [Job(make("mergekit:ram"), tmp_path / "out")])
    assert "no libmerge.so" in caught.value.message and ".out.part/mergekit.log" in caught.value.hint
    assert "no libmerge.so" in (tmp_path / ".out.part" / "mergekit.log").read_text()
    assert not (tmp_path / "out").exists()


def children(pid):
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    except OSError:
        return False


def wait_for(holds, seconds=60):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)


@pytest.mark.slow
def test_a_killed_merge_starts_over_and_gives_the_same_bytes(make, workdir):
    args = ["merge", "mergekit:dare_ties", "--set", "density=0.5", "--to"]
    parent = subprocess.Popen([sys.executable, "-m", "harness.cli", *args, "out"], stderr=subprocess.DEVNULL)
    wait_for(lambda: (workdir / ".out.part" / "mergekit.log").exists() and children(parent.pid))
    time.sleep(1.0)
    (child,) = children(parent.pid)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    wait_for(lambda: not alive(child), 10)
    assert not (workdir / "out").exists()
    assert not (workdir / ".out.part" / "config.json").exists(), "unfinished work must not look like a model"
    done = subprocess.run([sys.executable, "-m", "harness.cli", *args, "out"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not (workdir / ".out.part").exists()
    merge(tiny_inputs(), [Job(make("mergekit:dare_ties", density=0.5), workdir / "again")])
    first, second = ((workdir / f / "model.safetensors").read_bytes() for f in ("out", "again"))
    assert first == second
