"""Paired statistics against scipy and statsmodels, on simulated runs and on what they must not do."""

import numpy as np
import pytest
from scipy import stats as reference

from harness.stats.items import Items, matched
from harness.stats.paired import compare, holm, mcnemar, pooled, resampled, sign_flip
from harness.stats.power import detectable_mean, detectable_share


def items(values, clusters=None, ids=None):
    values = np.asarray(values, dtype=float)
    return Items(tuple(("", i) for i in (ids if ids is not None else range(len(values)))), values, clusters)


def drawn(seed, n, p, q, rho=0.5):
    """Two rows of 0 and 1 that agree beyond chance."""
    draw = np.random.default_rng(seed)
    shared = draw.random(n)
    own = np.where(draw.random(n) < rho, shared, draw.random(n))
    return items(shared < p), items(own < q)


@pytest.mark.parametrize(("won", "lost"), [(0, 0), (5, 0), (3, 9), (40, 17), (1, 1)])
def test_mcnemar_is_statsmodels(won, lost):
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    wanted = tables.mcnemar([[7, won], [lost, 3]], exact=True).pvalue if won + lost else 1.0
    assert mcnemar(won, lost) == pytest.approx(min(1.0, wanted))


@pytest.mark.parametrize("seed", range(3))
def test_holm_is_statsmodels(seed):
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p = list(np.random.default_rng(seed).random(12) ** 3)
    assert holm(p) == pytest.approx(list(multitest.multipletests(p, method="holm")[1]))
    assert holm([None, *p])[0] is None and holm([None, *p])[1:] == pytest.approx(holm(p))
    assert holm([]) == []


@pytest.mark.parametrize("n", [8, 12, 60])
def test_sign_flips_are_scipys_permutation_test(n):
    deltas = np.random.default_rng(n).normal(0.3, 1.0, n)
    wanted = reference.permutation_test(
        (deltas,), np.sum, permutation_type="samples", n_resamples=20_000, rng=np.random.default_rng(1)
    ).pvalue
    assert sign_flip(deltas) == pytest.approx(wanted, abs=0.02 if n > 13 else 1e-9)


def test_an_interval_covers_as_often_as_it_says():
    inside = 0
    for seed in range(200):
        one, other = drawn(seed, 150, 0.7, 0.55)
        low, high = compare(one, other).interval
        inside += low <= 0.15 <= high
    assert 180 <= inside <= 199  # 95 % of 200 is 190; binomial three sigma is 9


