"""Verdicts: supported, refuted, left open, the opposite; an item counts once however many rows ask it."""

from zlib import crc32

import numpy as np
import pytest

from harness.board import BoardRow, Heading
from harness.errors import HarnessError
from harness.family import load_family
from harness.stats.items import Items
from harness.sweep.claims import check_group, columns_of, judge
from harness.sweep.study import Claim, Variant

GSM = Heading("gsm8k", "accuracy", "GSM8K", "Reasoning", True, "accuracy")
ASR = Heading("harm", "asr", "ASR", "Safety", False, "accuracy")
PPL = Heading("prose", "ppl", "PPL", "Perplexity", False, "perplexity")
HEADINGS = [GSM, ASR, PPL]


def told(claim, shares, n=200, headings=HEADINGS):
    """`shares`: (row label, heading) -> share of items right, or its values."""
    family = load_family("tiny-safety")
    labels = list(dict.fromkeys(label for label, _ in shares))
    points = {label: dict(part.split("=") for part in label.split(", ") if "=" in part) for label in labels}
    found = [Variant(label, "ties", {}, family, points[label]) for label in labels if label != "base"]
    rows = {label: BoardRow(label, "merge", "ties", {}, "", {}) for label in labels}

    def items(row, heading):
        share = shares.get((row.label, heading.task))
        if share is None:
            return None
        values = np.random.default_rng(crc32(f"{row.label[:1]} {heading.task}".encode())).random(n) < share
        return Items(tuple(("", i) for i in range(n)), values.astype(float))

    return judge(claim, found, rows, headings, items)


def claim(row="full", than="half", group="Reasoning", **more):
    return Claim(sentence="It helps", row=row, than=than, group=group, **more)


@pytest.mark.parametrize(
    ("full", "half", "verdict"),
    [(0.9, 0.5, "supported here"), (0.5, 0.9, "the opposite holds here"), (0.55, 0.54, "not supported here")],
)
def test_a_claim_can_fail(full, half, verdict):
    found = told(claim(), {("full", "gsm8k"): full, ("half", "gsm8k"): half})
    assert found.verdict == verdict and f"It helps: {verdict}" in str(found) and "n = 200" in str(found)


def test_where_low_is_good_less_is_better():
    found = told(claim(group="domain"), {("full", "harm"): 0.1, ("half", "harm"): 0.6})
    assert found.verdict == "supported here" and found.difference.effect == pytest.approx(0.5, abs=0.1)


def test_equivalence_needs_the_whole_interval_inside():
    near = {("full", "gsm8k"): 0.5, ("half", "gsm8k"): 0.5}
    assert told(claim(within=0.5), near).verdict == "supported here"
    assert (
        told(claim(within=0.001, than="other"), {("full", "gsm8k"): 0.5, ("other", "gsm8k"): 0.5}).verdict
        == "not supported here"
    )


def test_what_was_not_measured_cannot_be_told():
    found = told(claim(), {("full", "gsm8k"): 0.5, ("half", "harm"): 0.5})
    assert found.verdict == "cannot be told here" and "GSM8K" in found.why
    none = told(claim(group="all"), {("full", "gsm8k"): 0.5, ("half", "gsm8k"): 0.5}, headings=[PPL])
    assert none.verdict == "cannot be told here"


def test_more_pairs_of_rows_are_no_more_items():
    one = {("end=low, p=1", "gsm8k"): 0.6, ("end=high, p=1", "gsm8k"): 0.5}
    many = {
        (f"end={end}, p={p}", "gsm8k"): share
        for p in range(1, 6)
        for end, share in (("low", 0.6), ("high", 0.5))
    }
    sides = {"row": {"end": "low"}, "than": {"end": "high"}}
    single, several = told(claim(**sides), one), told(claim(**sides), many)
    assert several.difference.n == single.difference.n == 200
    width = lambda d: d.interval[1] - d.interval[0]  # noqa: E731
    assert width(several.difference) == pytest.approx(width(single.difference), rel=0.15)


def test_a_group_that_is_not_there_is_refused():
    assert [h.title for h in columns_of("all", HEADINGS)] == ["GSM8K", "ASR"]
    with pytest.raises(HarnessError, match="no column is of the group `Reasonning`"):
        check_group("Reasonning", HEADINGS)


def test_a_claim_on_a_group_that_was_not_measured_is_not_told():
    found = told(claim(group="Knowledge"), {("full", "gsm8k"): 0.5, ("half", "gsm8k"): 0.5})
    assert found.verdict == "cannot be told here" and "`Knowledge`" in found.evidence


@pytest.mark.parametrize("order", [(0.2, 0.5, 0.8), (0.8, 0.2, 0.5)])
def test_equivalence_is_judged_by_the_farthest_pair_so_that_opposites_do_not_cancel(order):
    low, middle, high = (f"n = {round(10 * share)}" for share in sorted(order))
    shares = {(f"n = {round(10 * share)}", "gsm8k"): share for share in order}
    found = told(claim(row="any", than=middle, within=0.2), shares)
    assert found.verdict == "not supported here" and "the farthest of 2 pairs" in found.compared
    assert abs(found.difference.effect) == pytest.approx(0.3, abs=0.1)
    assert told(claim(row="any", than=middle, within=0.6), shares).verdict == "supported here"
    assert found.compared.split(" − ")[0] in (low, high) and found.compared.split(" − ")[1].startswith(middle)


def by_p(rows):
    """`rows`: name -> share at p = 1, 2, 3."""
    return {
        (f"row={row}, p={p}", "gsm8k"): share
        for row, shares in rows.items()
        for p, share in enumerate(shares, 1)
    }


@pytest.mark.parametrize(
    ("one", "other", "verdict"),
    [
        ((0.5, 0.5, 0.5), (0.2, 0.5, 0.8), "supported here"),
        ((0.2, 0.5, 0.8), (0.5, 0.5, 0.5), "the opposite holds here"),
        ((0.2, 0.5, 0.8), (0.8, 0.2, 0.5), "not supported here"),
    ],
)
def test_steadier_compares_standard_deviations_over_an_axis(one, other, verdict):
    shares = by_p({"a": one, "b": other})
    found = told(claim(row={"row": "a"}, than={"row": "b"}, steadier_over="p"), shares)
    assert found.verdict == verdict and found.difference.n == 200
    assert found.evidence.startswith("standard deviation over p, b − a, on GSM8K: ")
    values = lambda row: [  # noqa: E731
        (np.random.default_rng(crc32(b"r gsm8k")).random(200) < share).mean() for share in row
    ]
    wanted = np.std(values(other), ddof=1) - np.std(values(one), ddof=1)
    assert found.difference.effect == pytest.approx(wanted)
    low, high = found.difference.interval
    assert low <= found.difference.effect <= high


def test_one_point_has_no_spread():
    shares = {("row=a, p=1", "gsm8k"): 0.5, ("row=b, p=1", "gsm8k"): 0.7}
    found = told(claim(row={"row": "a"}, than={"row": "b"}, steadier_over="p"), shares)
    assert found.verdict == "cannot be told here"


def test_settings_are_compared_with_the_base():
    shares = {("base", "gsm8k"): 0.2, ("end=low, p=1", "gsm8k"): 0.6, ("end=low, p=2", "gsm8k"): 0.8}
    found = told(claim(row={"end": "low"}, than="base"), shares)
    assert found.verdict == "supported here" and found.compared == "end=low − base (mean of 2 pairs)"
    assert found.difference.effect == pytest.approx(0.5, abs=0.15)
