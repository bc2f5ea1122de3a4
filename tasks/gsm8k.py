"""GSM8K: the final number, whatever its commas, units and currency."""

from harness import Score, benchmark, scorer
from harness.answers import math_answer, same_math


@benchmark
def rows(row: dict) -> dict:
    _, marked, answer = row["answer"].rpartition("####")
    if not marked:
        raise ValueError("`answer` has no `####` before its number")
    return {"question": row["question"], "answer": answer.strip().replace(",", "")}


@scorer("accuracy")
def score(response: str, row: dict) -> Score:
    found = math_answer(response)
    return Score(float(same_math(found, row["answer"])), unparsed=found is None)
