"""Multiple-choice benchmarks: rows with labelled options, the chosen letter, accuracy by row and subject."""

import hashlib
from collections import defaultdict
from itertools import permutations
from statistics import fmean

from harness import Score, benchmark, scorer
from harness.answers import letter

LETTERS = "ABCDEFGHIJ"
ORDERS = tuple(permutations(range(4)))


def choice(question: str, options: list[str], answer: str, labels=LETTERS, **more) -> dict:
    """A task's row; `answer` is the label of the right option, `listed` the options as in a prompt."""
    labels = list(labels)[: len(options)]
    if answer not in labels:
        raise ValueError(f"the answer {answer!r} is none of {', '.join(labels)}")
    options = [option.strip() for option in options]
    listed = "\n".join(f"{label}. {option}" for label, option in zip(labels, options, strict=True))
    return {"question": question.strip(), "labels": labels, "options": options, "listed": listed,
            "answer": answer, **more}  # fmt: skip


@benchmark
def arc(row: dict) -> dict:
    """A row of allenai/ai2_arc; some have 3 or 5 options, some the labels 1 to 4."""
    found = row["choices"]
    return choice(row["question"], list(found["text"]), row["answerKey"], found["label"])


@benchmark
def mmlu(row: dict) -> dict:
    """A row of cais/mmlu, config `all`."""
    return choice(row["question"], list(row["choices"]), LETTERS[row["answer"]], subject=row["subject"])


@benchmark
def gpqa(row: dict) -> dict:
    """A row of gpqa_diamond.csv. The order of the options follows from the question, so it is the same for
    every model and run."""
    question = row["Question"].strip()
    digest = hashlib.sha256(question.encode()).digest()
    order = ORDERS[int.from_bytes(digest, "big") % len(ORDERS)]
    names = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
    return choice(question, [row[names[i]] for i in order], LETTERS[order.index(0)])


@benchmark
def medqa(row: dict) -> dict:
    """A row of GBaker/MedQA-USMLE-4-options-hf."""
    options = [row[f"ending{number}"] for number in range(4)]
    return choice(f"{row['sent1']} {row['sent2'] or ''}", options, LETTERS[int(row["label"])])


@scorer("accuracy")
def score(response: str, row: dict) -> Score:
    return _score(letter(response, row["labels"], row["options"]), row)


@scorer("accuracy")
def score_plain(response: str, row: dict) -> Score:
    """Of a continuation in plain text; where it names no letter as its answer, its last letter counts."""
    return _score(letter(response, row["labels"], row["options"], last=True), row)


def _score(found: str | None, row: dict) -> Score:
    return Score(float(found == row["answer"]), unparsed=found is None)


def by_subject(row: dict, results: list) -> dict:
    """lm-eval's process_results with the row's subject, for the mean over subjects."""
    return _with_subject(row, score(row, results))


def by_subject_plain(row: dict, results: list) -> dict:
    return _with_subject(row, score_plain(row, results))


def _with_subject(row: dict, found: dict) -> dict:
    return found | {"macro": (row["subject"], found["accuracy"])}


def macro(values: list[tuple[str, float]]) -> float:
    """The mean over subjects of each subject's mean; `values` are (subject, value) of each row."""
    by_name = defaultdict(list)
    for subject, value in values:
        by_name[subject].append(value)
    return fmean(map(fmean, by_name.values()))
