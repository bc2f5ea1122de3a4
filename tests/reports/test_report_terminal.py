"""The terminal: what fits is shown, marks are seen without colour, and no label drives the terminal."""

import io
import os
import pty
import re
import subprocess
import sys

import boards
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from harness import registry
from harness.typeset import Printer, grid, visible

CODE = re.compile(r"\x1b\[[0-9;]*m")


def shown(board, width, colours=None):
    report, out = registry.report("terminal"), io.StringIO()
    console = Console(
        file=out, force_terminal=True, width=width, highlight=False, color_system=colours, _environ={}
    )
    sys.modules[report.__module__].show(console, board)
    return out.getvalue()


@pytest.mark.parametrize("width", [60, 80, 100, 140, 200])
@pytest.mark.parametrize("name", ["rich", "narrow", "wide"])
def test_no_line_is_longer_than_the_terminal(name, width):
    board = getattr(boards, name)()
    text = shown(board, width)
    assert max(map(cell_len, text.splitlines())) <= width
    for heading in board.headings:
        assert heading.title in text
    assert all(row.label in text for row in board.rows)


def test_values_of_a_column_end_at_one_place_whatever_their_marks():
    lines = shown(boards.rich(), 80).splitlines()
    at = {line.split("  ")[0].strip(): line for line in lines[:14] if re.search(r"\d\.\d", line)}
    column = {name: re.search(r"\d+\.\d", line).end() for name, line in at.items() if name != "paper"}
    plain = {name: end for name, end in column.items() if name in ("base", "safety", "TIES", "DARE †")}
    assert len(set(plain.values())) == 1, column


def test_a_wide_terminal_has_standard_errors_and_a_narrow_one_splits_by_group():
    assert "70.0 ±2.0" in shown(boards.narrow(), 140)
    wide = shown(boards.wide(), 80)
    assert "±" not in wide
    for group in ("Reasoning", "Knowledge", "Safety", "Biomedicine"):
        assert wide.count(f"─ {group} ─") == 1
    assert wide.count("Method 0") == 4


def test_marks_without_colour_are_text():
    text = shown(boards.rich(), 200)
    assert "\x1b" not in text
    assert "**85.7 ±1.6**°" in text and "_42.8 ±2.2_°†" in text and "0.8 ±0.4*" in text
    assert "2.31 ±0.05[a,b]" in text and "[a] engine vllm" in text and "LED-Merging ‡" in text


def test_marks_with_styles_are_bold_underlined_italic():
    text = shown(boards.rich(), 200, "truecolor")
    assert "\x1b[1m85.7 ±1.6\x1b[0m°" in text and "\x1b[4m42.8 ±2.2\x1b[0m" in text
    assert "\x1b[3m0.8 ±0.4\x1b[0m*" in text and "**" not in text


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.text(max_size=50)
    | st.text(st.sampled_from("\x1b\x9b[]();0m\x07\\\u202eA中\u200b\r\n\t\x08"), max_size=30)
)
def test_a_label_cannot_drive_the_terminal(label):
    board = boards.narrow()
    board.rows[3].label = board.headings[0].task
    board.rows[4].label, board.footnotes = label, [label]
    text = shown(board, 100, "truecolor")
    bare = CODE.sub("", text)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]", bare)
    for code in CODE.findall(text):
        assert re.fullmatch(r"\x1b\[(?:0|[1234](;[1234])*)m", code)
    assert max(map(cell_len, bare.splitlines())) <= 100
    assert visible(visible(label)) == visible(label)


@pytest.mark.parametrize(
    "text, seen",
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07x", "x"),
        ("\x1b]8;;http://a\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("a\x9b31mb", "ab"),
        ("\x1b[", ""),
        ("abc\rdef\nghi", "abc def ghi"),
        ("\u202egnp.exe\u202c", "gnp.exe"),
        ("x\ud800y", "x?y"),
    ],
)
def test_what_of_a_hostile_text_is_seen(text, seen):
    assert visible(text) == seen


def test_long_labels_are_wrapped_and_none_is_cut():
    board = boards.narrow()
    board.rows[4].label = (
        "a method with a very long name that says all of its settings: " + "density=0.1," * 6
    )
    text = shown(board, 80)
    assert max(map(cell_len, text.splitlines())) <= 80
    column = Printer(Console(width=80), grid(board), spread=False).label
    joined = "".join(line[:column].strip() for line in text.splitlines())
    assert "density=0.1," * 6 in joined.replace(" ", "")


def test_piped_output_is_the_markdown(tmp_path, capsys):
    board = boards.rich()
    (path,) = registry.report("markdown")(board, tmp_path)
    assert registry.report("terminal")(board, tmp_path / "elsewhere") == []
    assert capsys.readouterr().out == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [80, 140])
def test_on_a_real_terminal(width, tmp_path):
    """A pseudo-terminal: what is written to it is the table, not the Markdown."""
    code = "import boards; from harness import registry; registry.report('terminal')(boards.rich(), None)"
    there, ours = pty.openpty()
    env = {**os.environ, "COLUMNS": str(width), "LINES": "40", "TERM": "xterm-256color"}
    env["PYTHONPATH"] = os.pathsep.join(sys.path)
    with subprocess.Popen([sys.executable, "-c", code], stdout=ours, env=env, cwd=tmp_path) as process:
        os.close(ours)
        text = b""
        while True:
            try:
                part = os.read(there, 65536)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            text += part
    os.close(there)
    seen = text.decode().replace("\r\n", "\n")
    assert process.returncode == 0 and "| ReasonAny" not in seen and "─ Reasoning ─" in seen
    assert max(cell_len(CODE.sub("", line)) for line in seen.splitlines()) <= width
