"""PubMedQA: yes, no or maybe; accuracy, and F1 averaged over the three answers."""

import json
from collections.abc import Iterator
from pathlib import Path

from harness import HarnessError, Score, benchmark, scorer
from harness.answers import one_of
from harness.task import strip_thinking

ANSWERS = ("yes", "no", "maybe")
GOLD = "test_ground_truth.json"


@benchmark(whole=True)
def rows(content: dict, path: Path) -> Iterator[dict]:
    """The rows of `ori_pqal.json` that the official list beside it selects; of that list, its entries."""
    if path.name == GOLD:
        yield from ({"id": name, "answer": answer} for name, answer in content.items())
        return
    for name, answer in _test_answers(path.with_name(GOLD)).items():
        if answer not in ANSWERS:
            raise HarnessError(f"{path.with_name(GOLD)}: `{name}` is {answer!r}", "it is yes, no or maybe")
        if name in content:
            row = content[name]
            sections = zip(row["LABELS"], row["CONTEXTS"], strict=True)
            abstract = "\n".join(f"{label}: {text}" for label, text in sections)
            yield {"id": name, "question": row["QUESTION"], "abstract": abstract, "answer": answer}


def _test_answers(path: Path) -> dict[str, str]:
    if not path.exists():
        raise HarnessError(f"{path} is missing", "it lists the 500 test questions; fetch it with the others")
    return json.loads(path.read_text(encoding="utf-8"))


@scorer("accuracy")
def score(response: str, row: dict) -> Score:
    found = one_of(response, ANSWERS)
    return Score(float(found == row["answer"]), unparsed=found is None)


def judged(row: dict, results: list) -> dict:
    """lm-eval's process_results, with what macro-F1 is made of: the gold answer and each response's."""
    responses = results[0] if isinstance(results[0], list) else results[:1]
    given = [one_of(strip_thinking(response)[0], ANSWERS) or "" for response in responses]
    return score(row, results) | {"macro_f1": (row["answer"], *given)}


def macro_f1(values: list[tuple[str, ...]]) -> float:
    """F1 of each answer against the others, averaged over those that occur; no answer is a wrong one."""
    pairs = [(gold, given) for gold, *told in values for given in told]
    seen = [answer for answer in ANSWERS if any(answer in pair for pair in pairs)]
    return sum(_f1(answer, pairs) for answer in seen) / len(seen)


def _f1(answer: str, pairs: list[tuple[str, str]]) -> float:
    right = sum(gold == given == answer for gold, given in pairs)
    return 2 * right / sum((gold == answer) + (given == answer) for gold, given in pairs)
