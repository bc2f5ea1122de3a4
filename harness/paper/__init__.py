"""The numbers that ReasonAny's paper prints (arXiv:2601.05560), to stand beside ours. Light.

`benchmarks.csv` holds tables 1-3, 5, 6 and 8-14, `perplexity.csv` tables 4, 18 and 19,
`selection_ablations.csv` tables 15-17, `merge_cost.csv` tables 20 and 21 (one H200, two 7B models, fp16).
Nothing is smoothed: where the paper contradicts itself `notes.yaml` says so, and `notes` gives what concerns
some numbers.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

SOURCE = "arXiv:2601.05560"
FOLDER = Path(__file__).parent
# Family -> the table of its main results.
TABLES = {
    "qwen7b-safety": 1,
    "qwen7b-biomedicine": 2,
    "qwen14b-safety": 8,
    "qwen32b-safety": 9,
    "qwq32b-safety": 10,
    "llama8b-safety": 11,
    "llama8b-biomedicine": 12,
    "qwen7b-finance": 13,
    "llama8b-finance": 14,
}
FAMILIES = tuple(TABLES)
ALTERNATIVES = {5: ("reasoning", "openr1-math"), 6: ("reasoning", "opencode")}  # table -> calibration set
# Benchmark of the paper -> (our task, our metric, factor from the paper's scale to ours).
COLUMNS = {
    "gsm8k": ("gsm8k", "accuracy", 0.01),
    "math500": ("math500", "accuracy", 0.01),
    "aime24": ("aime24", "accuracy", 0.01),
    "humaneval": ("humaneval", "pass@1", 0.01),
    "livecodebench": ("livecodebench", "pass@1", 0.01),
    "arc_challenge": ("arc_c", "accuracy", 0.01),
    "arc_easy": ("arc_e", "accuracy", 0.01),
    "mmlu": ("mmlu", "accuracy", 0.01),
    "gpqa": ("gpqa_diamond", "accuracy", 0.01),
    "safety_tuned": ("safety_tuned", "harmfulness", 1.0),
    "harmbench": ("harmbench", "asr", 1.0),
    "safechain": ("safechain", "safety", 1.0),
    "pubmedqa": ("pubmedqa", "accuracy", 0.01),
    "medqa": ("medqa", "accuracy", 0.01),
    "convfinqa": ("convfinqa", "accuracy", 0.01),
    "openfindata": ("openfindata", "accuracy", 0.01),
    "word_perplexity": ("lm_eval:wikitext", "word_perplexity", 1.0),
}


@dataclass(frozen=True)
class Number:
    """One cell of the paper, in its own scale (accuracies in percent, HarmBench a share). `method` is ours by
    name, `expert_task` or `expert_reasoning`; `benchmark` a key of `COLUMNS` or `average`; `collapsed` where
    the paper marks it so."""

    table: int
    family: str
    method: str
    benchmark: str
    value: float
    collapsed: bool = False

    @property
    def label(self) -> str:
        """Where it is printed, for a footnote."""
        return f"{SOURCE}, table {self.table}"


@dataclass(frozen=True)
class Note:
    """A contradiction or gap: what it concerns (empty: all of them), and what it is."""

    text: str
    tables: tuple[int, ...] = ()
    families: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    benchmarks: tuple[str, ...] = ()

    def concerns(self, number: Number) -> bool:
        told = (
            (self.tables, number.table),
            (self.families, number.family),
            (self.methods, number.method),
            (self.benchmarks, number.benchmark),
        )
        return all(not listed or value in listed for listed, value in told)


def numbers(family: str, table: int | None = None) -> list[Number]:
    """A family's numbers: of its main table and its perplexities, or of one table. [] for other families."""
    wanted = {TABLES.get(family), 4, 18, 19} if table is None else {table}
    return [number for number in everything() if number.family == family and number.table in wanted]


def notes(found: list[Number]) -> list[Note]:
    """What is to be said of these numbers."""
    return [note for note in _notes() if any(note.concerns(number) for number in found)]


@lru_cache
def everything() -> tuple[Number, ...]:
    """All numbers of models on benchmarks, in the paper's order."""
    found = [
        Number(
            int(row["table"]),
            row["family"],
            row["method"],
            row["benchmark"],
            float(row["value"]),
            row["collapsed"] == "1",
        )
        for row in _rows("benchmarks")
    ]
    found += [
        Number(
            int(row["table"]), row["family"], row["method"], "word_perplexity", float(row["word_perplexity"])
        )
        for row in _rows("perplexity")
    ]
    return tuple(found)


def selection_ablations() -> list[dict[str, str]]:
    """Tables 15 to 17: GSM8K of `qwen7b-safety` by what is selected."""
    return _rows("selection_ablations")


def merge_cost() -> list[dict[str, str]]:
    """Tables 20 and 21: seconds and GB of GPU memory by method."""
    return _rows("merge_cost")


def _rows(name: str) -> list[dict[str, str]]:
    with (FOLDER / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@lru_cache
def _notes() -> tuple[Note, ...]:
    import yaml

    listed = yaml.safe_load((FOLDER / "notes.yaml").read_text(encoding="utf-8"))
    return tuple(
        Note(**{key: value if key == "text" else tuple(value) for key, value in one.items()})
        for one in listed
    )