def test_the_interval_is_scipys_paired_bootstrap():
    draw = np.random.default_rng(0)
    one = items(draw.normal(1.0, 1.0, 120))
    other = items(one.values - draw.normal(0.2, 0.5, 120))
    wanted = reference.bootstrap(
        (one.values - other.values,),
        np.mean,
        method="percentile",
        n_resamples=20_000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert compare(one, other).interval == pytest.approx((wanted.low, wanted.high), abs=0.01)


def test_under_no_difference_a_test_finds_one_at_most_as_often_as_it_says():
    p = [compare(*drawn(seed, 100, 0.6, 0.6, rho=0.7)).p for seed in range(300)]
    assert np.mean(np.array(p) < 0.05) <= 0.05 + 3 * (0.05 * 0.95 / 300) ** 0.5


def test_items_that_share_a_passage_count_as_one():
    passages = tuple(str(i // 10) for i in range(200))
    draw = np.random.default_rng(3)
    shift = np.repeat(draw.normal(0, 1, 20), 10)
    one, other = items(shift, passages), items(np.zeros(200), passages)
    alone = compare(items(shift), items(np.zeros(200)))
    clustered = compare(one, other)
    width = lambda d: d.interval[1] - d.interval[0]  # noqa: E731
    assert width(clustered) > 2.5 * width(alone) and clustered.test == "sign-flip permutation of clusters"
    assert clustered.effect == pytest.approx(alone.effect)


def test_equal_rows_differ_by_nothing_and_only_common_items_count():
    one = items([1, 0, 1, 1])
    same = compare(one, one)
    assert (same.effect, same.p, same.interval, same.discordance) == (0.0, 1.0, (0.0, 0.0), 0.0)
    part = items([0, 1, 1], ids=[1, 2, 9])
    a, b = matched(one, part)
    assert a.ids == b.ids == (("", 1), ("", 2)) and list(a.values) == [0, 1] and list(b.values) == [0, 1]
    assert compare(one, items([1.0], ids=[77])) is None
    assert compare(one, items([0.0], ids=[2])).p is not None  # one pair: no interval, a p of one
    assert compare(one, items([0.0], ids=[2])).interval is None


def test_perplexities_are_compared_as_ratios():
    words = np.array([50.0, 80.0, 20.0, 40.0])
    l_one = -np.array([60.0, 100.0, 30.0, 50.0])
    one, other = items(np.stack([l_one, words], 1)), items(np.stack([l_one * 1.1, words], 1))
    found = compare(one, other)
    assert (
        found.effect == pytest.approx(np.exp(240 / 190) - np.exp(264 / 190))
        and found.test == "sign-flip permutation"
    )
    assert found.interval[1] < 0 and found.p == pytest.approx(2 / 16)
    broken = items(np.stack([l_one * 1e6, words], 1))
    assert compare(broken, other).p is None


def test_resampled_sums_have_the_right_mean_and_spread_either_way():
    rows = np.random.default_rng(0).normal(size=(400, 1))
    many, few = resampled(rows), resampled(np.round(rows))
    for sums, given in ((many, rows), (few, np.round(rows))):
        assert sums.mean() == pytest.approx(given.sum(), abs=3 * given.std() * 20 / 2000**0.5)
        assert sums.std() == pytest.approx(given.std() * 20, rel=0.08)
    assert np.array_equal(resampled(rows), many)


def test_pooled_columns_are_the_mean_of_their_differences():
    a, b = drawn(1, 200, 0.8, 0.6), drawn(2, 100, 0.3, 0.5)
    found = pooled([a, b], [1, -1])
    wanted = (a[0].aggregate() - a[1].aggregate() - b[0].aggregate() + b[1].aggregate()) / 2
    assert (
        found.effect == pytest.approx(wanted)
        and found.interval[0] < wanted < found.interval[1]
        and found.n == 300
    )
    assert pooled([], []) is None


@pytest.mark.parametrize(("n", "discordance"), [(30, 0.5), (200, 0.2), (1319, 0.1)])
def test_what_could_be_detected_is_found_four_times_in_five(n, discordance):
    delta = detectable_share(n, discordance)
    draw = np.random.default_rng(0)
    shares = [(discordance + delta) / 2, (discordance - delta) / 2, 1 - discordance]
    won, lost, _ = draw.multinomial(n, shares, size=2000).T
    z = np.abs(won - lost) / np.sqrt(np.maximum(1, won + lost))  # the large-sample form of the test
    assert np.mean(z > 1.959964) == pytest.approx(0.8, abs=0.06)


def test_aime_can_only_show_large_differences():
    assert detectable_share(30) > 0.3 and detectable_share(30, 0.05) is None and detectable_share(0) is None
    assert detectable_mean(100, 1.0) == pytest.approx(0.28, abs=0.001) and detectable_mean(1, 1.0) is None


def test_two_items_prove_nothing():
    assert pooled([(items([1, 1]), items([0, 0]))], [1]).p == pytest.approx(0.5)
    a = drawn(5, 150, 0.8, 0.6)
    assert pooled([a], [1]).p == pytest.approx(sign_flip(a[0].values - a[1].values))


def test_clusters_make_the_standard_error_of_a_mean_larger():
    draw = np.random.default_rng(0)
    shift = np.repeat(draw.normal(0, 1, 400), 4)
    passages = tuple(str(i // 4) for i in range(1600))
    found = compare(items(shift, passages), items(np.zeros(1600), passages))
    assert found.spread / 40 == pytest.approx(1 / 20, rel=0.1)  # that of 400 means, not of 1600 items
    assert compare(items(shift), items(np.zeros(1600))).spread == pytest.approx(1.0, rel=0.1)


def test_resampling_holds_little_at_a_time():
    import tracemalloc

    rows = np.random.default_rng(0).normal(size=(30_000, 2))
    tracemalloc.start()
    resampled(rows, draws=200)
    assert tracemalloc.get_traced_memory()[1] < 300 * 2**20
    tracemalloc.stop()
