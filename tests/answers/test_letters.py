"""Letters of multiple-choice answers, as models write them, and what only looks like one."""

import pytest

from harness.answers import last_letter, letter

CHOSEN = [
    ("\\boxed{B}", "B"),
    ("\\boxed{\\text{B}}", "B"),
    ("\\boxed{(C)}", "C"),
    ("$\\boxed{\\textbf{(D)}}$", "D"),
    ("\\boxed{B. some text}", "B"),
    ("The answer is (B)", "B"),
    ("The answer is B.", "B"),
    ("The correct answer is **C**.", "C"),
    ("The answer is [C]", "C"),
    ("The answer is 'B'", "B"),
    ("The answer is B because it fits.", "B"),
    ("The answer is A because it fits.", "A"),
    ("the answer would be D", "D"),
    ("My final answer is: \\(\\boxed{C}\\)", "C"),
    ("Answer: b", "B"),
    ("Answer: (b)", "B"),
    ("**Answer:** D", "D"),
    ("ANSWER: D", "D"),
    ("### Final Answer\nB", "B"),
    ("Answer:\n\n**D**", "D"),
    ("B", "B"),
    ("b", "B"),
    ("(b)", "B"),
    ("B.", "B"),
    ("**B**", "B"),
    ("B) some text", "B"),
    ("B. some text\n\nIt is so because of this.", "B"),
    ("Option B is correct.", "B"),
    ("(C) is the correct answer.", "C"),
    ("Therefore, the best choice is option C.", "C"),
    ("I would choose D.", "D"),
    ("Therefore, B.", "B"),
    ("Answer is not A. Answer: C", "C"),
    ("A. x\nB. y\nC. z\nD. w\n\nB", "B"),
    ("We conclude.\n\nIt must be (C).", "C"),
    ("答案：B", "B"),
    ("答案是B", "B"),
    ("正确答案为 C。", "C"),
    ("故选D", "D"),
    ("答案：（B）", "B"),
    ("答案：Ｂ", "B"),
    ("【答案】C", "C"),
    ("综上，答案为B。A股市场不受影响", "B"),
    ("选项A：收入\n选项B：利润\n答案：B", "B"),
]
NONE = [
    "",
    "A patient presents with pain.",
    "The answer is A patient with pain",
    "The answer is a patient with pain",
    "The answer is B-cell lymphoma",
    "The answer is A or B",
    "The answer is (A) and (C).",
    "Both fit: A. x\nB. y\nC. z",
    "I think (A) is wrong, (C) fits.",
    "答案：A股",
    "A股上涨",
    "The answer is \\boxed{B",
    "There is no answer.",
    "The answer is 42.",
    "Vitamin B and hepatitis C",
]


@pytest.mark.parametrize(("text", "label"), CHOSEN)
def test_chosen(text, label):
    assert letter(text) == label


@pytest.mark.parametrize("text", NONE)
def test_none_chosen(text):
    assert letter(text) is None


OPTIONS = ["Staphylococcus", "Ringworm", "E. coli", "B cells", "A large loss"]


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("The answer is E. coli.", "C"),
        ("\\boxed{E. coli}", "C"),
        ("The answer is E. coli, because it grows there.", "C"),
        ("The answer is B cells", "D"),
        ("answer: A large loss", "E"),
        ("**B cells**", "D"),
        ("D. B cells", "D"),
        ("The answer is (E) A large loss", "E"),
        ("\\boxed{\\text{Ringworm}}", "B"),
        ("ringworm", "B"),
        ("The answer is worms.", None),
        ("D. Ringworm", None),
    ],
)
def test_the_text_of_an_option(text, label):
    assert letter(text, "ABCDE", OPTIONS) == label


def test_a_text_that_two_options_share_chooses_none():
    assert letter("The answer is both.", "ABC", ["both", "Both", "none"]) is None


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("The answer is (3)", "3"),
        ("3", "3"),
        ("3. water", "3"),
        ("\\boxed{2}", "2"),
        ("The answer is 1.5", None),
        ("The answer is 12", None),
        ("The answer is 5", None),
    ],
)
def test_labels_that_are_numbers(text, label):
    assert letter(text, "1234") == label


def test_a_label_beyond_the_options_is_none():
    assert letter("The answer is D.", "ABC") is None
    assert letter("The answer is E.", "ABCDE") == "E"


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("因此B更合理，A股不受影响", "B"),
        ("选B，A股上涨", "B"),
        ("It is C. A patient like this recovers.", "C"),
        ("A股和B股", None),
        ("USA, CD and DVD", None),
        ("B-cells, then D", "D"),
    ],
)
def test_the_last_letter_that_stands_alone(text, label):
    assert last_letter(text) == label


def test_the_last_letter_is_only_used_when_asked_for():
    assert letter("Perhaps B fits and so D") is None
    assert letter("Perhaps B fits and so D", last=True) == "D"
    assert letter("The answer is A or B. See D", last=True) is None
