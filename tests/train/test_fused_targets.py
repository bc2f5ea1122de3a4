"""What teachers leave on disk, the targets fused from it, and the loss, against the slow oracle."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.train.fusion import batch_loss
from harness.train.teachers import Targets, nbytes, predict
from tests.reference import fusion as slow
from tests.train.conftest import Bigram

VOCABULARY = 23


def table(seed, grid=True):
    """Distinct logits; on the grid of 1/8 their differences are exact in float16."""
    rng = np.random.default_rng(seed)
    if not grid:
        return torch.from_numpy(rng.normal(0, 3, (VOCABULARY, VOCABULARY)).astype(np.float32))
    rows = [rng.permutation(3 * VOCABULARY)[:VOCABULARY] / 8 - 4 for _ in range(VOCABULARY)]
    return torch.from_numpy(np.stack(rows).astype(np.float32))


def drawn(seed, count):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, VOCABULARY, rng.integers(2, 9)).tolist() for _ in range(count)]


def recorded(tmp_path, models, samples, top_k, batch_size=3):
    folders = []
    for index, model in enumerate(models):
        folders.append(tmp_path / f"{index}-{len(list(tmp_path.iterdir()))}")
        predict(model, samples, folders[-1], top_k=top_k, batch_size=batch_size, device="cpu",
                progress=lambda i, n: None)  # fmt: skip
    return folders


def dense(ids, probabilities):
    out = torch.zeros(*ids.shape[:2], VOCABULARY, dtype=torch.float64)
    return out.scatter_add_(-1, ids, probabilities.double()).numpy()


@pytest.mark.parametrize("fusion", ["min_ce", "avg_ce"])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), sources=st.integers(1, 4), top_k=st.integers(1, VOCABULARY + 3),
       weight=st.sampled_from([0.0, 0.1, 0.7, 1.0]))  # fmt: skip
def test_targets_and_loss(tmp_path_factory, fusion, seed, sources, top_k, weight):
    samples = drawn(seed, 5)
    tables = [table(seed + i) for i in range(sources)]
    models = [Bigram(t) for t in tables]
    folders = recorded(tmp_path_factory.mktemp("t"), models, samples, top_k)
    targets = Targets(folders, samples, fusion)
    batch = [3, 0, 0, 4]
    ids, probabilities = targets.batch(batch, "cpu")
    wanted = [slow.target([t[samples[r]].numpy() for t in tables], samples[r], fusion, top_k) for r in batch]
    found = dense(ids, probabilities)
    for i, expected in enumerate(wanted):
        np.testing.assert_allclose(found[i, : len(expected)], expected, atol=2e-6)
        assert not found[i, len(expected) :].any()  # padding
    student = Bigram(table(seed + 99, grid=False))
    rows = [samples[r] for r in batch]
    losses = batch_loss(student, rows, (ids, probabilities), weight)
    total, lm, fused = slow.loss([student.table.detach()[r].numpy() for r in rows], rows, wanted, weight)
    got = [losses[name].item() for name in ("loss", "lm", "fused")]
    np.testing.assert_allclose(got, [total, lm, fused], rtol=2e-5)


def test_min_ce_chooses_per_row(tmp_path):
    """One source knows that even tokens are followed by 0, the other that odd ones are."""
    one, other = torch.zeros(2, VOCABULARY, VOCABULARY)
    one[0::2, 0], other[1::2, 0] = 9, 9
    samples = [[2, 0, 0], [3, 0], [5, 0]]
    folders = recorded(tmp_path, [Bigram(one), Bigram(other)], samples, 4)
    assert Targets(folders, samples, "min_ce").weights.tolist() == [[1, 0, 0], [0, 1, 1]]


def test_equal_sources_take_the_first(tmp_path):
    same = Bigram(table(1))
    samples = drawn(1, 3)
    folders = recorded(tmp_path, [same, same], samples, 4)
    assert Targets(folders, samples, "min_ce").weights.tolist() == [[1, 1, 1], [0, 0, 0]]
    assert Targets(folders, samples, "avg_ce").weights.tolist() == [[0.5] * 3, [0.5] * 3]


def test_what_is_kept_is_compact_and_does_not_depend_on_batches(tmp_path):
    samples, model = drawn(2, 7), Bigram(table(5, grid=False))
    kept = []
    for batch_size in (1, 3, 7):
        (folder,) = recorded(tmp_path, [model], samples, 6, batch_size)
        kept.append({file.name: file.read_bytes() for file in folder.iterdir()})
    assert kept[0] == kept[1] == kept[2]
    bulk = np.load(folder / "logits.npy").nbytes + np.load(folder / "ids.npy").nbytes
    assert bulk == nbytes(samples, 6)


def test_rounding_to_float16_costs_little(tmp_path):
    """Logits of any size, as models give them: no probability above 1e-4 is off by more than 0.5 %."""
    samples = drawn(3, 6)
    tall = table(8, grid=False) + 3000  # float16 itself would have steps of 2 here
    (folder,) = recorded(tmp_path, [Bigram(tall)], samples, VOCABULARY)
    targets = Targets([folder], samples, "min_ce")
    ids, probabilities = targets.batch(range(6), "cpu")
    for i, tokens in enumerate(samples):
        expected = slow.target([tall[tokens].numpy()], tokens, "min_ce", VOCABULARY)
        found = dense(ids[i : i + 1], probabilities[i : i + 1])[0, : len(expected)]
        big = expected > 1e-4
        np.testing.assert_allclose(found[big], expected[big], rtol=5e-3)
        np.testing.assert_allclose(found.sum(-1), 1, atol=1e-6)


def test_a_teacher_is_kept_whole_or_not_at_all(tmp_path):
    class Dies(Bigram):
        def forward(self, input_ids, **rest):
            if input_ids.shape[0] == 1:
                raise KeyboardInterrupt
            return super().forward(input_ids, **rest)

    with pytest.raises(KeyboardInterrupt):
        predict(Dies(table(1)), drawn(1, 4), tmp_path / "t", top_k=2, batch_size=3, device="cpu",
                progress=lambda i, n: None)  # fmt: skip
    assert not (tmp_path / "t").exists()
