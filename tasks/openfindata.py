"""OpenFinData: the nine sub-tasks that opencompass scores; letters, and names that must all occur."""

from collections.abc import Iterator
from pathlib import Path

from harness import HarnessError, Score, benchmark, scorer
from harness.answers import keyword_recall, letter

OPTIONS = {
    "emotion_identification": "ABC",
    "entity_disambiguation": "ABC",
    "financial_facts": "ABC",
    "data_inspection": "ABCD",
    "financial_terminology": "ABCD",
    "metric_calculation": "ABCD",
    "value_extraction": "ABCD",
    "intent_understanding": "ABCDE",
    "entity_recognition": "",
}


@benchmark(whole=True)
def rows(content: list, path: Path) -> Iterator[dict]:
    """The rows of one of the nine files; none of the others in the release."""
    lacking = [name for name in OPTIONS if not path.with_name(f"{name}.json").exists()]
    if lacking:
        raise HarnessError(
            f"{path.parent} lacks {', '.join(f'`{name}.json`' for name in lacking)}",
            "copy all files of openfindata_release.zip: the score is the mean of nine sub-tasks",
        )
    labels = OPTIONS.get(path.stem)
    for number, row in enumerate(content if labels is not None else ()):
        options = [str(row[label]).strip() for label in labels]
        listed = "".join(f"\n{label}. {option}" for label, option in zip(labels, options, strict=True))
        answer = str(row["answer"] or "").strip()
        if not answer or (labels and answer not in labels):
            raise ValueError(f"`answer` {number} is {row['answer']!r}")
        yield {"id": f"{path.stem}/{number}", "subtask": path.stem, "question": row["question"].strip(),
               "labels": list(labels), "options": options, "listed": listed, "answer": answer}  # fmt: skip


@scorer("accuracy")
def score(response: str, row: dict) -> Score:
    if not row["labels"]:
        return Score(float(keyword_recall(response, row["answer"]) == 1.0), unparsed=not response.strip())
    found = letter(response, row["labels"], row["options"], last=True)
    return Score(float(found == row["answer"]), unparsed=found is None)


def by_subtask(row: dict, results: list) -> dict:
    """lm-eval's process_results with the row's sub-task, for the mean of nine."""
    found = score(row, results)
    return found | {"macro": (row["subtask"], found["accuracy"])}
