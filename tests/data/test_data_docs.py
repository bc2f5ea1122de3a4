"""docs/data.md has the table that the YAML files make; `python tests/data/test_data_docs.py` writes it."""

import re
from pathlib import Path

from harness.evaluate.task_file import load_task

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "data.md"
TABLE = re.compile(r"^\| task \| folder \|.*?\n\n", re.MULTILINE | re.DOTALL)


def table():
    """Every data set that our tasks read, in the order of the tasks' names."""
    lines = ["| task | folder | split: files (the first that is there is read) | rows | published at |"]
    lines.append("|---|---|---|---:|---|")
    seen = []
    for path in sorted((ROOT / "tasks").glob("[!_]*.yaml")):
        source = load_task(path).source
        if source is None or source in seen:
            continue
        seen.append(source)
        files = "; ".join(
            f"{split}: {', '.join(f'`{name}`' for name in names)}" for split, names in source.files.items()
        )
        rows = ", ".join(f"{count}" for count in source.rows.values()) or "–"
        place = source.address.removeprefix("https://") or "no public address"
        place += "" if source.revision or not source.address else ", not pinned"
        lines.append(f"| {path.stem} | `{source.benchmark}` | {files} | {rows} | {place} |")
    return "\n".join(lines) + "\n\n"


def test_the_table_is_what_the_tasks_say():
    (found,) = TABLE.findall(PAGE.read_text())
    assert found == table(), "run `python tests/data/test_data_docs.py`"


def test_the_page_names_what_there_is():
    text = PAGE.read_text()
    for name in ("HARNESS_DATA", "HF_HUB_OFFLINE", "HARNESS_GITHUB_RAW", "HARNESS_GITHUB_API", "HF_ENDPOINT"):
        assert name in text
    for state in ("here", "missing", "incomplete", "malformed", "changed"):
        assert f"`{state}`" in text


if __name__ == "__main__":
    PAGE.write_text(TABLE.sub(lambda _: table(), PAGE.read_text()))
