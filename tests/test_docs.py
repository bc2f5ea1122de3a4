"""Every `harness` command in a `sh` block of the README and docs runs, in order, in one working folder."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(page):
    for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL):
        for line in block.splitlines():
            if line.startswith("harness "):
                yield line.split("#")[0].strip()


def plugin_in(page):
    """The file `mine.py` that a page tells its reader to write."""
    found = re.search(r'```python\n(""".*?@merge_method\("mine".*?)```', page.read_text(), re.DOTALL)
    return found.group(1) if found else None


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if list(commands(p))], ids=lambda p: p.name)
def test_the_commands_of_a_page_run(page, workdir):
    if (text := plugin_in(page)) is not None:
        (workdir / "mine.py").write_text(text)
    for line in commands(page):
        words = line.split()[1:]
        if words[0] == "compare" and "--limit" not in words:
            words += ["--limit", "4"]  # the whole comparison is run elsewhere
        done = subprocess.run([sys.executable, "-m", "harness.cli", *words], capture_output=True, text=True)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


def test_the_readmes_method_is_short_and_the_same_in_the_docs():
    text = plugin_in(ROOT / "README.md")
    assert text == plugin_in(ROOT / "docs" / "methods.md")
    assert len(text.strip().splitlines()) <= 16


def test_the_readme_begins_with_what_a_newcomer_needs():
    head = "\n".join((ROOT / "README.md").read_text().splitlines()[:60])
    for needed in (
        "| ReasonAny",
        "make compare",
        "harness compare",
        "@merge_method",
        "./results/tiny-safety/",
    ):
        assert needed in head


def test_make_targets_in_the_readme_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z]+)`", (ROOT / "README.md").read_text())) <= targets
    assert shutil.which("make")
