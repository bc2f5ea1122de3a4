"""A small board with everything a page shows, a results folder behind it, and texts that attack a page."""

import json
from pathlib import Path

import yaml

from harness.board import Average, Board, BoardRow, Cell, Heading
from harness.board import Test as Comparison
from harness.evaluate.results import write_samples

ASSETS = Path(__file__).parents[2] / "reports" / "html"
HOSTILE = [
    "</script><script>window.hit = 1</script>",
    "<!--<script>",
    '<img src=x onerror="window.hit = 2">',
    "<svg onload=alert(1)><script>alert(2)</script></svg>",
    '"><a href="javascript:window.hit = 3">press</a>',
    "<style>body { display: none }</style><base href=//example.org/>",
    "<meta http-equiv=refresh content=0;url=//example.org>",
    "{{script}} {{blocks}} ${window.hit = 4} <%= 5 %>",
    "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x00 end",
    "\u202egnp.exe\u202c \u2066hidden\u2069 \u200f\u061c",
    "\u2028var x\u2029 \ufeff\u00ad",
    "\u05e9\u05dc\u05d5\u05dd answer \u0645\u0631\u062d\u0628\u0627",
    "x" * 2**20,
    "\n" * 3000 + "end",
    "\U0001f600" * 5000,
]
LABELS = ["base", "reasoning", "Linear", "TIES", "ReasonAny", "<img src=x onerror='window.hit=5'>"]
GOOD = {"base": 0.25, "reasoning": 1.0, "Linear": 0.5, "TIES": 0.0, "ReasonAny": 0.75}


def right(label, item):
    """Whether a row answers a question: the first share of every four."""
    return (item % 4) < 4 * GOOD.get(label, 0.5)


def headings():
    return [
        Heading("gsm", "accuracy", "GSM8K", "Reasoning", True, "accuracy", detectable=0.3),
        Heading("mc", "acc", "ARC", "Knowledge", True, "accuracy"),
        Heading("harm", "attack", "HarmBench", "Safety", False, "accuracy"),
        Heading("prose", "word_perplexity", "PPL", "Perplexity", False, "perplexity"),
    ]


def make(results, family="fam", items=20, texts=()):
    """(board, report folder) of `results/family`; `texts` replace the first responses to `gsm`."""
    root = results / family
    report = root / "report"
    report.mkdir(parents=True)
    rows = [_row(root, label, items, texts) for label in LABELS]
    rows[3].collapsed = ["empty 90 %"]
    rows[2].stale = True
    rows[2].cells["gsm", "accuracy"].second = rows[4].cells["gsm", "accuracy"].best = True
    best = rows[4].cells["gsm", "accuracy"]
    best.paper, best.paper_note, best.footnotes = 0.8628, "another table prints 0.84", [0]
    best.test = Comparison(0.5, [0.2, 0.7], 0.0001, 0.004, "McNemar, exact", items)
    del rows[5].cells["prose", "word_perplexity"]
    rows[5].imported = True
    notes = ["bold: best merge", "<b>a note</b>"]
    board = Board(family, "a <i>family</i>", headings(), rows, notes, baseline="base", with_paper=True)
    board.mixed = ["another data revision"]
    return board, report


def write_board(board, report):
    (report / "board.json").write_text(board.to_json(), encoding="utf-8", errors="surrogatepass")


def _row(root, label, items, texts):
    place = f"m{LABELS.index(label)}"
    folder = root / "models" / place
    is_merge = label not in ("base", "reasoning")
    role = "merge" if is_merge else label
    method = label.lower() if is_merge and label.isalnum() else "other" if is_merge else None
    _stored(folder, {"recipe": "MergeRecipe", "key": "ab" * 32})
    made = {h.task: _task(folder, h.task, label, items, texts) for h in headings()}
    share = sum(right(label, i) for i in range(items)) / items
    cells = {
        ("gsm", "accuracy"): Cell(share, 0.05, items, rates={"unparsed": 0.1}, interval=[share / 2, 1.0]),
        ("mc", "acc"): Cell(share, 0.05, items),
        ("harm", "attack"): Cell(1 - share, 0.05, items),
        ("prose", "word_perplexity"): Cell(float("inf") if label == "TIES" else 5 + share, None, items),
    }
    for (task, _), cell in cells.items():
        cell.folder = str(made[task])
    averages = [Average("Reasoning", True, "accuracy", 100 * share, True, label == "ReasonAny")]
    return BoardRow(label, role, method, {"scale": 0.3}, str(folder), cells, averages=averages,
                    command=f"harness compare --methods {method}", seconds={"merge": 1.5})  # fmt: skip


def _stored(folder, recipe):
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (folder / "done.json").write_text(json.dumps({"fingerprint": "f" * 64}))


def _task(folder, task, label, items, texts):
    place = folder / "evals" / f"{task}--{'01234567'}"
    _stored(place, {"recipe": "EvalRecipe", "task": task, "key": "01234567" + "0" * 56})
    write_samples([_sample(task, label, i, texts) for i in range(items)], place / "samples.parquet")
    if task != "harm":
        return place
    judged = folder / "evals" / "harm--judge--89abcdef"
    _stored(judged, {"recipe": "JudgeRecipe", "evaluation": "01234567" + "0" * 56})
    lines = [{"doc_id": i, "part": "answer", "text": "t", "answer": f"verdict {i} <b>", "unparsed": False,
              "values": json.dumps({"attack": 1.0 - right(label, i)})} for i in range(items)]  # fmt: skip
    write_samples(lines, judged / "judged.parquet")
    return judged


def _sample(task, label, i, texts):
    good = right(label, i)
    row = {
        "doc_id": i,
        "filter": "none",
        "prompt": f"<|im_start|>user\nquestion {i} of {task}?",
        "target": "19",
    }
    if task == "mc":
        choices = [{"text": "yes", "logprob": -1.0 if good else -5.0}, {"text": "no", "logprob": -2.0}]
        return row | {"target": "0", "response": json.dumps(choices), "acc": float(good)}
    if task == "prose":
        return row | {"response": "-23.5", "loglikelihood": -23.5, "word_perplexity": 5.0 + i}
    told = (
        texts[i]
        if task == "gsm" and i < len(texts)
        else f"<think>{label} ponders {i}</think>answer {19 if good else 18}"
    )
    flags = {"unparsed": 0.0, "unfinished": 0.0, "empty": 0.0, "truncated": 0.0, "repetition": 0.0}
    row |= {"response": told, "finish": "stop", "tokens": 7, **flags}
    return row | ({"accuracy": float(good)} if task == "gsm" else {})
