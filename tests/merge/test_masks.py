"""`masks.json` against a count over whole tensors, and its bytes under every way of running a merge."""

from __future__ import annotations

import json
import os
import signal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from harness import HarnessError, Need, merge_method, param, registry
from harness.checkpoint import Checkpoint, natural_key
from harness.merge import Inputs, Job, merge
from harness.method import configure
from tests import helpers_checkpoints as tiny
from tests.merge import slow_merges as slow

ROLES = ("reasoning", "task")
BLOCKS = {"left": None}


@merge_method("test_halves", title="every second element, the overlap dropped")
class Halves:
    scale: float = param(1.0, "factor")

    def needs(self, roles):
        return tuple(Need(role, "gradient") for role in roles)

    def before(self, group):
        return {"reasoning": group.scores["reasoning.gradient"] < 0.3, "task": group.base > 0.02}

    def merge(self, group, state):
        if BLOCKS["left"] is not None:
            BLOCKS["left"] -= 1
            if BLOCKS["left"] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        out = group.base.clone()
        for role, (mask, _) in self.masks(group, state).items():
            out += self.scale * group.deltas[role] * mask
        return out

    def masks(self, group, state):
        before = self.before(group)
        both = before["reasoning"] & before["task"]
        return {role: (mask & ~both, mask) for role, mask in before.items()}


@pytest.fixture(scope="session")
def scored(tmp_path_factory) -> tuple[Inputs, dict]:
    """The engine's tests' family under ReasonAny's roles, with statistics of which half are 0."""
    root = tmp_path_factory.mktemp("scored")
    base = tiny.weights(tiny.CONFIG)
    tiny.write(root / "base", base)
    for seed, role in enumerate(ROLES, 1):
        tiny.write(root / role, tiny.tuned(base, seed))
        draw = torch.Generator().manual_seed(10 + seed)
        scores = {name: torch.randn(t.shape, generator=draw).relu() for name, t in base.items()}
        (root / f"scores-{role}").mkdir()
        save_file(scores, root / f"scores-{role}" / "model.safetensors")
    experts = {role: Checkpoint.open(root / role) for role in ROLES}
    return Inputs(Checkpoint.open(root / "base"), experts, root / "base"), {
        role: Checkpoint.open(root / f"scores-{role}") for role in ROLES
    }


@pytest.fixture(autouse=True)
def alive():
    BLOCKS["left"] = None


def job(method, scored, to, **options) -> Job:
    needs = method.needs(ROLES) if hasattr(method, "needs") else ()
    scores = {need.key: scored[1][need.role] for need in needs}
    return Job(method, to, scores=scores, masks=to.parent / f"{to.name}.json", **options)


def made(method, scored, to, *, dtype=None, **engine) -> tuple[dict, dict]:
    """(the file, the record) of one merge."""
    one = job(method, scored, to, dtype=dtype)
    record = merge(scored[0], [one], **{"threads": 1, **engine})[0]
    return json.loads(one.masks.read_text()), record


def whole(folder) -> dict[str, np.ndarray]:
    found = load_file(folder / "model.safetensors")
    return {n: found[n].flatten().float().numpy() for n in sorted(found, key=natural_key)}


def expected(scored, out, before: dict, after: dict, gradient: dict) -> dict:
    """role -> figures of the total, counted over everything at once. Masks are role -> flat arrays."""
    inputs = scored[0]
    base, result = np.concatenate(list(whole(inputs.base.path).values())), np.concatenate(list(out.values()))
    found = {}
    for role, mask in after.items():
        delta = (np.concatenate(list(whole(inputs.experts[role].path).values())) - base).astype(np.float64)
        found[role] = {
            "selected": mask.sum(),
            "removed": (before[role] & ~mask).sum(),
            "zero_delta": (mask & (delta == 0)).sum(),
            "zero_gradient": (mask & (gradient[role] == 0)).sum(),
            "unchanged": (mask & (result == base)).sum(),
            "energy": (delta[mask] ** 2).sum() / (delta**2).sum(),
            "embeddings": mask[: out["model.embed_tokens.weight"].size].sum(),
        }
    return found


