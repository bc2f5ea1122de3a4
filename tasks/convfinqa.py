"""ConvFinQA: a number, yes or no for each turn of a conversation about a financial report.

A turn's gold answer is the executed one, rounded to five decimals; `same_amount` says what equals it.
"""

from collections.abc import Iterator
from pathlib import Path

from harness import Score, benchmark, scorer
from harness.answers import amount, first_amount, same_amount, yes_no


@benchmark(whole=True)
def rows(content: list | dict, path: Path) -> Iterator[dict]:
    """The turns of `dev_turn.json`, or of the cleaned re-packaging with one conversation per entry."""
    if isinstance(content, dict):
        for entry in content["dev"]:
            yield from _cleaned(entry)
        return
    for turn in content:
        told = turn["annotation"]
        table = [[str(cell) for cell in line] for line in turn["table"]]
        texts = [" ".join(turn[name]) for name in ("pre_text", "post_text")]
        answers = [*told["exe_ans_list"][: len(told["cur_dial"]) - 1], told["exe_ans"]]
        yield _row(f"{turn['id']}/{told['turn_ind']}", texts, table, told["cur_dial"], answers)


def _cleaned(entry: dict) -> Iterator[dict]:
    columns = entry["doc"]["table"]
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    table = [
        ["", *columns],
        *([name, *(str(column.get(name, "")) for column in columns.values())] for name in names),
    ]
    texts = [entry["doc"]["pre_text"], entry["doc"]["post_text"]]
    dialogue = entry["dialogue"]
    for turn, printed in enumerate(dialogue["conv_answers"]):
        questions, answers = dialogue["conv_questions"][: turn + 1], dialogue["executed_answers"][: turn + 1]
        yield _row(f"{entry['id']}/{turn}", texts, table, questions, answers, printed)


def _row(name: str, texts: list, table: list, questions: list, answers: list, printed: str = "") -> dict:
    *before, gold = [_spelt(answer) for answer in answers]
    earlier = "".join(f"Question: {q}\nAnswer: {a}\n" for q, a in zip(questions, before, strict=False))
    lines = "\n".join(f"| {' | '.join(line)} |" for line in table)
    report = "\n\n".join(part for part in (texts[0], lines, texts[1]) if part)
    return {"id": name, "report": report, "earlier": earlier, "question": questions[-1], "answer": gold,
            "printed": printed}  # fmt: skip


def _spelt(answer: float | str) -> str:
    return str(answer).strip().removesuffix(".0")


def _right(found, row: dict) -> Score:
    """The executed answer, or the printed one, which the cleaned data has beside it."""
    same = (
        same_amount(found, float(row["answer"]))
        or bool(row["printed"])
        and same_amount(found, row["printed"])
    )
    return Score(float(same), unparsed=found is None)


def _yes_no(response: str, row: dict) -> Score:
    found = yes_no(response)
    return Score(float(found == row["answer"]), unparsed=found is None)


@scorer("accuracy")
def score(response: str, row: dict) -> Score:
    return _yes_no(response, row) if row["answer"] in ("yes", "no") else _right(amount(response), row)


@scorer("accuracy")
def score_first(response: str, row: dict) -> Score:
    """The rule of the paper's script: the first number of the output."""
    return _yes_no(response, row) if row["answer"] in ("yes", "no") else _right(first_amount(response), row)
