"""What a mathematics response states as its answer, and what equals it."""

import pytest

from harness.answers import boxed, math_answer, same_math


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("\\boxed{7}", "7"),
        ("\\boxed{\\frac{1}{\\sqrt{2}}}", "\\frac{1}{\\sqrt{2}}"),
        ("\\boxed{1} then \\boxed{2}", "2"),
        ("\\boxed 7", "7"),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("\\boxed{7} and \\boxed{8", "7"),
        ("\\boxed{}", None),
        ("\\boxed{\\frac{1}{2}", None),
        ("\\boxedsomething{7}", None),
        ("", None),
    ],
)
def test_boxed(text, content):
    assert boxed(text) == content


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        ("The answer is 18.", "18"),
        ("The answer is $18 per day.", "18"),
        ("#### 7", "7"),
        ("#### 1,200.", "1200"),
        ("**18**", "18"),
        ("She makes **$18** every day.", "18"),
        ("9 * 2 = $18", "18"),
        ("The final answer is: $\\frac{3}{4}$.", "\\frac34"),
        ("Final Answer\n\n42", "42"),
        ("**Answer: 18**", "18"),
        ("**Final Answer:** $18$ dollars", "18"),
        ("The answer is \\(x = 5\\).", "x=5"),
        ("The answer is (3, 4].", "(3,4]"),
        ("The answer is 1/2", "\\frac12"),
        ("The answer is Evelyn.", "\\text{Evelyn}"),
        ("the answer is\n$$\\frac{1}{2}$$", "\\frac{1}{2}"),
        ("$x=\\boxed{1}$ or $x=\\boxed{-2}$", "1,-2"),
        ("The answer is not 5. So the answer is 6.", "6"),
        ("We first get \\boxed{3}. Checking again, it is \\boxed{4}.", "4"),
    ],
)
def test_an_answer_is_found(text, gold):
    assert same_math(math_answer(text), gold)


@pytest.mark.parametrize(
    "text", ["", "so 3 apples and 4 pears", "I do not know.", "\\boxed{\\frac{1}{2}", "a\n\nb"]
)
def test_no_answer(text):
    assert math_answer(text) is None


EQUAL = [
    ("25", "025"),
    ("1200", "$1,200.00"),
    ("1200", "\\$1{,}200"),
    ("10,\\!080", "10080"),
    ("18", "18 dollars"),
    ("18", "18\\text{ dollars}"),
    ("5", "5.0"),
    ("0.5", ".5"),
    ("-4", "−4"),
    ("10\\%", "10"),
    ("10\\%", "0.1"),
    ("0.15", "15\\%"),
    ("90^\\circ", "90"),
    ("90^\\circ", "90^{\\circ}"),
    ("90", "90°"),
    ("\\frac43", "\\dfrac{4}{3}"),
    ("\\frac{4}{3}", "\\tfrac43"),
    ("\\frac{4}{3}", "\\frac{8}{6}"),
    ("1.25", "\\frac54"),
    (".0000672", "6.72 \\times 10^{-5}"),
    ("\\frac{270}7\\text{ degrees}", "\\frac{270}{7}"),
    ("\\left( 3, \\frac{\\pi}{2} \\right)", "(3, \\pi/2)"),
    ("(-\\infty, 2) \\cup (3, \\infty)", "\\left(-\\infty,2\\right)\\cup\\left(3,\\infty\\right)"),
    ("(3,4]", "(3, 4]"),
    ("1,-2", "-2, 1"),
    ("\\{1, 2\\}", "\\{2, 1\\}"),
    ("x=5", "5"),
    ("5", "x = 5"),
    ("1+274i", "1 + 274 i"),
    ("52_8", "52_{8}"),
    ("52_8", "52"),
    ("11\\sqrt2", "11\\sqrt{2}"),
    ("1 \\pm \\sqrt{19}", "1+\\sqrt{19}, 1-\\sqrt{19}"),
    (
        "\\begin{pmatrix} -1/3 \\\\ 2/3 \\end{pmatrix}",
        "\\begin{pmatrix} -\\frac13 \\\\ \\frac23 \\end{pmatrix}",
    ),
    ("(a+5)(b+2)", "(b+2)(a+5)"),
    ("\\text{(B)}", "B"),
    ("\\text{(B)}", "\\textbf{(B)}"),
    ("\\text{Evelyn}", "evelyn."),
    ("\\text{even}", "\\text{Even}"),
]
DIFFERENT = [
    ("25", "25.5"),
    ("25", "2.5"),
    ("1200", "1,20"),
    ("1200", "12,000"),
    ("-4", "4"),
    ("10\\%", "1"),
    ("\\frac43", "\\frac34"),
    ("\\frac{1}{3}", "0.33"),
    ("(3,4]", "(3,4)"),
    ("(3,4]", "[3,4]"),
    ("(6,31,-1)", "(31,6,-1)"),
    ("p - q", "q - p"),
    ("52_8", "52_9"),
    ("52_8", "53_8"),
    ("1,-2", "1"),
    ("1,-2", "1,-2,3"),
    ("\\text{(B)}", "(C)"),
    ("\\text{even}", "odd"),
    ("\\text{Evelyn}", "\\text{Carla and Evelyn}"),
    ("30^\\circ", "\\frac{\\pi}{6}"),
    ("\\pi", "3.14"),
    ("7", ""),
    ("7", "seven"),
]


@pytest.mark.parametrize(("gold", "found"), EQUAL)
def test_equal(gold, found):
    assert same_math(found, gold)


@pytest.mark.parametrize(("gold", "found"), DIFFERENT)
def test_different(gold, found):
    assert not same_math(found, gold)
