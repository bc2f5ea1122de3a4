"""Strict scoring of the tiny chains: what follows the thinking must be `answer N` and nothing else."""

import re

from harness import Score, generated, scorer
from harness.families.tiny import data

ANSWER = re.compile(r"answer ([0-9]+)")


@generated("test", "validation")
def chains(split: str) -> list[dict]:
    return data.rows("chain", split)


@scorer("accuracy")
def score(response: str, row: dict) -> Score:
    found = ANSWER.fullmatch(response.strip())
    if found is None:
        return Score(0.0, unparsed=True)
    return Score(float(int(found[1]) == int(row["answer"])))
