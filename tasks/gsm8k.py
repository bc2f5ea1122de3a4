"""GSM8K: the number in the last box, compared as a number."""

from harness import Score, benchmark, scorer


@benchmark
def rows(row: dict) -> dict:
    return {
        "question": row["question"],
        "answer": row["answer"].rpartition("####")[2].strip().replace(",", ""),
    }


@scorer("accuracy")
def score(response: str, row: dict) -> Score:
    _, found, rest = response.rpartition("\\boxed{")
    given = rest.partition("}")[0].strip()
    return Score(float(given == row["answer"]), unparsed=not found)
