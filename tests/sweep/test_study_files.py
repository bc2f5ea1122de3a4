"""Every study that is shipped fits the tiny family, and says in its claims what there is to compare."""

import re
from pathlib import Path

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
        ({}, "or else `calibration:`"),
        ({"rows": {"a": {}}, "calibration": {}}, "or else `calibration:`"),
        ({"rows": "family", "grid": {"p": [0.1]}}, "or else `calibration:`"),
        ({"grid": {"p": []}}, "no values of `p`"),
        ({"grid": {key: list(range(100)) for key in "abc"}}, "1000000 points; the most is 1000"),
        ({"rows": {"base": {}}}, "called `base`"),
        ({"grid": {"p": [0.1]}, "spread": "q"}, "no axis of the grid"),
        (
            {
                "grid": {"p": [0.1]},
                "claims": [{"sentence": "s", "row": "a", "than": "b", "steadier_over": "q"}],
            },
            "no axis of the grid",
        ),
        (
            {
                "rows": {"a": {}},
                "claims": [{"sentence": "s", "row": "a", "than": "b", "steadier_over": "p", "within": 0.1}],
            },
            "not both",
        ),
        ({"rows": {"a": {}}, "rowz": 1}, "rowz"),
    ],
)
def test_a_study_that_is_none_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        study(**given)


def test_rows_and_a_grid_are_every_row_at_every_point():
    found = variants(
        study(rows={"a": {"exclusion": "none"}, "b": {"scale": 2.0}}, grid={"p": [0.1, 0.2]}),
        load_family("tiny-safety"),
    )
    assert [(v.label, dict(v.settings)) for v in found] == [
        ("a, p=0.1", {"exclusion": "none", "p": 0.1}), ("a, p=0.2", {"exclusion": "none", "p": 0.2}),
        ("b, p=0.1", {"scale": 2.0, "p": 0.1}), ("b, p=0.2", {"scale": 2.0, "p": 0.2}),
    ]  # fmt: skip
    claim = Claim(sentence="s", row={"row": "b"}, than={"row": "a"}, steadier_over="p")
    assert pairs(claim, found) == [("b, p=0.1", "a, p=0.1"), ("b, p=0.2", "a, p=0.2")]


@pytest.mark.parametrize(
    ("text", "told", "hint"),
    [
        ("title: t\nmethod: ties\nrow: {a: {}}\n", "yaml:3: unknown key `row`", "`rows`"),
        ("title: t\nmethod: ties\nrows: {a: {}}\nclaims:\n- {sentence: s, row: a, then: base}\n",
         "yaml:5: unknown key `then`", "`than`"),
        ("title: t\nmethod: ties\nrows: {a: {}}\nseeds: some\n", "yaml:4: `seeds`: ", "selection"),
        ("title: t\nrows: {a: {}}\n", "row 'a' names no `method:`", "selection"),
        ("title: t\ngrid: {p: [1]}\n", "the study names no `method:`", "selection"),
        ("title: [t\n", "mine.yaml:2", "line"),
        ("- a\n- b\n", "expected keys and values", "key: value"),
        ("title: t\ntitle: u\n", "`title` stands twice", "line 1"),
    ],
)  # fmt: skip
def test_a_wrong_file_names_its_line_and_key(tmp_path, text, told, hint):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(HarnessError) as error:
        load_study(str(path))
    assert told in error.value.message and hint in error.value.hint, (error.value.message, error.value.hint)


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


def test_the_papers_numbers_are_those_of_its_tables():
    told = load_study("intervals").printed()
    assert told.startswith("GSM8K of qwen7b-safety in arXiv:2601.05560, table 15: 0–5 % 70.79, 5–10 % 1.36, ")
    assert told.endswith("base 70.04, reasoning 84.83") and "cumulative" not in told
    assert "10 % 83.18" in load_study("cumulative").printed() and load_study("selection").printed() == ""
    for name in SHIPPED:
        known = [variant.label for variant in variants(load_study(name), load_family("tiny-safety"))]
        assert set(load_study(name).published) <= set(known)
    with pytest.raises(ValueError, match="have no 'interval_0_6'"):
        study(rows={"a": {}}, published={"a": "interval_0_6"})


def test_the_example_of_the_docs_is_a_study(tmp_path):
    page = Path(__file__).parents[2] / "docs" / "studies.md"
    (text,) = re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)
    (tmp_path / "mine.yaml").write_text(text)
    mine = load_study(str(tmp_path / "mine.yaml"))
    found = variants(mine, load_family("tiny-safety"))
    assert len(found) == 4 and [len(pairs(claim, found)) for claim in mine.claims] == [2, 2, 2]
    listed = set(re.findall(r"^\| `([a-z-]+)` \|", page.read_text(), re.MULTILINE))
    assert listed == set(SHIPPED)
