"""The loop of steps: against plain AdamW in float64, and killed in the middle."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from harness.errors import HarnessError
from harness.train import loop
from harness.train.fusion import batch_loss
from harness.train.teachers import Targets
from tests.reference import fusion as slow
from tests.train.conftest import Bigram
from tests.train.killing import killed, noisy, noisy_with_half_a_checkpoint
from tests.train.test_fused_targets import drawn, recorded, table

SCHEDULE = loop.Schedule(steps=5, batch_size=2, learning_rate=0.05, warmup=0.3, weight_decay=0.1)


def quiet(*_):
    pass


@pytest.mark.parametrize("clip", [1.0, 0.1])
def test_steps_against_a_plain_loop(tmp_path, clip):
    samples = drawn(11, 5)
    sources = [table(1), table(2)]
    (tmp_path / "work").mkdir()
    folders = recorded(tmp_path, [Bigram(t) for t in sources], samples, 4)
    targets = Targets(folders, samples, "avg_ce")
    start = table(3, grid=False)
    student = Bigram(start)
    loop.optimize(
        student,
        loop.gradients_of(
            lambda rows: batch_loss(student, [samples[r] for r in rows], targets.batch(rows, "cpu"), 0.4)
        ),
        5,
        dataclasses.replace(SCHEDULE, clip=clip),
        tmp_path / "work",
        seed=3,
        progress=quiet,
    )

    def gradients(weights, step):
        """By hand: dL/dlogits = softmax - target, for the label's and for the fused distribution."""
        found = {name: np.zeros(value.shape) for name, value in weights.items()}
        rows = [samples[r] for r in loop.rows_of(step, 2, 5, 3)]
        count = sum(len(tokens) - 1 for tokens in rows)
        for tokens in rows:
            logits = weights["table"][tokens] + weights["bias"]
            wanted = slow.target([t[tokens].numpy() for t in sources], tokens, "avg_ce", 4)
            labels = np.eye(logits.shape[1])[tokens[1:]]
            error = (slow.softmax(logits[:-1]) - 0.6 * labels - 0.4 * wanted) / count
            np.add.at(found["table"], tokens[:-1], error)
            found["bias"] += error.sum(0)
        return found

    weights = {"table": start.numpy(), "bias": np.zeros(start.shape[1])}
    decay = {"table": 0.1, "bias": 0.0}
    expected = slow.adamw(weights, gradients, slow.rates(5, 0.05, 0.3), decay, clip=clip)
    np.testing.assert_allclose(student.table.detach().numpy(), expected["table"], atol=5e-6)
    np.testing.assert_allclose(student.bias.detach().numpy(), expected["bias"], atol=5e-6)
    norms = [json.loads(line)["norm"] for line in (tmp_path / "work" / loop.CURVE).read_text().splitlines()]
    assert min(norms) > 0.1 and max(norms) < 1  # the smaller clip holds at every step, the larger at none
    assert abs(expected["table"] - weights["table"]).max() > 0.05  # something happened


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0.008), (20, 0.008), (1000, 0.008), (7, 1.0), (7, 0.0)])
def test_rates(steps, warmup):
    schedule = loop.Schedule(steps, 1, 1e-5, warmup, 0.1)
    found = [schedule.rate(step) for step in range(steps)]
    np.testing.assert_allclose(found, slow.rates(steps, 1e-5, warmup), rtol=1e-12)
    assert max(found) == 1e-5 and min(found) > 0


def test_every_epoch_takes_every_row_once_in_an_order_of_its_own():
    taken = [row for step in range(21) for row in loop.rows_of(step, 4, 7, seed=1)]
    epochs = [taken[i : i + 7] for i in range(0, 84, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 8
    assert loop.rows_of(0, 7, 7, seed=1) != loop.rows_of(0, 7, 7, seed=2)
    assert loop.rows_of(2, 9, 2, 0).count(0) in (4, 5)  # a batch larger than the data


TABLE, SAMPLES = table(4, grid=False), drawn(5, 6)


@pytest.fixture
def whole(tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    before = torch.get_rng_state()
    _, weights, lines = noisy(TABLE, SAMPLES, tmp_path / "whole")
    assert torch.equal(before, torch.get_rng_state())  # the caller's random state is left alone
    assert len(lines) == 12
    return weights, lines


@pytest.mark.parametrize("at", [0, 1, 6, 11])
def test_kill_and_resume_repeat_dropout_momentum_and_order(whole, tmp_path, at):
    killed(noisy, TABLE, SAMPLES, tmp_path / "parts", at)
    torch.manual_seed(at)
    begun, weights, lines = noisy(TABLE, SAMPLES, tmp_path / "parts")
    assert begun == at and lines == whole[1]
    assert all(torch.equal(weights[name], whole[0][name]) for name in weights)


def test_a_kill_while_the_checkpoint_is_written_leaves_the_last_one(whole, tmp_path):
    killed(noisy_with_half_a_checkpoint, TABLE, SAMPLES, tmp_path / "parts")
    begun, weights, lines = noisy(TABLE, SAMPLES, tmp_path / "parts")
    assert begun == 3 and lines == whole[1]
    assert all(torch.equal(weights[name], whole[0][name]) for name in weights)


def test_a_torn_line_of_losses_is_dropped(tmp_path):
    (tmp_path / loop.CURVE).write_text('{"step": 0, "loss": 1.0}\n{"step": 1, "lo')
    _, _, lines = noisy(TABLE, SAMPLES, tmp_path)
    assert [json.loads(line)["step"] for line in lines] == list(range(12))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops(tmp_path, value):
    student = Bigram(table(4))
    with pytest.raises(HarnessError, match=r"at step 0 the loss is (nan|inf)"):
        loop.optimize(
            student, loop.gradients_of(lambda rows: {"loss": student.table.sum() * value}), 6, SCHEDULE,
            tmp_path, seed=0, progress=quiet,
        )  # fmt: skip
