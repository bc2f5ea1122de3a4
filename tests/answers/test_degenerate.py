"""Broken models write for thousands of tokens; reading that takes a moment and never raises."""

import time

import pytest

from harness.answers import amount, boxed, first_amount, last_letter, letter, math_answer, one_of, same_amount

LENGTH = 200_000
PIECES = """
\\boxed{ | { | } | \\ | $ | $$ | \\( | answer:_ | The answer is A or_ | 答案 | **a | 9 | 9_ | 1,000, | B_
A 股 | (B)_ | yes no_ | is is_ | ____ | ####_ | \\text{ | =_ | \u202e | <think> | 选 | 9.9.9 | -( | *
"""
PIECES = [
    piece.strip().replace("_", " ")
    for line in PIECES.split("\n")
    for piece in line.split("|")
    if piece.strip()
]
PIECES += ["\n", "!\n", "B. x\n", "Final answer\n", "\0"]


@pytest.mark.parametrize("piece", PIECES)
def test_repetition(piece):
    text = piece * (LENGTH // len(piece))
    started = time.process_time()
    math_answer(text), boxed(text), one_of(text), last_letter(text)
    letter(text, "ABCD", ["x", "y", "A patient", "z"], last=True)
    same_amount(amount(text), 7.0), same_amount(first_amount(text), 7.0)
    assert time.process_time() - started < 5


def test_numbers_too_long_for_python():
    for text in ("9" * 10_000, "\\boxed{" + "9" * 900 + "}", "1" + ",000" * 3000, "." + "0" * 9000 + "1"):
        assert not same_amount(amount(text), 7.0)
        assert letter(text) is None
