"""Answers that are a word, and answers that must name things."""

import pytest

from harness.answers import keyword_recall, one_of, yes_no


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("Yes", "yes"),
        ("**Yes**", "yes"),
        ("Yes — the groups differ.", "yes"),
        ("No, it does not.", "no"),
        ("The answer is yes.", "yes"),
        ('The answer is: "yes"', "yes"),
        ("The answer is no because the groups are equal", "no"),
        ("\\boxed{maybe}", "maybe"),
        ("\\boxed{\\text{no}}", "no"),
        ("Answer: **maybe**", "maybe"),
        ("### Answer\nNo", "no"),
        ("No effect was seen at first.\n\nMaybe.", "maybe"),
        ("Answer: yes\nNo, wait. Answer: no", "no"),
        ("No evidence was found", None),
        ("There is no answer", None),
        ("Yesterday it rained.", None),
        ("The answer is not known", None),
        ("", None),
    ],
)
def test_one_of(text, word):
    assert one_of(text) == word


def test_yes_no_knows_no_maybe():
    assert yes_no("Answer: maybe") is None and yes_no("Answer: no") == "no"


def test_keyword_recall():
    assert keyword_recall("提及甲公司和乙公司。", "甲公司、乙公司") == 1.0
    assert keyword_recall("只提及甲公司。", "甲公司、乙公司") == 0.5
    assert keyword_recall("", ["甲公司"]) == 0.0
    with pytest.raises(ValueError):
        keyword_recall("甲", "、")