def test_the_figures_are_those_of_a_count_over_whole_tensors(scored, tmp_path):
    file, record = made(Halves(), scored, tmp_path / "out", block=65536, threads=2)
    base, out = whole(scored[0].base.path), whole(tmp_path / "out")
    assert next(iter(out)) == "model.embed_tokens.weight"
    gradient = {role: np.concatenate(list(whole(scored[1][role].path).values())) for role in ROLES}
    before = {"reasoning": gradient["reasoning"] < 0.3, "task": np.concatenate(list(base.values())) > 0.02}
    after = {role: mask & ~(before["reasoning"] & before["task"]) for role, mask in before.items()}
    n = sum(t.size for t in out.values())
    for role, wanted in expected(scored, out, before, after, gradient).items():
        found = file["total"]["roles"][role]
        for name, count in wanted.items():
            assert found[name] == (pytest.approx(count, rel=1e-5) if name == "energy" else count), (
                role,
                name,
            )
        assert found["selected_share"] == wanted["selected"] / n
        assert found["removed_share"] == wanted["removed"] / before[role].sum()
        assert found["zero_gradient_share"] == wanted["zero_gradient"] / wanted["selected"]
        assert found["embeddings_share"] == wanted["embeddings"] / wanted["selected"]
    same = sum(int((out[name] == base[name]).sum()) for name in out)
    assert (file["total"]["elements"], file["total"]["unchanged"]) == (n, same)
    assert record["mask_warnings"] == []


def test_tensors_add_up_to_modules_and_modules_to_the_total(scored, tmp_path):
    file, _ = made(Halves(), scored, tmp_path / "out")
    assert set(file["tensors"]) == set(scored[0].base.tensors)
    assert {"embed_tokens", "q_proj", "down_proj", "norm", "input_layernorm"} <= set(file["modules"])
    q = [t for name, t in file["tensors"].items() if ".q_proj." in name]
    for name in ("selected", "removed", "zero_delta", "zero_gradient", "unchanged"):
        count = lambda level, name=name: level["roles"]["task"][name]  # noqa: E731
        assert count(file["modules"]["q_proj"]) == sum(map(count, q))
        assert count(file["total"]) == sum(map(count, file["modules"].values()))
    assert (
        file["modules"]["embed_tokens"]["roles"]["task"]["selected"]
        == (file["total"]["roles"]["task"]["embeddings"])
    )


SETTINGS = {
    "reasonany": {"p": 0.2},
    "led": {"p": 0.3},
    "ties": {},
    "dare": {"density": 0.3},
    "sce": {"select_topk": 0.5},
    "linear": {},
}


def test_the_file_does_not_depend_on_threads_blocks_or_company(scored, tmp_path):
    methods = [configure(registry.method(name), given) for name, given in SETTINGS.items()]
    seen = []
    for i, (threads, block) in enumerate(((1, 65536), (3, 131072), (2, 2**18))):
        jobs = [job(m, scored, tmp_path / str(i) / str(j)) for j, m in enumerate(methods)]
        merge(scored[0], jobs, threads=threads, block=block)
        seen.append([one.masks.read_bytes() for one in jobs])
    merge(scored[0], [job(methods[3], scored, tmp_path / "alone")], threads=2)
    assert seen[0] == seen[1] == seen[2]
    assert (tmp_path / "alone.json").read_bytes() == seen[0][3]


@pytest.mark.parametrize("after", [1, 7, 20])
def test_a_killed_merge_writes_the_same_file(scored, tmp_path, after):
    made(Halves(), scored, tmp_path / "whole", block=65536)
    if (child := os.fork()) == 0:
        try:
            BLOCKS["left"] = after
            made(Halves(), scored, tmp_path / "out", block=65536)
        finally:
            os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert not (tmp_path / "out.json").exists()
    _, record = made(Halves(), scored, tmp_path / "out")
    assert (record["resumed"] > 0) == (after > 3)  # the embedding takes the first three blocks
    assert (tmp_path / "out.json").read_bytes() == (tmp_path / "whole.json").read_bytes()


def test_a_merge_killed_without_figures_is_made_anew_for_them(scored, tmp_path):
    if (child := os.fork()) == 0:
        try:
            BLOCKS["left"] = 20
            plain = job(Halves(), scored, tmp_path / "out")
            merge(scored[0], [Job(plain.method, plain.to, scores=plain.scores)], threads=1)
        finally:
            os._exit(3)
    os.waitpid(child, 0)
    file, record = made(Halves(), scored, tmp_path / "out")
    assert record["resumed"] == 0 and len(file["tensors"]) == len(scored[0].base.tensors)


def test_a_lost_file_is_had_again(scored, tmp_path):
    file, _ = made(Halves(), scored, tmp_path / "out")
    weights = (tmp_path / "out" / "model.safetensors").read_bytes()
    (tmp_path / "out.json").unlink()
    assert made(Halves(), scored, tmp_path / "out")[0] == file
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == weights


def test_a_change_that_bfloat16_rounds_away_is_said(scored, tmp_path):
    file, record = made(Halves(scale=1e-5), scored, tmp_path / "out")
    assert file["total"]["roles"]["task"]["unchanged_share"] > 0.99
    assert [w for w in record["mask_warnings"] if w.startswith("task: ") and "base's value" in w]
    assert set(record["mask_warnings"]) <= set(record["warnings"])
    file, record = made(Halves(scale=1e-2), scored, tmp_path / "wide", dtype="float32")
    total = file["total"]["roles"]["task"]
    assert total["unchanged"] == total["zero_delta"] and record["mask_warnings"] == []


