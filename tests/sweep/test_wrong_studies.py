"""Wrong studies and sweeps: two lines, exit 2, nothing left behind."""

from pathlib import Path

import pytest
from click.testing import CliRunner

import harness
from harness.cli import main

TINY = Path(harness.__file__).parent / "families" / "tiny"
FILES = {
    "claim.yaml": "title: t\nmethod: ties\nrows: {a: {density: 0.5}}\n"
    "claims: [{sentence: s, row: a, than: b}]\n",
    "group.yaml": "title: t\nmethod: ties\nrows: {a: {}}\n"
    "claims: [{sentence: s, row: a, than: base, group: Reasonning}]\n",
    "setting.yaml": "title: t\nmethod: ties\nrows: {a: {densty: 0.5}}\n",
    "range.yaml": "title: t\nmethod: ties\ngrid: {density: [0.5, 7]}\n",
    "empty.yaml": "title: t\nmethod: ties\ngrid: {}\n",
    "hollow.yaml": "title: t\nmethod: ties\ngrid: {density: []}\n",
    "huge.yaml": "title: t\nmethod: ties\ngrid:\n"
    + "".join(f"  {key}: {[i / 1000 for i in range(1, 101)]}\n" for key in ("density", "scale"))
    + f"  profile: {['paper'] * 100}\n",
    "method.yaml": "title: t\nmethod: tiess\nrows: {a: {}}\n",
    "bare.yaml": f"title: t\nbase: {TINY}/base\ntasks: [tiny_chain]\n"
    f"experts: {{reasoning: {TINY}/reasoning, task: {TINY}/safety}}\n",
}


@pytest.mark.parametrize(
    ("args", "told", "hint"),
    [
        (["study", "selecton"], "no study is called `selecton`", "`selection`"),
        (["study", "./none.yaml"], "no such file", "selection"),
        (["study", "./claim.yaml"], "names the row `b`", "`a`"),
        (["study", "./group.yaml"], "`Reasonning`", "`Reasoning`"),
        (["study", "./setting.yaml"], "`densty`", "`density`"),
        (["study", "./range.yaml"], "7", "<= 1"),
        (["study", "./empty.yaml"], "or else `calibration:`", "selection"),
        (["study", "./hollow.yaml"], "`density`", "selection"),
        (["study", "./huge.yaml"], "1000000 points", "selection"),
        (["study", "./method.yaml"], "`tiess`", "`ties`"),
        (
            ["study", "selection", "--family", "./bare.yaml"],
            "needs calibration data of `reasoning`",
            "calibration:",
        ),
        (["study", "calibration", "--family", "./bare.yaml"], "varies calibration data", "calibration:"),
        (["study", "selection", "--family", "tiny-safty"], "`tiny-safty`", "`tiny-safety`"),
        (["study", "selection", "--families", "tiny-safety,tiny-safety"], "twice", "name"),
        (["study", "selection", "--tasks", "tiny_chan"], "`tiny_chan`", "`tiny_chain`"),
        (["show", "study", "selecton"], "`selecton`", "`selection`"),
        (["sweep", "ties", "--grid", "density=0.1:0.9"], "is a span", "--budget"),
        (
            ["sweep", "ties", "--grid", "density=0.1,0.2", "--objective", "tiny_chan"],
            "`tiny_chan`",
            "tiny_chain",
        ),
        (
            ["sweep", "ties", "--grid", "density=0.1,0.2", "--tune-on", "test"],
            "numbers that are reported",
            "--allow",
        ),
        (
            ["sweep", "reasonany", "--grid", "p=0.1", "--family", "./bare.yaml"],
            "calibration data",
            "calibration:",
        ),
    ],
)
def test_two_lines_before_any_work(workdir, args, told, hint):
    for name, text in FILES.items():
        (workdir / name).write_text(text)
    result = CliRunner().invoke(main, args)
    lines = result.stderr.strip().splitlines()
    assert result.exit_code == 2 and len(lines) == 2, result.output
    assert lines[0].startswith("error: ") and told in lines[0], lines
    assert lines[1].startswith("hint: ") and hint in lines[1], lines
    assert not (workdir / "results").exists()


def test_an_own_study_in_the_working_folder_is_listed_and_shown(workdir):
    (workdir / "studies").mkdir()
    (workdir / "studies" / "mine.yaml").write_text(FILES["group.yaml"].replace("Reasonning", "Reasoning"))
    listed = CliRunner().invoke(main, ["list", "studies"]).stdout
    assert "mine" in listed and "intervals" in listed
    shown = CliRunner().invoke(main, ["show", "study", "mine"]).stdout
    assert "ties" in shown and "a − base, on Reasoning: s" in shown
