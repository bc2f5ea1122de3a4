"""Exact match of the tiny facts, and their rows."""

from harness import Score, generated, scorer
from harness.families.tiny import data


@generated("test", "validation")
def facts(split: str) -> list[dict]:
    return data.rows("facts", split)


@scorer("accuracy")
def score(response: str, row: dict) -> Score:
    answer = response.strip()
    return Score(float(answer == row["answer"]), unparsed=not answer)
