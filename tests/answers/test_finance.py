"""Amounts: how they are written, and which equal a gold answer."""

import pytest

from harness.answers import amount, amounts, first_amount, same_amount

RIGHT = [
    ("-3.2%", -0.032),
    ("(3.2)%", -0.032),
    ("(3.2%)", -0.032),
    ("−3.2 percent", -0.032),
    ("negative 3.2%", -0.032),
    ("-0.032", -0.032),
    ("$1,200.00", 1200),
    ("$(1,234)", -1234),
    ("($1,234)", -1234),
    ("-$5", -5),
    ("$-5", -5),
    ("EUR 12.5", 12.5),
    ("¥1,041.5 million", 1041.531),
    ("\\boxed{\\$1.04 \\text{ billion}}", 1041.531),
    ("\\boxed{-21.05\\%}", -0.21053),
    ("\\boxed{10.83\\%}", 10.82621),
    ("\\boxed{\\frac{1}{2} \\approx 0.5}", 0.5),
    ("\\boxed{1{,}041{,}531}", 1041531),
    ("The answer is 142.4%", 1.42403),
    ("The answer is: 60.94 - 25.14 = 35.80", 35.8),
    ("60.94 - 25.14 = 35.80", 35.8),
    ("The change was **-10**.", -10),
    ("about 2.2 million", 2200),
    ("about 2.2 million", 2_200_000),
    ("1.2 \\times 10^{3}", 1200),
    ("0.13", 0.12574),
    ("4.27", 4.26667),
    ("-0.2105263", -0.21053),
    (".0751", 0.07513),
]
WRONG = [
    ("8%", 0.0914),
    ("8%", 0.0814),  # one digit is too little to be a rounding
    ("4", 4.26667),
    ("2012", 2008),
    ("-3.2%", 0.032),
    ("3.2", 0.032),
    ("8.14", 0.0814),
    ("965636", 965635),
    ("2.2", 2200),
    ("2200", 2525),
    ("2005-2007", -2007),
    ("35.8 and 36.9", 35.8),
    ("", 0),
    ("no number", 0),
]


@pytest.mark.parametrize(("text", "gold"), RIGHT)
def test_right(text, gold):
    assert same_amount(amount(text), gold)


@pytest.mark.parametrize(("text", "gold"), WRONG)
def test_wrong(text, gold):
    assert not same_amount(amount(text), gold)


def test_tolerance_is_relative_and_off_unless_asked_for():
    assert not same_amount(amount("101"), 100)
    assert same_amount(amount("101"), 100, tolerance=0.01)
    assert not same_amount(amount("102"), 100, tolerance=0.01)


def test_gold_as_text():
    assert same_amount(amount("$1,200"), "1200.00") and same_amount(amount("0.032"), "3.2%")
    assert not same_amount(amount("7"), "no number")


def test_the_first_number_is_the_papers_rule():
    assert first_amount("In 2007 it was 60.94").value == 2007
    assert first_amount("$60.94 in 2007").value.limit_denominator(100) == first_amount("60.94").value
    assert first_amount("none") is None
    assert first_amount("Q3 of FY2012: (5)").value == -5


def test_amounts_in_order():
    found = amounts("from 2005-2007 the 10-K says 3.5 and (2,000)")
    assert [float(item.value) for item in found] == [2005, 2007, 10, 3.5, -2000]
