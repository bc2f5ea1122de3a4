"""AIME 2024: the final integer; `025` is 25."""

from harness import Score, benchmark, scorer
from harness.answers import math_answer, same_math


@benchmark
def rows(row: dict) -> dict:
    """A row of Maxwell-Jia/AIME_2024, or of Qwen2.5-Math's `aime24/test.jsonl` (fields in small letters)."""
    row = {key.lower(): value for key, value in row.items()}
    answer = str(row["answer"]).strip()
    if not answer.isdecimal():
        raise ValueError(f"`answer` is {answer!r}, not an integer")
    return {"id": str(row["id"]), "question": row["problem"], "answer": answer}


@scorer("accuracy")
def score(response: str, row: dict) -> Score:
    found = math_answer(response)
    return Score(float(same_math(found, row["answer"])), unparsed=found is None)
