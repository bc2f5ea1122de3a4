"""Every gold answer of the given rows, written as chat models write it, scores 1; a wrong one scores 0."""

import re

import pytest
from real import lay_out, rows_of, scored

from harness.answers import same_math

THOUGHT = "<think>\nIt could be \\boxed{424242}, or is the answer (A)? The answer is no: yes.\n</think>\n\n"
MATH = [
    "Adding up gives the result.\n\n\\[ \\boxed{%s} \\]",
    "So we get $\\boxed{ %s }$.",
    "The answer is $%s$.",
    "Step 1: 12 of 30 are left.\n\n**Final Answer:** $%s$",
    "### Final Answer\n\\(%s\\)",
    "Therefore, the final answer is:\n\n$$%s$$",
    "$\\fbox{7}$ is too few. The correct answer is \\(\\boxed{%s}\\), as required.",
]
NUMBER = [
    "The answer is %s.",
    "Answer: %s",
    "**%s**",
    "5 - 2 = 3 and so on.\n\nThe answer is **%s**.",
    "#### %s",
    "Half of them are gone, so the total is **%s dollars**.",
    "The final answer is %s dollars.",
    "That makes $%s.00$ in all.",
    "\\boxed{\\$%s}",
    "\\boxed{%s\\text{ dollars}}",
    "9 + 9 = %s",
]
LETTER = [
    "\\boxed{%s}",
    "The lungs come first, so $\\boxed{\\text{%s}}$.",
    "The answer is %s.",
    "Because of the heart, the correct answer is (%s).",
    "**Answer: %s**",
    "Answer: %s",
    "A patient like this needs care.\n\nAnswer: (%s)",
    "%s",
    "(%s)",
    "**%s**",
    "%s.",
    "After weighing all, option %s is correct.",
    "答案：%s",
    "综上所述，答案是%s。A股市场不受影响。",
    "The final answer is: **(%s)**",
    "Answer:\n\n%s",
    "I would choose %s because the others do not fit.",
]
WITH_TEXT = [
    "{0}. {1}",
    "**{0}. {1}**\n\nThe other options do not fit: none of them explains it.",
    "The best choice is {0}) {1}",
    "The correct answer is **{0}: {1}**.",
    "Answer: {0}. {1}",
    "The answer is: {1}",
    "\\boxed{{{0}. {1}}}",
    "The answer is\n\n{1}",
]

YES_NO = [
    "\\boxed{%s}",
    "\\boxed{\\text{%s}}",
    "The answer is %s.",
    "**%s**",
    "Answer: %s",
    "%s",
    "**Answer:** %s",
    "%s, the groups differ.",
    "The trial found no effect of note.\n\nAnswer: %s",
]


@pytest.fixture(scope="module", autouse=True)
def data(tmp_path_factory):
    home = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_DATA", str(home))
        lay_out(home)
        yield


def check(task, row, right, wrong):
    for response in right:
        for whole in (response, THOUGHT + response):
            told = scored(task, row, whole)
            assert told["accuracy"] == 1.0 and not told["unparsed"], (row, whole)
    for response in wrong:
        told = scored(task, row, THOUGHT + response)
        assert told["accuracy"] == 0.0 and not told["unfinished"], (row, response)
    left_open = scored(task, row, "<think>" + right[0])
    assert left_open["accuracy"] == 0.0 and left_open["unfinished"] == 1.0


@pytest.mark.parametrize(("task", "count"), [("gsm8k", 300), ("gsm8k_paper", 300), ("aime24", 12)])
def test_numbers(task, count):
    rows = rows_of(task)
    assert len(rows) == count
    for row in rows:
        gold = row["answer"]
        other = str(int(gold) + 1)
        spelt = [gold, f"{int(gold):,}"]
        right = [style % text for style in MATH + NUMBER for text in spelt]
        check(task, row, right, [style % other for style in MATH + NUMBER] + ["", "I do not know."])


def test_math500():
    rows = rows_of("math500")
    assert len(rows) == 200
    for row, another in zip(rows, rows[1:] + rows[:1], strict=True):
        right = [style % row["answer"] for style in MATH]
        wrong = [] if same_math(another["answer"], row["answer"]) else [MATH[0] % another["answer"]]
        wrong += [MATH[0] % f"{row['answer']} + 1"] if re.fullmatch(r"-?\d+", row["answer"]) else []
        check("math500", row, right, wrong)


CHOICE = {"arc_c": 50, "arc_c_paper": 50, "mmlu": 285, "mmlu_paper": 285, "medqa": 50, "medqa_paper": 50}


@pytest.mark.parametrize(("task", "count"), CHOICE.items())
def test_letters(task, count):
    rows = rows_of(task)
    assert len(rows) == count
    for row in rows:
        gold = row["answer"]
        texts = dict(zip(row["labels"], row["options"], strict=True))
        other = next(label for label in row["labels"] if texts[label] != texts[gold] and label != gold)
        right, wrong = (
            [style % label for style in LETTER] + [style.format(label, texts[label]) for style in WITH_TEXT]
            for label in (gold, other)
        )
        check(task, row, right + [f"Answer: {gold.lower()}"], wrong + [""])


def test_pubmedqa():
    rows = rows_of("pubmedqa")
    assert len(rows) == 100 and {row["answer"] for row in rows} == {"yes"}
    styles = YES_NO
    for row in rows:
        for spell in (str, str.capitalize):
            wrong = [style % spell(word) for style in styles for word in ("no", "maybe")]
            check(
                "pubmedqa", row, [style % spell("yes") for style in styles], [*wrong, "Yesterday it was so."]
            )


def percent(value, decimals=2):
    return f"{value * 100:.{decimals}f}%"


@pytest.mark.parametrize("task", ["convfinqa", "convfinqa_paper"])
def test_convfinqa(task):
    rows = rows_of(task)
    assert len(rows) == 121
    styles = ["\\boxed{%s}", "The answer is %s.", "**%s**", "Answer: %s", "#### Answer\n\n%s"]
    for row in rows:
        gold = float(row["answer"])
        spelt = [row["answer"], row["printed"], f"${gold:,.2f}" if gold > 1 else percent(gold)]
        if gold < 0:
            spelt += [f"({percent(-gold)})", f"({percent(-gold)[:-1]})%", f"−{-gold}"]
        if row["printed"].endswith("%"):
            spelt += [percent(gold).replace("%", "\\%"), percent(gold, 1).replace("%", " percent")]
        right = [style % text for style in styles for text in spelt]
        wrong = [style % text for style in styles for text in (f"{gold + 1:.5f}", f"{-2 * gold - 1:.3f}", "")]
        check(task, row, right, wrong)
