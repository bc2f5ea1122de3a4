"""What a worker is told means the same there, or is refused; steps fit nodes, or are refused."""

import dataclasses
import json

import pytest

from harness import registry
from harness.cluster import needs, node, order
from harness.costs.machine import Gpu, Machine
from harness.errors import HarnessError
from harness.family import Family, load_family
from harness.planner import make_plan
from harness.recipe import key
from harness.store import Store

GIB = 1 << 30
MINE = """from harness import merge_method


@merge_method("mine", title="Mine")
class Mine:
    def merge(self, group, state):
        return group.base.clone()
"""


@pytest.fixture
def planned(workdir, monkeypatch):
    """A plan with a user's method, and its order."""
    monkeypatch.setattr(node, "_plans", {})
    (workdir / "mine.py").write_text(MINE)
    wanted = {"methods": ("linear", "reasonany (paper)", "./mine.py"), "tasks": ("tiny_chain",), "limit": 4,
              "engine": "hf", "on_gpu": False}  # fmt: skip
    store = Store(workdir / "results", "tiny-safety")
    plan = make_plan(load_family("tiny-safety"), store, prepare=True, **wanted)
    return plan, order.order_of(plan, wanted)


@pytest.mark.parametrize("name", registry.find("families"))
def test_a_family_survives_being_sent(name):
    family = load_family(name)
    assert Family.model_validate_json(family.model_dump_json()) == family


def test_a_plan_is_made_again_with_the_same_steps_and_keys(planned, tmp_path, monkeypatch):
    plan, told = planned
    assert json.loads(json.dumps(dataclasses.asdict(told)))["steps"] == told.steps, "plain data"
    monkeypatch.chdir("/")  # a worker starts somewhere else
    again = order.made_again(told)
    found = {name: key(step.recipe) for name, step in again.named().items()}
    assert found == {name: key(step.recipe) for name, step in plan.named().items()} and len(found) > 8
    assert again.family == plan.family and again.store.root == plan.store.root
    assert [type(row.method) for row in again.rows] == [type(row.method) for row in plan.rows]


def test_a_method_that_is_another_on_the_node(planned):
    plan, told = planned
    (path,) = told.files
    assert path.endswith("mine.py")
    (plan.store.root.parent.parent / "mine.py").write_text(MINE + "# changed\n")
    with pytest.raises(HarnessError, match="mine.py has another content on node"):
        order.made_again(told)
    (plan.store.root.parent.parent / "mine.py").unlink()
    with pytest.raises(HarnessError, match="mine.py cannot be read: No such file"):
        order.made_again(told)


def test_a_step_with_another_key_is_told_by_name(planned):
    _, told = planned
    name = next(name for name in told.steps if "tiny_chain" in name)
    other = dataclasses.replace(told, steps={**told.steps, name: "0" * 64})
    with pytest.raises(HarnessError) as error:
        order.made_again(other)
    assert name in error.value.message and "00000000" in error.value.message


def test_secrets_stay_where_they_are(planned, monkeypatch):
    plan, told = planned
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HARNESS_JUDGE_API_KEY", "sk-secret")
    monkeypatch.setenv("HARNESS_DATA", "/data")
    environment = order.order_of(plan, told.wanted).environment
    assert environment["HARNESS_DATA"] == "/data" and "secret" not in str(environment)


def test_a_node_without_the_store_says_so(tmp_path):
    found = node.look(str(tmp_path / "not mounted"), "abc", "node1", {}, False)
    assert "does not see the store" in found["fault"][0]


def test_a_node_with_the_store_answers_there(tmp_path):
    (tmp_path / ".token-abc").write_text("abc")
    found = node.look(str(tmp_path), "abc", "node1", {}, False)
    assert "fault" not in found and found["token"] == "abc"
    assert (tmp_path / ".token-abc-node1").read_text() == "node1"
    assert found["software"] == order.software()


def test_what_another_node_completed_is_waited_for_and_then_missed(tmp_path):
    (tmp_path / "done.json").write_text("{}")
    node.appear([tmp_path])
    with pytest.raises(HarnessError, match="was completed elsewhere"):
        node.appear([tmp_path / "never"], within=0.3)


def machine(cpus=8, gpus=0, memory=64):
    made = Machine(cpus, memory * GIB, memory * GIB, (Gpu("H100", 80 * GIB, 80 * GIB),) * gpus)
    return needs.Node(f"id{cpus}", "host", cpus, gpus, memory * GIB, made)


@pytest.mark.parametrize(
    "nodes, engine, build",
    [
        ([machine(1), machine(1)], (1, 0), (1, 0)),
        ([machine(8), machine(4)], (2, 0), (4, 0)),
        ([machine(64, gpus=4), machine(16)], (8, 1), (16, 4)),
    ],
)
def test_engines_and_what_is_built_share_a_node(planned, nodes, engine, build):
    found = needs.shares(planned[0], nodes)
    assert (found.engine.cpus, found.engine.gpus) == engine
    assert (found.build["scores"].cpus, found.build["scores"].gpus) == build
    assert found.build["merge"].gpus == 0 and found.engine.memory > 0
    assert all(any(part.fits(node) for node in nodes) for part in (found.engine, *found.build.values()))


def test_a_step_that_fits_no_node_is_refused(planned):
    with pytest.raises(HarnessError, match="GiB of memory; the largest node"):
        needs.shares(planned[0], [dataclasses.replace(machine(), memory=GIB // 10)])


@pytest.mark.parametrize("device, gpus", [("cuda", 0), ("cuda:1", 4)])
def test_devices_that_ray_cannot_give(planned, device, gpus):
    with pytest.raises(HarnessError, match=f"--device {device}"):
        needs.shares(planned[0], [machine(gpus=gpus)], device)
