"""The command line: two lines and exit 2 for wrong input, data on standard output, no torch for help."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from harness.cli import main


def run(*args):
    return CliRunner().invoke(main, [str(a) for a in args])


@pytest.mark.parametrize(
    ("args", "told", "hint"),
    [
        (["compre"], "no command is called `compre`", "`compare`"),
        (["compare", "--famly", "x"], "--famly", "--help"),
        (["compare", "--limit", "0"], "0", "--help"),
        (["compare", "--family", "tiny-safty"], "`tiny-safty`", "`tiny-safety`"),
        (["compare", "--methods", "tiess"], "`tiess`", "`ties`"),
        (["compare", "--methods", ","], "empty list", "commas"),
        (["compare", "--tasks", "tiny_chan"], "`tiny_chan`", "`tiny_chain`"),
        (["compare", "--methods", "./nothing.py"], "nothing.py", "path"),
        (["merge", "ties", "--to", "out", "--set", "densty=0.5"], "`densty`", "`density`"),
        (["merge", "ties", "--to", "out", "--set", "density=7"], "7", "<= 1"),
        (["merge", "ties", "--to", "out", "--set", "density"], "'density'", "scale=0.5"),
        (["merge", "ties"], "--to", "--help"),
        (["eval", "./nowhere"], "nowhere", "config.json"),
        (["list", "method"], "`method`", "`methods`"),
        (["show", "metod", "ties"], "`metod`", "`method`"),
        (["show", "method", "tie"], "`tie`", "`ties`"),
        (["clean"], "nothing was named", "--weights"),
    ],
)
def test_wrong_input_is_two_lines_and_exit_2(workdir, args, told, hint):
    result = run(*args)
    assert result.exit_code == 2, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 2, result.stderr
    assert lines[0].startswith("error: ") and told in lines[0]
    assert lines[1].startswith("hint: ") and hint in lines[1]
    assert not (workdir / "results").exists(), "wrong input must leave nothing behind"


def test_help_imports_nothing_heavy():
    heavy = ("torch", "transformers", "lm_eval", "datasets", "pandas", "pydantic", "numpy")
    code = f"import sys, harness.cli; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_listing_and_showing_do_not_import_torch():
    code = (
        "import sys; from click.testing import CliRunner; from harness.cli import main\n"
        "for args in (['list'], ['show', 'method', 'ties'], ['show', 'family', 'tiny-safety']):\n"
        "    result = CliRunner().invoke(main, args); assert result.exit_code == 0, result.output\n"
        "print('torch' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


def test_list_and_show_speak_json():
    listed = json.loads(run("list", "--json").stdout)
    assert set(listed) == {"methods", "tasks", "suites", "families", "reports", "studies"}
    assert all(entry["error"] is None for entries in listed.values() for entry in entries), listed
    shown = json.loads(run("show", "method", "reasonany", "--json").stdout)
    assert {"scale", "p", "exclusion"} <= set(shown["parameters"])
    assert shown["parameters"]["scale"]["default"] == 1.0 and shown["parameters"]["p"]["default"] == 0.05
    assert "tiny_chain" in json.loads(run("show", "family", "tiny-safety", "--json").stdout)["tasks"]


def test_list_shows_a_broken_file_in_one_line_and_the_rest_as_usual(workdir):
    (workdir / "methods").mkdir()
    (workdir / "methods" / "broken.py").write_text("1/0\n")
    result = run("list", "methods")
    assert result.exit_code == 0
    broken = [line for line in result.stdout.splitlines() if "broken" in line]
    assert len(broken) == 1 and "ZeroDivisionError" in broken[0]
    assert "TIES" in result.stdout


def test_every_command_and_option_is_in_the_readme_or_docs():
    from pathlib import Path

    root = Path(__file__).parent.parent
    text = "\n".join(p.read_text() for p in [root / "README.md", *sorted((root / "docs").glob("*.md"))])
    for name, command in main.commands.items():
        assert f"harness {name}" in text, name
        for option in command.params:
            for flag in option.opts:
                if flag.startswith("--"):
                    assert flag in text, f"{name} {flag}"
