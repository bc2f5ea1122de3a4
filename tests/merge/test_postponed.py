"""Reductions within tensors that wait for the pass that needs them."""

from __future__ import annotations

import pytest

from harness import Cut, Reduce, merge_method, ops, param, registry
from harness.merge import Job, fused, merge
from harness.method import configure
from tests.merge import slow_merges as slow
from tests.merge.test_merge_exact import digests


@merge_method("test_scaled", title="a cut of values that a reduction scales")
class Scaled:
    about: float = param(1.0, "what the reduction is about")
    waits: bool = param(True, "may wait")
    keep: float = param(0.3, "share")

    def prepare(self, layout):
        role = layout.roles[0]
        about = (lambda g: [self.about]) if self.waits else None
        sizes = yield Reduce(lambda g: ops.magnitudes(g.deltas[role]), scope="tensor", about=about)
        cut = yield Cut(lambda g: g.deltas[role].abs() * float(sizes.value(g)[0]), self.keep)
        return role, sizes, cut

    def merge(self, group, state):
        role, sizes, cut = state
        return group.base + group.deltas[role] * cut.mask(group).float() * (
            float(sizes.value(group)[0]) * 1e-3
        )


@merge_method("test_only_sizes", title="a reduction alone")
class OnlySizes:
    def prepare(self, layout):
        values = lambda g: g.experts[layout.roles[0]].abs()  # noqa: E731
        return (yield Reduce(values, "max", "tensor", about=lambda g: [1.0]))

    def merge(self, group, state):
        return group.base * float(state.value(group))


@merge_method("test_fails_early", title="a reduction that fails")
class FailsEarly:
    def prepare(self, layout):
        yield Reduce(lambda g: 1 / 0, scope="tensor", about=lambda g: [1.0])

    def merge(self, group, state):
        return group.base


@pytest.mark.parametrize("about", [1.0, 0.0, 1e6])
@pytest.mark.parametrize("threads", [1, 3])
def test_waiting_changes_no_byte_however_wrong_the_guess(
    inputs, tmp_path, few_blocks_kept_whole, about, threads
):
    first = merge(inputs, [Job(Scaled(waits=False), tmp_path / "early")])[0]
    later = merge(inputs, [Job(Scaled(about=about), tmp_path / "late")], block=65536, threads=threads)[0]
    assert digests(tmp_path / "early") == digests(tmp_path / "late")
    assert first["passes"] == 3 and later["passes"] == 3  # the guess was wrong, so the cut is counted twice


def test_a_reduction_that_nothing_follows_has_its_own_pass(inputs, tmp_path):
    record = merge(inputs, [Job(OnlySizes(), tmp_path / "alone")])[0]
    assert record["passes"] == 2
    both = merge(inputs, [Job(OnlySizes(), tmp_path / "one"), Job(slow.Elect(), tmp_path / "two")])
    assert [one["passes"] for one in both] == [3, 3]
    assert digests(tmp_path / "one") == digests(tmp_path / "alone")


def test_one_that_fails_ends_its_own_method_only(inputs, tmp_path):
    jobs = [Job(FailsEarly(), tmp_path / "bad"), Job(Scaled(), tmp_path / "good")]
    bad, good = merge(inputs, jobs, on_error="record", threads=2)
    assert isinstance(bad["error"], ZeroDivisionError) and good["error"] is None
    assert (tmp_path / "good").exists() and not (tmp_path / "bad").exists()


@pytest.mark.parametrize("large", [0, 10**9])
def test_dare_with_ties_and_l1_takes_three_passes(inputs, tmp_path, monkeypatch, large):
    monkeypatch.setattr(fused, "LARGE", large)
    dare = configure(registry.method("dare"), {"variant": "ties", "rescale": "l1"})
    ties = configure(registry.method("ties"), {})
    assert merge(inputs, [Job(dare, tmp_path / "alone")])[0]["passes"] == 3
    both = merge(inputs, [Job(dare, tmp_path / "dare"), Job(ties, tmp_path / "ties")])
    assert [record["passes"] for record in both] == [3, 3]
    assert digests(tmp_path / "dare") == digests(tmp_path / "alone")
