"""Killed at any moment, the same command goes on and ends in the same bytes."""

import json

import pytest

from tests.train.killing import killed
from tests.train.lora_family import Told, content, die_at, half_a_checkpoint, made, train_until


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    _, step = made(tmp_path_factory.mktemp("whole"))
    return content(step.folder.path)


def goes_on(tmp_path, whole, found_done: int, trains: bool = True):
    screen = Told()
    _, step = made(tmp_path, screen)
    assert content(step.folder.path) == whole
    assert step.folder.done()["resumed"] == found_done and bool(screen.steps) == trains
    assert not (step.folder.path / "training").exists()


@pytest.mark.parametrize("at", [1, 4])
def test_within_the_steps(tmp_path, whole, at):
    killed(train_until, tmp_path, at)
    goes_on(tmp_path, whole, at)


def test_while_a_checkpoint_is_written(tmp_path, whole):
    killed(half_a_checkpoint, tmp_path)
    goes_on(tmp_path, whole, 2)


@pytest.mark.parametrize("where", ["saved", "adapter", "merging", "model"])
def test_between_the_last_step_and_the_end(tmp_path, whole, where):
    killed(die_at, tmp_path, where)
    step_folder = next((tmp_path / "tiny" / "experts").iterdir())
    assert not (step_folder / "done.json").exists()
    goes_on(tmp_path, whole, 0, trains=False)


def test_the_loss_of_every_step_is_kept_once(whole):
    lines = [json.loads(line) for line in whole["loss.jsonl"].decode().splitlines()]
    assert [line["step"] for line in lines] == list(range(6))
    assert lines[0]["rate"] == pytest.approx(1e-3) and 0 < lines[-1]["rate"] < 1e-3
