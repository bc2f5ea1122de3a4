"""Every study that is shipped fits the tiny family, and says in its claims what there is to compare."""

import pytest

from harness import registry
from harness.errors import HarnessError
from harness.family import load_family
from harness.sweep.study import OWN, Claim, Sets, Study, Variant, calibrated, load_study, pairs, variants

SHIPPED = sorted(registry.find("studies"))


def test_the_papers_studies_are_there():
    wanted = (
        "selection lambda-p intervals cumulative exclusion additive calibration seeds granularity scale cost"
    )
    assert set(wanted.split()) <= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("family", ["tiny-safety", "qwen7b-safety"])
def test_a_shipped_study_fits(name, family, monkeypatch):
    monkeypatch.setattr("harness.sweep.study._enough", lambda rows, family: True)  # hub data is not here
    study = load_study(name)
    found = variants(study, load_family(family))
    assert found and len({variant.label for variant in found}) == len(found)
    for claim in study.claims:
        assert pairs(claim, found), claim.sentence


def test_intervals_lie_side_by_side_and_cover_the_cumulative_masks():
    intervals = [row["interval"] for row in load_study("intervals").rows.values()]
    assert intervals[0][0] == 0 and all(a[1] == b[0] for a, b in zip(intervals, intervals[1:], strict=False))
    shares = [row["p_reasoning"] for row in load_study("cumulative").rows.values()]
    assert set(shares) - {0.01} <= {interval[1] for interval in intervals}


def study(**given):
    return Study(name="s", title="t", method="reasonany", **given)


def test_settings_in_a_claim_stand_for_every_pair_that_agrees_in_all_else():
    found = variants(
        study(grid={"exclusion": ["drop_both", "none"], "p": [0.1, 0.2]}), load_family("tiny-safety")
    )
    claim = Claim(sentence="s", row={"exclusion": "drop_both"}, than={"exclusion": "none"})
    assert pairs(claim, found) == [
        ("exclusion=drop_both, p=0.1", "exclusion=none, p=0.1"),
        ("exclusion=drop_both, p=0.2", "exclusion=none, p=0.2"),
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "one of the three"),
        ({"rows": {"a": {}}, "grid": {"p": [0.1]}}, "one of the three"),
        ({"grid": {"p": [0.1]}, "spread": "q"}, "no axis of the grid"),
        ({"rows": {"a": {}}, "rowz": 1}, "rowz"),
    ],
)
def test_a_study_that_is_none_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        study(**given)


def test_a_file_with_a_misspelt_key_names_it(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("title: t\nmethod: ties\nrow: {a: {}}\n")
    with pytest.raises(HarnessError, match="unknown key `row`") as error:
        load_study(str(path))
    assert "rows" in error.value.hint


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ({"row": "full", "than": "half"}, "names the row `half`"),
        ({"row": {"p": 0.5}, "than": {"p": 0.1}}, "compares no rows"),
        ({"row": "full", "than": {"p": 0.1}}, "a label with settings"),
    ],
)
def test_a_claim_about_rows_that_are_not_there_is_refused(claim, message):
    found = [Variant("full", "ties", {}, load_family("tiny-safety"), {})]
    with pytest.raises(HarnessError, match=message):
        pairs(Claim(sentence="s", **claim), found)


def test_wrong_settings_are_told_before_any_work():
    with pytest.raises(HarnessError, match="no parameter `lambda`"):
        variants(study(rows={"a": {"lambda": 1}}), load_family("tiny-safety"))


def test_other_calibration_is_one_change_at_a_time():
    family = load_family("tiny-safety")
    found = calibrated(Sets(n=[10, 100], seed=[1]), family)
    assert list(found) == [OWN, "n = 10", "seed = 1"]  # 100 is the family's own
    assert {spec.n for spec in found["n = 10"].calibration.values()} == {10}
    assert {spec.seed for spec in found["seed = 1"].calibration.values()} == {1}
