"""A report that fails after a sweep, a study or an equal budget is in the exit code; the others are there."""

import pytest
from click.testing import CliRunner

from harness import registry
from harness.cli import main

SMALL = ["--tasks", "tiny_facts_mc", "--limit", "3"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return str(tmp_path_factory.mktemp("results"))


@pytest.mark.parametrize(
    "verb",
    [
        ["sweep", "ties", "--grid", "density=0.3,0.5", *SMALL],
        ["study", "selection", *SMALL],
        ["compare", "--equal-budget", "1", "--methods", "ties", *SMALL],
    ],
    ids=lambda words: words[0],
)
def test_the_exit_code_says_that_a_report_failed(results, monkeypatch, verb):
    usual = registry.report

    def report(name):
        return breaks if name == "latex" else usual(name)

    def breaks(board, folder):
        raise ValueError("no such macro")

    monkeypatch.setattr(registry, "report", report)
    command = [*verb, "--results", results]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 1 and "no such macro" in done.output, done.output
    assert "table.md" in done.output and "table.tex" not in done.output
    monkeypatch.undo()
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0 and "table.tex" in done.output, done.output
