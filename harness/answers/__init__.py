"""Reading the answer out of what a model wrote, and comparing it with the gold answer.

Each function is a rule of some benchmark's scorer; importing this starts nothing and loads nothing heavy.
"""

from harness.answers.equality import comparison_timeouts, same_math, same_math_or_timeout
from harness.answers.finance import Amount, amount, amounts, first_amount, same_amount
from harness.answers.letters import last_letter, letter
from harness.answers.mathematics import boxed, math_answer
from harness.answers.words import keyword_recall, one_of, yes_no

__all__ = [
    "Amount",
    "amount",
    "amounts",
    "boxed",
    "comparison_timeouts",
    "first_amount",
    "keyword_recall",
    "last_letter",
    "letter",
    "math_answer",
    "one_of",
    "same_amount",
    "same_math",
    "same_math_or_timeout",
    "yes_no",
]