@merge_method("test_few", title="masks of one kind")
class Few:
    kind: str = param("nothing", "what is selected")

    def needs(self, roles):
        return (Need("task"),)

    def merge(self, group, state):
        return group.base + sum(group.deltas.values())

    def masks(self, group, state):
        if self.kind == "wrong":
            return {"task": group.base}
        kinds = {
            "nothing": group.base > 1e9,
            "gradient": group.scores["task.gradient"] == 0,
            "delta": group.deltas["task"] == 0,
        }
        return {"task": kinds[self.kind]}


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("nothing", "task: the mask selects nothing"),
        ("gradient", "task: 100.0% of the selected elements have a score of 0"),
        ("delta", "task: 100.0% of the selected elements are the base's already"),
    ],
)
def test_a_degenerate_mask_is_said(scored, tmp_path, kind, said):
    file, record = made(Few(kind=kind), scored, tmp_path / "out")
    assert record["mask_warnings"] == [said] and "removed" not in file["total"]["roles"]["task"]


def test_a_mask_that_is_none_ends_the_job(scored, tmp_path):
    with pytest.raises(HarnessError, match="`masks` gave torch.float32"):
        made(Few(kind="wrong"), scored, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_method_without_masks_tells_what_changed(scored, tmp_path):
    file, record = made(slow.Add(), scored, tmp_path / "out")
    base, out = whole(scored[0].base.path), whole(tmp_path / "out")
    same = sum(int((out[name] == base[name]).sum()) for name in out)
    total = file["total"]
    assert not file["masks"] and "roles" not in total and total["energy"] == 1.0
    assert (total["unchanged"], total["unchanged_share"]) == (same, same / total["elements"])
    _, record = made(slow.Add(scale=0.0), scored, tmp_path / "base")
    assert record["mask_warnings"] == ["100.0% of the stored values are the base's"]


@merge_method("test_whole", title="writes the first expert")
class Whole:
    def build(self, context):
        tensors = load_file(context.inputs.experts["task"].path / "model.safetensors")
        tiny.write(context.job.to, tensors)
        return {"warnings": ["its own"]}


def test_a_whole_model_method_has_a_file_too(scored, tmp_path):
    file, record = made(Whole(), scored, tmp_path / "out")
    base, out = whole(scored[0].base.path), whole(tmp_path / "out")
    assert file["total"]["unchanged"] == sum(int((out[n] == base[n]).sum()) for n in out) > 0
    assert record["warnings"] == ["its own"]


def test_a_file_inside_the_folder_comes_with_it(scored, tmp_path):
    to = tmp_path / "out"
    merge(scored[0], [Job(slow.Add(), to, masks=to / "masks.json")])
    assert json.loads((to / "masks.json").read_text())["method"] == "test_add"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(("name", "removes"), [("reasonany", True), ("led", True), ("ties", True)])
def test_reasonany_led_and_ties_select_what_their_definitions_say(scored, tmp_path, name, removes):
    file, _ = made(configure(registry.method(name), SETTINGS[name]), scored, tmp_path / "out")
    n = file["total"]["elements"]
    for own in file["total"]["roles"].values():
        before = own["selected"] + own["removed"]
        if name == "reasonany":
            assert before == int(0.2 * n)
        assert own["removed"] > 0 and 0 < own["energy"] <= 1
    if name == "ties":  # what trimming keeps at 0.2 has more than that share of the energy
        assert all(own["energy"] > 0.2 for own in file["total"]["roles"].values())


def test_what_reasonany_leaves_alone_is_what_no_mask_selects(scored, tmp_path):
    file, _ = made(configure(registry.method("reasonany"), SETTINGS["reasonany"]), scored, tmp_path / "out")
    base, out = whole(scored[0].base.path), whole(tmp_path / "out")
    changed = sum(int((out[name] != base[name]).sum()) for name in out)
    roles = file["total"]["roles"].values()
    assert changed == sum(own["selected"] - own["unchanged"] for own in roles)


def test_dare_keeps_about_its_density_and_sce_its_share(scored, tmp_path):
    file, _ = made(configure(registry.method("dare"), SETTINGS["dare"]), scored, tmp_path / "dare")
    for own in file["total"]["roles"].values():
        assert own["selected_share"] == pytest.approx(0.3, abs=0.01)
        assert own["energy"] == pytest.approx(0.3, abs=0.02) and "removed" not in own
    file, _ = made(configure(registry.method("sce"), SETTINGS["sce"]), scored, tmp_path / "sce")
    assert all(0.1 < own["selected_share"] <= 0.5 for own in file["total"]["roles"].values())
