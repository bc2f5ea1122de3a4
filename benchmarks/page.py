"""How fast the page of a large board opens: `python benchmarks/page.py [samples …]`.

Writes boards of 10 rows with answers of 400 to 5000 characters, opens each from disk in Chromium, and prints
one JSON line: seconds to write it, its size, milliseconds to first paint, until it is loaded, and from a
click to a question's answers. Medians of five runs, each in a new browser context.
"""

from __future__ import annotations

import json
import random
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

from harness import page
from harness.board import Board, BoardRow, Cell, Heading
from harness.evaluate.results import write_samples

ASSETS = Path(__file__).parents[1] / "reports" / "html"
ROWS, TASKS, RUNS = 10, 5, 5
WORDS = [f"w{n:x}" for n in range(4096)]
PAINTED = """new Promise((done) => new PerformanceObserver((list) => {
  const paint = list.getEntries().find((entry) => entry.name === "first-contentful-paint");
  if (paint) done(paint.startTime);
}).observe({ type: "paint", buffered: true }))"""


def main() -> None:
    for samples in [int(word) for word in sys.argv[1:]] or [500, 50_000]:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(Path(folder), samples)), flush=True)


def measure(folder: Path, samples: int) -> dict[str, float]:
    board, report = made(folder / "big", samples // (ROWS * TASKS))
    began = time.perf_counter()
    index, *chunks = page.write(board, report, ASSETS)
    told = {
        "samples": samples,
        "write_s": round(time.perf_counter() - began, 2),
        "page_mb": round(index.stat().st_size / 1e6, 2),
        "chunks": len(chunks),
        "chunks_mb": round(sum(path.stat().st_size for path in chunks) / 1e6, 1),
    }
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        runs = [opened(browser, index.as_uri()) for _ in range(RUNS)]
        browser.close()
    return told | {name: round(statistics.median(run[name] for run in runs)) for name in runs[0]}


def opened(browser, address: str) -> dict[str, float]:
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    tab = context.new_page()
    tab.goto(address, wait_until="commit")
    paint = tab.evaluate(PAINTED)
    tab.wait_for_load_state()
    table = tab.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")
    tab.locator("td.open").first.click()
    began = time.perf_counter()
    tab.get_by_role("tab", name="Samples").click()
    tab.locator(".answer").first.wait_for()
    answers = (time.perf_counter() - began) * 1000
    context.close()
    return {"first_paint_ms": paint, "loaded_ms": table, "answers_ms": answers}


def made(root: Path, items: int) -> tuple[Board, Path]:
    report, chance = root / "report", random.Random(0)
    report.mkdir(parents=True)
    headings = [
        Heading(f"task{t}", "accuracy", f"Task {t}", "Reasoning", True, "accuracy") for t in range(TASKS)
    ]
    rows = []
    for number in range(ROWS):
        cells = {}
        for h in headings:
            place = root / "models" / f"m{number}" / "evals" / f"{h.task}--0"
            place.mkdir(parents=True)
            write_samples([sample(chance, i) for i in range(items)], place / "samples.parquet")
            cells[h.task, h.metric] = Cell(0.5, 0.01, items, folder=str(place))
        rows.append(
            BoardRow(f"row {number}", "merge", "linear", {}, str(root / "models" / f"m{number}"), cells)
        )
    return Board("big", "a large board", headings, rows, []), report


def sample(chance: random.Random, i: int) -> dict:
    words = chance.choices(WORDS, k=chance.randint(100, 1000))
    text = "<think>" + " ".join(words) + "</think>answer"
    prompt = f"question {i} " + " ".join(WORDS[i % 64 : i % 64 + 60])
    flags = dict.fromkeys(("unparsed", "unfinished", "empty", "truncated", "repetition"), 0.0)
    row = {"doc_id": i, "filter": "none", "prompt": prompt, "target": "1", "response": text, "finish": "stop"}
    return row | {"tokens": len(words), **flags, "accuracy": float(chance.random() < 0.5)}


if __name__ == "__main__":
    main()
