"""MATH-500: the final answer, compared as mathematics (Math-Verify in a worker process with a time limit).

`timed_out` is the share of rows whose comparison was stopped at the limit; they count as wrong.
"""

from harness import Score, benchmark, scorer
from harness.answers import math_answer, same_math_or_timeout


@benchmark
def rows(row: dict) -> dict:
    return {"id": row["unique_id"], "question": row["problem"], "answer": row["answer"]}


@scorer("accuracy", parallel=True)
def score(response: str, row: dict) -> Score:
    found = math_answer(response)
    same = same_math_or_timeout(found, row["answer"])
    return Score({"accuracy": float(same is True), "timed_out": float(same is None)}, unparsed=found is None)
