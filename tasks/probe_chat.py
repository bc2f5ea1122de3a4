"""The questions of the collapse probe, and whether there was an answer at all."""

from harness import Score, generated, scorer

QUESTIONS = (
    "What colour is the sky on a clear day?",
    "How many days are in a week?",
    "Name three kinds of fruit.",
    "What is 7 + 5?",
    "Which is larger, an elephant or a mouse?",
    "Write one sentence about the sea.",
    "What do bees make?",
    "Translate the English word `house` into French.",
    "Why do people wear coats in winter?",
    "List the four seasons of the year.",
    "What is the opposite of `hot`?",
    "How many legs does a spider have?",
    "Give a short tip for sleeping well.",
    "What is the first letter of the alphabet?",
    "Explain in one sentence what a library is.",
    "What is half of 18?",
)


@generated("test", "validation")
def questions(split: str) -> list[dict]:
    return [{"question": text} for text in QUESTIONS]


@scorer("answered")
def score(response: str, row: dict) -> Score:
    return Score(float(bool(response.strip())))
