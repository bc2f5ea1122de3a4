"""How grids are written and checked: nothing wrong gets as far as any work."""

import pytest

from harness.errors import HarnessError
from harness.family import load_family
from harness.sweep import grid


def test_lists_ranges_and_logarithmic_ranges():
    found = grid.axes(["scale=0.1,0.5,1", "p=0.1:0.5:0.1", "density=log:0.001:0.1:3", "score=gradient,snip"])
    assert found == {"scale": [0.1, 0.5, 1], "p": [0.1, 0.2, 0.3, 0.4, 0.5], "density": [0.001, 0.01, 0.1],
                     "score": ["gradient", "snip"]}  # fmt: skip
    assert grid.axes(["interval=[0,0.05],[0.05,0.1]"]) == {"interval": [[0, 0.05], [0.05, 0.1]]}
    assert grid.axes(["use_task=true,false"]) == {"use_task": [True, False]}
    assert grid.axes(["p=log:0.01:1", "scale=0:2"]) == {
        "p": grid.Span(0.01, 1, True),
        "scale": grid.Span(0, 2),
    }


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["scale"], "names no values"),
        (["=1,2"], "names no values"),
        (["scale="], "has no values"),
        (["scale=1,,2"], "cannot be read|empty one"),
        (["scale=1,1"], "names a value twice"),
        (["scale=1", "scale=2"], "names `scale` twice"),
        (["scale=1:0:0.1"], "empty range"),
        (["scale=0:1:0"], "empty range"),
        (["scale=0:1:x"], "'x' is no number"),
        (["scale=0:1:1e-6"], "has 1000001 values"),
        (["p=0.1:0.9:5"], "one value: its step"),
        (["p=log:0:1:5"], "no logarithmic range"),
        (["p=log:0.1:1:1"], "no logarithmic range"),
        (["p=log:0:1"], "empty range"),
        (["p=1:1"], "empty range"),
    ],
)
def test_a_grid_that_is_none_is_refused(texts, message):
    with pytest.raises(HarnessError, match=message) as error:
        grid.axes(texts)
    assert error.value.hint


@pytest.mark.parametrize(
    ("axes", "fixed", "message"),
    [
        ({"lambda": [1.0]}, {}, "no parameter `lambda`"),
        ({"p": [0.1, 2.0]}, {}, "`p` of method `reasonany` is 2.0, out of range"),
        ({"p": grid.Span(0, 1.5)}, {}, "`p` of method `reasonany` is 1.5, out of range"),
        ({"score": ["gradients"]}, {}, "`score` of method `reasonany` is 'gradients'"),
        ({"p": [0.1]}, {"p": 0.2}, "swept and set at once"),
    ],
)
def test_parameters_and_values_are_checked_before_any_work(axes, fixed, message):
    with pytest.raises(HarnessError, match=message):
        grid.check("reasonany", axes, fixed)


def test_points_are_all_combinations_and_a_million_need_a_budget():
    assert grid.points({"a": [1, 2], "b": [3, 4]}) == [
        {"a": 1, "b": 3}, {"a": 1, "b": 4}, {"a": 2, "b": 3}, {"a": 2, "b": 4}
    ]  # fmt: skip
    many = {name: list(range(10)) for name in "abcdef"}
    with pytest.raises(HarnessError, match="the grid has 1000000 points"):
        grid.points(many)
    with pytest.raises(HarnessError, match="is a span"):
        grid.points({"p": grid.Span(0, 1)})
    with pytest.raises(HarnessError, match="nothing to sweep over"):
        grid.points({})


def test_a_point_is_a_row_of_the_family_and_tuning_is_not_on_the_test_split():
    family = load_family("tiny-safety")
    points = grid.points({"scale": [0.5, 1.0]})
    rows = {grid.label("reasonany", point): {"method": "reasonany", "p": 0.1, **point} for point in points}
    swept = grid.family_of(family, rows, "validation")
    assert [(row.label, row.settings) for row in swept.rows()] == [
        ("reasonany scale=0.5", {"p": 0.1, "scale": 0.5}), ("reasonany scale=1", {"p": 0.1, "scale": 1.0})
    ]  # fmt: skip
    assert swept.split == "validation" and family.split == "test" and swept.name == family.name


def test_rows_of_different_settings_have_different_labels():
    labels = {grid.label("ties", {"density": value}) for value in (0.1234567, 0.1234568, 1e-7, 2e-7)}
    assert len(labels) == 4 and grid.label("ties", {"density": 0.1 + 0.2}) == "ties density=0.3"
